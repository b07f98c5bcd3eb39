"""What several models say together, and whether a student learns from teacher and control at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.special import softmax

from lora_distill.config import Config
from lora_distill.evaluation.calibration import fit_temperature, mean_nll
from lora_distill.experiment import run_experiment, train_role
from lora_distill.preparation import prepare
from lora_distill.training import role as role_module
from lora_distill.training.loop import nobody
from lora_distill.training.opinion_pool import is_likelier_together, pooled
from lora_distill.training.outcome import LOGITS, answered, read_outcome
from lora_distill.trainings import trainings

Logits = NDArray[np.float32]


def test_the_mean_is_of_probabilities_and_given_as_its_logarithm() -> None:
    one, other = np.log(np.array([[[0.8, 0.2], [0.5, 0.5]], [[0.4, 0.6], [0.1, 0.9]]], np.float32))
    assert pooled([one, other]) == pytest.approx(np.log([[0.6, 0.4], [0.3, 0.7]]), abs=1e-6)
    assert pooled([one, other]).dtype == np.float32


def test_a_row_is_answered_by_those_that_have_an_answer() -> None:
    nothing = [np.nan, np.nan]
    one, other = np.array([[nothing, [1.0, 0.0]], [[0.0, 2.0], nothing]], np.float32)
    assert softmax(pooled([one, other]), axis=1) == pytest.approx(softmax([[0.0, 2.0], [1.0, 0.0]], axis=1), abs=1e-6)
    with pytest.raises(ValueError, match="no model answers"):
        pooled([one, one])


@given(arrays(np.float32, (3, 4, 5), elements=st.floats(-30, 30, width=32)), st.floats(-20, 20))
def test_logits_count_up_to_a_constant_and_their_order_does_not(logits: np.ndarray, shift: float) -> None:
    together = pooled(list(logits))
    assert np.exp(together.astype(np.float64)).sum(axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert pooled([logits[2], logits[0] + np.float32(shift), logits[1]]) == pytest.approx(together, abs=1e-3)


def answers(labels: NDArray[np.int64], wrong: set[int]) -> Logits:
    """Sure of every row, and right in all but some."""
    said = [1 - label if row in wrong else label for row, label in enumerate(labels)]
    return np.where(np.arange(2) == np.array(said)[:, None], 2, -2).astype(np.float32)


def test_two_who_err_apart_are_likelier_together_and_one_who_is_never_right_adds_nothing() -> None:
    labels = np.arange(20) % 2
    teacher = answers(labels, {0, 1})
    for wrong, expected in (({2, 3}, True), ({0, 1}, False), (set(range(20)), False)):
        assert is_likelier_together(teacher, answers(labels, wrong), labels) == expected


def test_those_who_are_as_sure_as_they_are_right_are_not_so_together_and_judged_as_if_they_were() -> None:
    # Two who see the truth through noise of their own: the mean is right oftener, and too unsure.
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 2_000)
    truth = np.eye(4, dtype=np.float32)[labels]

    def seen(noise: float) -> Logits:
        logits = truth + generator.normal(scale=noise, size=truth.shape).astype(np.float32)
        return logits / np.float32(fit_temperature(logits, labels))

    teacher, control = seen(0.45), seen(0.6)
    assert mean_nll(pooled([teacher, control]), labels) > mean_nll(teacher, labels)
    assert (pooled([teacher, control]).argmax(axis=1) == labels).mean() > (teacher.argmax(axis=1) == labels).mean()
    assert is_likelier_together(teacher, control, labels)


# In an experiment


@pytest.fixture
def config(with_texts: Callable[..., Config]) -> Config:
    return with_texts(control_num_epochs=2, learn_from="both")


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("likelier", [False, True])
def test_a_student_learns_from_both_where_that_is_likelier_and_a_self_trained_one_from_the_control(
    calibrate: bool,
    likelier: bool,
    config: Config,
    learned: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    config = config.model_copy(update={"teacher_calibrate": calibrate})
    judged: list[tuple[Any, ...]] = []

    def decide(*arguments: Any) -> bool:  # noqa: ANN401
        judged.append(arguments)
        return likelier

    monkeypatch.setattr(role_module, "is_likelier_together", decide)
    results = run_experiment(config)
    assert list(learned) == ["teacher", "control", "student", "self-trained"]
    assert [role for role in results if role in learned] == ["teacher", "student", "control", "self-trained"]
    prepared = prepare(config)
    labels, said = prepared.dataset.validation.labels, {}
    for role, training in trainings(prepared).items():
        logits = load_file(training.artefact().folder / LOGITS)
        divisor = fit_temperature(logits["validation"], labels) if calibrate else 1
        said[role] = {name: (each / divisor).astype(np.float32) for name, each in logits.items()}
    teacher, control = ([said[role][name] for name in ("train", "unlabelled")] for role in ("teacher", "control"))
    ((of_teacher, of_control, rows),) = judged
    assert of_teacher == pytest.approx(said["teacher"]["validation"], abs=1e-5)
    assert of_control == pytest.approx(said["control"]["validation"], abs=1e-5)
    assert (rows == labels).all()
    wanted = [pooled(each) for each in zip(teacher, control, strict=True)] if likelier else teacher
    facts, divisor = results["student"], 1.0
    if calibrate and likelier:
        together = pooled([said["teacher"]["validation"], said["control"]["validation"]])
        divisor = fit_temperature(together, labels)
        assert facts["both_temperature"] == pytest.approx(divisor)
        assert facts["control_temperature"] == results["control"]["temperature_scaling"]["temperature"]
    assert ("both_temperature" in facts, "control_temperature" in facts) == (calibrate and likelier,) * 2
    assert learned["student"] == pytest.approx(np.concatenate(wanted) / np.float32(divisor), abs=1e-4)
    assert learned["self-trained"] == pytest.approx(np.concatenate(control), abs=1e-5)
    assert results["student"]["learns_from_both"] == likelier
    cards = {role: (tmp_path / "out" / "run" / role / "README.md").read_text() for role in said}
    assert f"; {'together with' if likelier else 'without'} the control, which is this student" in cards["student"]
    assert not any("together with the control" in cards[role] for role in ("teacher", "control", "self-trained"))


def test_another_control_makes_another_student_and_of_one_that_teaches_nobody_none(config: Config) -> None:
    def keys(**settings: object) -> dict[str, str]:
        wanted = trainings(prepare(config.model_copy(update=settings)))
        return {role: training.artefact().key for role, training in wanted.items()}

    known, other = keys(), keys(control_num_epochs=3)
    assert {role for role in known if known[role] != other[role]} == {"control", "student", "self-trained"}
    alone = [keys(learn_from="teacher", control_num_epochs=epochs)["student"] for epochs in (2, 3)]
    assert len({known["student"], *alone}) == 2


def test_rows_that_folds_answer_keep_the_answer_of_who_has_not_seen_them(
    config: Config, learned: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_module, "is_likelier_together", lambda *_: True)
    config = config.model_copy(update={"teacher_fit": "crossfit", "teacher_folds": 2})
    run_experiment(config)
    said = {role: read_outcome(each.artefact(), reused=True) for role, each in trainings(prepare(config)).items()}
    teacher, control = said["teacher"].logits, said["control"].logits
    wanted = np.concatenate([teacher["train"], pooled([teacher["unlabelled"], control["unlabelled"]])])
    assert learned["student"] == pytest.approx(wanted, abs=1e-5)


def test_a_control_that_taught_nobody_is_not_trained_again_to_teach(config: Config) -> None:
    config = config.model_copy(update={"unlabelled": None, "labelled_per_batch": 8, "learn_from": "teacher"})
    run_experiment(config)
    control = trainings(prepare(config))["control"].artefact()
    assert answered(control) == {"validation", "test"}
    results = run_experiment(config.model_copy(update={"learn_from": "both", "exp_name": "both"}))
    assert results["control"]["reused"]
    said = load_file(control.folder / LOGITS)
    elsewhere = config.model_copy(update={"learn_from": "both", "output_dir": f"{config.output_dir}-2"})
    run_experiment(elsewhere)
    whole = load_file(trainings(prepare(elsewhere))["control"].artefact().folder / LOGITS)
    assert said.keys() == whole.keys() == {"train", "validation", "test"}
    assert all((said[name] == whole[name]).all() for name in whole)


def test_without_other_texts_it_learns_from_both_as_well(config: Config) -> None:
    settings = {"unlabelled": None, "labelled_per_batch": 8}
    results = run_experiment(config.model_copy(update=settings))
    assert "learns_from_both" in results["student"]
    assert "self-trained" not in results


def test_a_search_trains_the_control_before_the_student(config: Config) -> None:
    outcome = train_role(config, "student", nobody)
    assert "learns_from_both" in outcome.facts
    results = run_experiment(config)
    assert [results[role]["reused"] for role in ("teacher", "student", "control", "self-trained")] == [True] * 3 + [
        False
    ]
