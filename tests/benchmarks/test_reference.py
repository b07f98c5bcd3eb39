import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn

from benchmarks.reference import Experiment, Stages, main, prepare
from benchmarks.reference_model import VARIANTS, Recipe, load_teacher, make_model
from benchmarks.reference_trainer import StepClock, predict_logits

SMALL: dict[str, Any] = {
    "teacher_target_layers": 2,
    "student_target_layers": 1,
    "max_length": 32,
    "batch_size": 8,
    "num_epochs": 2,
}


def recipe_for(encoder: Path, variant: str = "trainer") -> Recipe:
    return Recipe(variant, str(encoder), **SMALL)


def experiment_of(recipe: Recipe, rows: Path) -> Experiment:
    return prepare(recipe, files_in(rows), None, Stages())


def without_dropout(model: PeftModel) -> PeftModel:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def shaken(model: PeftModel) -> PeftModel:
    """With a head that tells rows apart."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "classifier" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def files_in(rows: Path) -> dict[str, Path]:
    return {name: rows / f"{name}.csv" for name in ("train", "validation", "test")}


@pytest.fixture
def call(encoder: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The command in this process, with tiny settings."""

    def run(*arguments: str) -> dict[str, Any]:
        out = tmp_path / "result.json"
        given = {"base_model": encoder, "out": out, "learning_rate": 1e-2, **SMALL, **files_in(rows)}
        flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
        monkeypatch.setattr(sys, "argv", ["reference", *flags, *arguments])
        main()
        result: dict[str, Any] = json.loads(out.read_text())
        return result

    return run


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_trains_all_roles_and_writes_what_it_took(
    variant: str, call: Callable[..., dict[str, Any]]
) -> None:
    result = call("--variant", variant, "--rows", "40")
    assert result["train_rows"] == 40
    assert list(result["roles"]) == ["teacher", "student", "control"]
    for role in result["roles"].values():
        assert role["step_rows"] == [8] * 10
        assert len(role["step_seconds"]) == 10
        assert role["rows_per_second"] > 0
        assert 0 <= role["accuracy"] <= 1
    stages = {"import", "load", "tokenise", "train teacher", "train student", "train control", "evaluate"}
    assert stages <= set(result["seconds"])
    assert ("teacher logits" in result["seconds"]) == (variant == "trainer-cached")
    assert result["memory"]["anonymous"] > 0
    assert result["recipe"]["variant"] == variant
    assert result["machine"]["versions"]["peft"]
    computed = result["roles"]["student"]["step_tokens_computed"]
    assert (set(computed) == {8 * 32}) == (variant == "seed-style")


def test_it_computes_in_the_precision_that_is_given(encoder: Path, rows: Path, tmp_path: Path) -> None:
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        experiment = experiment_of(replace(recipe_for(encoder), precision=precision), rows)
        student = make_model(experiment.recipe, "student", 2)
        dtypes: list[torch.dtype] = []
        student.get_submodule("base_model.model.classifier").register_forward_hook(
            lambda *given, dtypes=dtypes: dtypes.append(given[2].dtype)
        )
        trainer = experiment.trainer(student, None, experiment.splits["train"], tmp_path / precision)
        trainer.train()
        assert set(dtypes) == {dtype}


def test_the_loss_is_the_same_with_the_teacher_online_and_cached(encoder: Path, rows: Path, tmp_path: Path) -> None:
    losses = []
    for variant in ("trainer", "trainer-cached"):
        experiment = experiment_of(recipe_for(encoder, variant=variant), rows)
        teacher = shaken(make_model(experiment.recipe, "teacher", 2)).eval()
        student, data = without_dropout(make_model(experiment.recipe, "student", 2)), experiment.splits["train"]
        if variant == "trainer":
            trainer = experiment.trainer(student, teacher, data, tmp_path)
        else:
            data = data.add_column("teacher_logits", predict_logits(teacher, data, experiment.collator, bf16=True))
            trainer = experiment.trainer(student, None, data, tmp_path)
        batch = experiment.collator([data[index] for index in (3, 11, 0, 40)])
        losses.append(trainer.compute_loss(student.train(), batch).item())
    assert losses[0] > 0.1
    # The teacher computes in bf16, and its cached logits come from rows that were padded otherwise.
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)


def test_the_loss_is_hard_and_soft_in_training_and_hard_alone_in_evaluation(
    encoder: Path, rows: Path, tmp_path: Path
) -> None:
    experiment = experiment_of(recipe_for(encoder, variant="trainer-cached"), rows)
    student = without_dropout(make_model(experiment.recipe, "student", 2))
    trainer = experiment.trainer(student, None, experiment.splits["train"], tmp_path)
    batch = experiment.collator([experiment.splits["train"][0]])
    with torch.no_grad():
        logits = student.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    hard = nn.functional.cross_entropy(logits, batch["labels"]).item()
    batch["teacher_logits"] = logits  # a teacher that agrees leaves no soft loss
    assert trainer.compute_loss(student.train(), batch).item() == pytest.approx(0.5 * hard, rel=1e-5)
    assert trainer.compute_loss(student.eval(), batch).item() == pytest.approx(hard, rel=1e-5)


def test_cached_logits_stand_in_the_rows_order(encoder: Path, rows: Path) -> None:
    experiment = experiment_of(recipe_for(encoder), rows)
    teacher, data = shaken(make_model(experiment.recipe, "teacher", 2)).eval(), experiment.splits["train"]
    logits = predict_logits(teacher, data, experiment.collator, bf16=True)
    for index in (0, 17, 47):
        alone = predict_logits(teacher, data.select([index]), experiment.collator, bf16=True)[0]
        assert logits[index] == pytest.approx(alone, abs=0.02)


def test_a_saved_teacher_comes_back(encoder: Path, rows: Path, tmp_path: Path) -> None:
    experiment = experiment_of(recipe_for(encoder), rows)
    teacher = shaken(make_model(experiment.recipe, "teacher", 2)).eval()
    teacher.save_pretrained(tmp_path)
    again = load_teacher(experiment.recipe, tmp_path, 2)
    assert not any(p.requires_grad for p in again.parameters())
    logits = [
        predict_logits(each, experiment.splits["test"], experiment.collator, bf16=True) for each in (teacher, again)
    ]
    assert logits[0] == logits[1]


@pytest.mark.parametrize("family", ["bert", "mpnet", "roberta", "distilbert"])
def test_lora_sits_on_the_last_layers_and_every_fresh_parameter_is_trained(
    family: str, tiny: Callable[[str], Path]
) -> None:
    model = make_model(recipe_for(tiny(family)), "teacher", 2)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert {int(name.split("layer.")[1].split(".")[0]) for name in trained if ".lora_" in name} == {1, 2}
    assert sum(".lora_A." in name for name in trained) == 6
    assert any("classifier" in name for name in trained)


def test_the_rate_is_not_flattered_by_leaving_out_long_batches() -> None:
    clock = StepClock()
    clock.rows, clock.computed = [8] * 6, [800, 800, 800, 400, 400, 400]
    clock.seconds = [tokens / 1000 for tokens in clock.computed]
    # 1,000 tokens a second, 75 tokens a row
    assert clock.rows_per_second() == pytest.approx(1000 / 75)
