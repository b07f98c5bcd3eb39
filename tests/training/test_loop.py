from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from peft import PeftModel

from lora_distill.data.batches import to_device
from lora_distill.errors import UserError
from lora_distill.model.split import SplitClassifier
from lora_distill.training import loop
from lora_distill.training.checkpoint import Progress, load_checkpoint, save_checkpoint, snapshot, trainable
from lora_distill.training.loop import read_ahead, train
from lora_distill.training.losses import pooled as pooled_module
from lora_distill.training.losses.distillation import SOFT_LOSSES
from lora_distill.training.losses.pooled import PooledMatching
from lora_distill.training.plan import ExecutionPlan
from lora_distill.training.recipe import SoftLabels, Split, TrainingSettings
from tests.training.conftest import CPU, RECIPE

Make = Callable[[], PeftModel]
Weights = dict[str, torch.Tensor]
LONGER = replace(RECIPE, num_epochs=10, batch_size=4)


def same_bits(one: Weights, other: Weights) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


class Trainer:
    """Trains one tiny model after another on the same rows."""

    def __init__(self, make_model: Make, training: Split, validation: Split, folder: Path) -> None:
        self.make_model, self.training, self.validation, self.folder = make_model, training, validation, folder
        self.count = 0

    def run(
        self,
        settings: TrainingSettings = RECIPE,
        *,
        work: Path | None = None,
        soft_labels: SoftLabels | None = None,
        seed: int = 0,
        plan: ExecutionPlan = CPU,
    ) -> tuple[Weights, Progress]:
        self.count += 1
        model = self.make_model()
        progress = train(
            SplitClassifier(model, plan.dtype),
            self.training,
            self.validation,
            role="student",
            settings=settings,
            plan=plan,
            seed=seed,
            work=work or self.folder / f"work-{self.count}",
            soft_labels=soft_labels,
        )
        return snapshot(model), progress


@pytest.fixture
def trainer(make_model: Make, training_rows: Split, validation_rows: Split, tmp_path: Path) -> Trainer:
    return Trainer(make_model, training_rows, validation_rows, tmp_path)


def test_it_learns_and_only_lora_and_head_move(trainer: Trainer) -> None:
    model = trainer.make_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    progress = train(
        SplitClassifier(model, torch.float32),
        trainer.training,
        trainer.validation,
        role="teacher",
        settings=LONGER,
        plan=CPU,
        seed=0,
        work=trainer.folder / "work",
    )
    assert progress.history[-1]["accuracy"] > 0.9
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(trainable(model))


def test_same_seed_same_bits_and_another_seed_others(trainer: Trainer) -> None:
    first, _ = trainer.run()
    assert same_bits(first, trainer.run()[0])
    assert not same_bits(first, trainer.run(seed=1)[0])


def matching_labels(rows: int, weight: float = 1.0, alpha: float = 0.5) -> SoftLabels:
    """Of a teacher of another width, with a projector that was not trained yet."""
    draw = np.random.default_rng(0)
    logits, vectors = (draw.normal(size=(rows, width)).astype(np.float32) for width in (2, 5))
    return SoftLabels(logits, alpha, 2.0, matching=PooledMatching.of(vectors, weight, width=32, seed=0))


def test_what_a_step_needs_goes_to_the_device_without_being_waited_for_and_weights_of_classes_once(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, ...]] = []

    def see(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        sent.append(tuple(tensor.shape))
        return to_device(tensor, device)

    for module in (loop, pooled_module):
        monkeypatch.setattr(module, "to_device", see)
    rows = len(trainer.training.labels)
    trainer.training = replace(trainer.training, class_weights=torch.ones(2))
    trainer.run(replace(RECIPE, num_epochs=1, batch_size=rows), soft_labels=matching_labels(rows))
    assert sent == [(2,), (rows,), (rows, 2), (rows, 5)]


@pytest.mark.parametrize("kind", ["plain", "LoRA+", "pooled"])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_stopped_after_an_epoch_it_goes_on_to_the_same_bits(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, stop_after: int, kind: str
) -> None:
    recipe = replace(RECIPE, lora_plus_ratio=8.0) if kind == "LoRA+" else RECIPE

    def soft_labels() -> SoftLabels | None:
        return matching_labels(len(trainer.training.labels)) if kind == "pooled" else None

    whole, expected = trainer.run(recipe, soft_labels=soft_labels())
    work = trainer.folder / "stopped"

    def save_and_stop(
        folder: Path, model: PeftModel, optimizer: torch.optim.Optimizer, best: Weights, progress: Progress
    ) -> None:
        save_checkpoint(folder, model, optimizer, best, progress)
        if progress.epoch == stop_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            trainer.run(recipe, work=work, soft_labels=soft_labels())
    assert sorted(path.name for path in work.iterdir()) == ["checkpoint.json", f"epoch-{stop_after}.safetensors"]
    again, progress = trainer.run(recipe, work=work, soft_labels=soft_labels())
    assert same_bits(whole, again)
    assert progress.history == expected.history


def test_the_best_epoch_s_weights_are_kept_or_the_last_s(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Weights] = []
    losses = iter([0.6, 0.3, 0.3, 0.5] * 2)

    def evaluate(network: SplitClassifier, _split: Split, progress: Progress, *_: object) -> None:
        seen.append(snapshot(network.model))
        if (loss := next(losses)) < progress.best_nll:
            progress.best_epoch, progress.best_nll = progress.epoch, loss

    monkeypatch.setattr(loop, "_evaluate", evaluate)
    settings = replace(RECIPE, num_epochs=4)
    best, progress = trainer.run(settings)
    assert progress.best_epoch == 2
    assert same_bits(best, seen[1])
    last, _ = trainer.run(replace(settings, keep_epoch="last"))
    assert same_bits(last, seen[7])
    assert not same_bits(best, last)


def test_early_stopping_waits_as_many_epochs_as_it_is_told(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(_network: SplitClassifier, _split: Split, progress: Progress, *_: object) -> None:
        if progress.epoch == 1:
            progress.best_epoch, progress.best_nll = 1, 0.1

    monkeypatch.setattr(loop, "_evaluate", evaluate)
    settings = replace(RECIPE, num_epochs=6)
    assert trainer.run(settings)[1].epoch == 6
    assert trainer.run(replace(settings, early_stopping_patience=2))[1].epoch == 3


def test_the_best_epoch_is_the_likeliest_however_sure_it_is(
    make_model: Make, validation_rows: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = len(validation_rows.labels)
    known = np.where(np.arange(2) == validation_rows.labels[:, None], 1, -1) * np.linspace(0.1, 3, rows)[:, None]
    doubtful, mistaken = known.copy(), known.copy()
    doubtful[:2] *= -1  # wrong twice, where it hardly knows
    mistaken[-1] *= -1  # wrong once, where it is surest
    answers = {"mistaken": mistaken, "doubtful, far too sure": 17 * doubtful, "doubtful": 0.9 * doubtful}
    progress, network = Progress(), SplitClassifier(make_model(), torch.float32)
    best = []
    for logits in answers.values():
        progress.epoch += 1
        monkeypatch.setattr(loop, "predict_logits", lambda *_, logits=logits: logits.astype(np.float32))
        loop._evaluate(network, validation_rows, progress, "student", 3)
        best.append(progress.best_epoch)
    accurate, sure, fit = progress.history
    assert accurate["accuracy"] > sure["accuracy"]
    assert sure["nll"] > accurate["nll"] > accurate["calibrated_nll"] > sure["calibrated_nll"]
    assert sure["calibrated_nll"] == pytest.approx(fit["calibrated_nll"], rel=1e-6)
    assert best[:2] == [1, 2]


@pytest.mark.parametrize(
    ("schedule", "first", "middle", "last"),
    [("linear", 0, 0.525, 0.05), ("cosine", 0, 0.6, 0.006), ("constant", 0, 1, 1)],
)
def test_the_learning_rate_warms_up_and_goes_down(
    trainer: Trainer, schedule: str, first: float, middle: float, last: float
) -> None:
    # 18 steps, 2 of them warm-up
    _, progress = trainer.run(replace(RECIPE, lr_schedule=schedule, logging_steps=1))
    rates = [line["learning_rate"] / RECIPE.learning_rate for line in progress.history if line["event"] == "step"]
    assert len(rates) == 18
    assert rates[0] == first
    assert rates[1] == 0.5
    assert max(rates) == rates[2] == 1
    assert rates[-1] == pytest.approx(last, abs=0.02)
    assert rates[9] == pytest.approx(middle, abs=0.05)


def test_lora_plus_lets_b_alone_learn_faster(trainer: Trainer) -> None:
    """Adam's first step moves each parameter by its rate, whatever the gradient, but for what hardly has one."""
    one_step = replace(
        RECIPE, num_epochs=1, batch_size=len(trainer.training.labels), weight_decay=0.0, max_grad_norm=1e6
    )
    before = snapshot(trainer.make_model())
    for ratio in (1.0, 4.0):
        after, _ = trainer.run(replace(one_step, lora_plus_ratio=ratio))
        for name, weights in after.items():
            moved = float((weights - before[name]).abs().max())
            rate = ratio if "lora_B" in name else 0.0 if "lora_A" in name else 1.0  # A has no gradient while B is 0
            assert moved == pytest.approx(rate * RECIPE.learning_rate, rel=0.1), name


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_a_run_of_one_step_learns_at_the_full_rate(trainer: Trainer, schedule: str) -> None:
    settings = replace(RECIPE, num_epochs=1, batch_size=len(trainer.training.labels), lr_schedule=schedule)
    trained, progress = trainer.run(settings)
    assert progress.step == 1
    assert progress.history[0]["learning_rate"] == RECIPE.learning_rate
    assert not same_bits(trained, snapshot(trainer.make_model()))


def test_history_has_means_over_the_logged_steps(trainer: Trainer) -> None:
    _, each = trainer.run(replace(RECIPE, logging_steps=1))
    _, pairs = trainer.run(replace(RECIPE, logging_steps=2))
    single = [line["loss"] for line in each.history if line["event"] == "step"]
    double = [line["loss"] for line in pairs.history if line["event"] == "step"]
    assert double == pytest.approx([(a + b) / 2 for a, b in zip(single[::2], single[1::2], strict=True)])
    assert [line["step"] for line in pairs.history if line["event"] == "step"] == list(range(2, 19, 2))


def test_with_alpha_1_the_labels_do_not_matter(trainer: Trainer) -> None:
    logits = np.random.default_rng(0).normal(size=(len(trainer.training.labels), 2)).astype(np.float32)
    soft = SoftLabels(logits, alpha=1.0, temperature=2.0)
    settings = replace(RECIPE, keep_epoch="last")
    first, _ = trainer.run(settings, soft_labels=soft)
    trainer.training = Split(trainer.training.rows, 1 - trainer.training.labels)
    assert same_bits(first, trainer.run(settings, soft_labels=soft)[0])
    assert not same_bits(first, trainer.run(settings)[0])


def test_a_class_of_hardly_any_weight_is_not_learnt_and_smoothed_labels_are_others(trainer: Trainer) -> None:
    settings = replace(LONGER, num_epochs=20, batch_size=8, keep_epoch="last")  # no batch of one class
    labels, rows = trainer.training.labels, trainer.training.rows
    plain, learnt = trainer.run(settings)
    smoothed, _ = trainer.run(replace(settings, label_smoothing=0.3))
    assert not same_bits(plain, smoothed)
    trainer.training = Split(rows, labels, torch.ones(2))
    assert same_bits(plain, trainer.run(settings)[0])
    trainer.training = Split(rows, labels, torch.tensor([1e-4, 1.0]))
    _, progress = trainer.run(settings)
    assert progress.history[-1]["accuracy"] < 0.6
    assert learnt.history[-1]["accuracy"] > 0.8


@pytest.mark.parametrize("loss", SOFT_LOSSES)
def test_a_student_comes_to_answer_as_its_teacher_does(loss: str, trainer: Trainer) -> None:
    upside_down = np.array([[-4.0, 4.0], [4.0, -4.0]], np.float32)[trainer.training.labels]
    _, progress = trainer.run(
        replace(LONGER, keep_epoch="last"), soft_labels=SoftLabels(upside_down, alpha=1.0, temperature=1.0, loss=loss)
    )
    assert progress.history[-1]["accuracy"] < 0.1


def test_a_student_comes_to_have_its_teacher_s_pooled_vectors_but_for_a_projection(trainer: Trainer) -> None:
    rows = trainer.training.rows
    everyone = np.arange(len(trainer.training.labels))
    toward = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], np.float32)[trainer.training.labels]
    distances = []
    for weight in (0.0, 5.0):
        matching = PooledMatching.of(toward, weight, width=32, seed=0)
        drawn = matching.projector.weight.detach().clone()
        model = trainer.make_model()
        network = SplitClassifier(model, torch.float32)
        train(
            network,
            trainer.training,
            trainer.validation,
            role="student",
            settings=replace(LONGER, keep_epoch="last", weight_decay=0.0),
            plan=CPU,
            seed=0,
            work=trainer.folder / f"pooled-{weight}",
            soft_labels=SoftLabels(np.zeros((len(everyone), 2), np.float32), 1.0, 1.0, matching=matching),
        )
        assert torch.equal(matching.projector.weight, drawn) == (weight == 0)
        network.eval()
        _, pooled = network.logits_and_pooled(rows.batch(everyone))
        distances.append(replace(matching, weight=1.0).loss(pooled, everyone).item())
    assert distances[0] > 1
    assert distances[1] < 0.1


def test_a_loss_that_is_no_number_ends_with_advice(trainer: Trainer) -> None:
    logits = np.full((len(trainer.training.labels), 2), np.inf, np.float32)
    with pytest.raises(UserError, match=r"student: the loss is nan at step 2.*\n.*--learning_rate"):
        trainer.run(soft_labels=SoftLabels(logits, alpha=0.5, temperature=1.0))


def test_bf16_and_fp32_runs_follow_each_other_in_one_process_and_nearly_agree(trainer: Trainer) -> None:
    _, exact = trainer.run()
    _, rounded = trainer.run(plan=ExecutionPlan("cpu", "bf16", 1))
    _, again = trainer.run()
    assert again.history == exact.history
    assert rounded.history != exact.history
    assert rounded.best_nll == pytest.approx(exact.best_nll, abs=0.1)


def test_a_checkpoint_holds_the_optimizer_s_moments_and_counters(make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-3)
    for parameter in trainable(model).values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    progress = Progress(
        epoch=1, step=7, seconds=1.5, best_epoch=1, best_nll=0.5, history=[{"event": "step", "loss": 0.1}]
    )
    save_checkpoint(tmp_path, model, optimizer, snapshot(model), progress)
    other = make_model()
    fresh = torch.optim.AdamW(trainable(other).values(), lr=1e-3)
    loaded = load_checkpoint(tmp_path, other, fresh)
    assert loaded is not None
    assert loaded[0] == progress
    assert same_bits(loaded[1], snapshot(model))
    assert same_bits(snapshot(other), snapshot(model))
    for ours, theirs in zip(trainable(model).values(), trainable(other).values(), strict=True):
        assert optimizer.state[ours].keys() == fresh.state[theirs].keys()
        assert all(torch.equal(optimizer.state[ours][key], fresh.state[theirs][key]) for key in optimizer.state[ours])
    assert load_checkpoint(tmp_path / "elsewhere", other, fresh) is None


def test_reading_ahead_changes_nothing_but_when() -> None:
    made = [Event() for _ in range(5)]

    def make() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    seen = []
    for item in read_ahead(make()):
        seen.append(item)
        assert all(event.wait(10) for event in made[: item + 2])  # the next is made while this one is in use
    assert seen == list(range(5))
    assert list(read_ahead(iter(()))) == []
