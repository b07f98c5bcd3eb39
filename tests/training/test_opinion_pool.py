"""What teacher and control say together, and how much each of it is the teacher's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.special import softmax

from lora_distill.config import Config, make_config
from lora_distill.evaluation.calibration import fit_temperature
from lora_distill.experiment import run_experiment, train_role
from lora_distill.preparation import prepare
from lora_distill.training import loop
from lora_distill.training import role as role_module
from lora_distill.training.loop import nobody
from lora_distill.training.opinion_pool import teacher_share, together
from lora_distill.training.outcome import LOGITS
from lora_distill.trainings import trainings
from tests.end_to_end.conftest import small_values, write_rows

Logits = NDArray[np.float32]


def drawn(seed: int, rows: int, classes: int = 3) -> tuple[Logits, Logits, NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    one, other = (random.normal(0, 2, (rows, classes)).astype(np.float32) for _ in range(2))
    return one, other, random.integers(0, classes, rows)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.01, 0.99))
def test_together_they_say_the_weighted_mean_of_their_probabilities(seed: int, rows: int, share: float) -> None:
    teacher, control, _ = drawn(seed, rows)
    wanted = share * softmax(teacher.astype(float), axis=1) + (1 - share) * softmax(control.astype(float), axis=1)
    said = together(teacher, control, share)
    assert said.dtype == np.float32
    assert np.exp(said) == pytest.approx(wanted, rel=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_each_has_what_the_other_has_not(seed: int, rows: int) -> None:
    teacher, control, labels = drawn(seed, rows)
    share = teacher_share(teacher, control, labels)
    assert 0 < share < 1
    assert teacher_share(control, teacher, labels) == pytest.approx(1 - share)
    assert teacher_share(teacher, teacher, labels) == pytest.approx(0.5)


@pytest.mark.parametrize(("rows", "least"), [(1, 0.6), (10, 0.9), (1000, 0.99)])
def test_the_more_rows_say_so_the_more_weighs_who_is_right(rows: int, least: float) -> None:
    labels = np.arange(rows) % 2
    right = np.where(np.arange(2) == labels[:, None], 3, -3).astype(np.float32)
    assert least < teacher_share(right, -right, labels) < least + 0.1


def test_the_share_is_the_mean_of_its_posterior() -> None:
    teacher, control, labels = drawn(0, 12)
    right = [softmax(each.astype(float), axis=1)[np.arange(12), labels] for each in (teacher, control)]
    weights = np.linspace(0, 1, 20_001)
    likelihoods = np.prod(weights[:, None] * right[0] + (1 - weights)[:, None] * right[1], axis=1)
    assert teacher_share(teacher, control, labels) == pytest.approx(np.average(weights, weights=likelihoods), abs=1e-4)


def test_two_who_are_certain_of_another_label_weigh_the_same() -> None:
    certain = np.array([[0, -np.inf]], np.float32)
    assert teacher_share(certain, certain, np.array([1])) == pytest.approx(0.5)
    assert np.exp(together(certain, certain[:, ::-1], 0.25)) == pytest.approx(np.array([[0.25, 0.75]]))


# In an experiment


@pytest.fixture
def config(tiny: Callable[[str], Path], tmp_path: Path) -> Config:
    rows = write_rows(tmp_path / "rows.csv", 60)
    settings: dict[str, Any] = {
        "output_dir": str(tmp_path / "out"),
        "exp_name": "run",
        "unlabelled": str(write_rows(tmp_path / "texts.csv", 50, seed=1)),
        "labelled_per_batch": 3,
        "num_epochs": 1,
        "control_num_epochs": 2,
        "learn_from": "both",
    }
    return make_config(small_values(tiny("roberta"), rows) | settings, {})


@pytest.mark.parametrize("calibrate", [False, True])
def test_a_student_learns_from_both_and_a_self_trained_one_from_the_control(
    calibrate: bool, config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = config.model_copy(update={"teacher_calibrate": calibrate})
    learned: dict[str, Logits | None] = {}

    def see(*arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
        learned[settings["role"]] = settings["soft_labels"] and settings["soft_labels"].logits
        return loop.train(*arguments, **settings)

    monkeypatch.setattr(role_module, "train", see)
    results = run_experiment(config)
    assert list(learned) == ["teacher", "control", "student", "self-trained"]
    prepared = prepare(config)
    labels, said = prepared.dataset.validation.labels, {}
    for role, training in trainings(prepared).items():
        logits = load_file(training.artefact().folder / LOGITS)
        divisor = fit_temperature(logits["validation"], labels) if calibrate else 1
        said[role] = {name: (each / divisor).astype(np.float32) for name, each in logits.items()}
    teacher, control = said["teacher"], said["control"]
    share = teacher_share(teacher["validation"], control["validation"], labels)
    assert results["student"]["teacher_share"] == pytest.approx(share)
    both = {name: together(teacher[name], control[name], share) for name in ("train", "unlabelled")}
    assert learned["student"] == pytest.approx(np.concatenate(list(both.values())), abs=1e-5)
    assert learned["self-trained"] == pytest.approx(np.concatenate([control["train"], control["unlabelled"]]), abs=1e-5)
    assert [role for role in results if role in learned] == ["teacher", "student", "control", "self-trained"]
    card = (tmp_path / "out" / "run" / "student" / "README.md").read_text()
    assert f"{share:.2f} times the teacher's probabilities and {1 - share:.2f} times the control's" in card
    assert "together with the control" not in (tmp_path / "out" / "run" / "self-trained" / "README.md").read_text()


def test_another_control_makes_another_student_and_of_one_that_teaches_nobody_none(config: Config) -> None:
    def keys(**settings: object) -> dict[str, str]:
        wanted = trainings(prepare(config.model_copy(update=settings)))
        return {role: training.artefact().key for role, training in wanted.items()}

    known, other = keys(), keys(control_num_epochs=3)
    assert {role for role in known if known[role] != other[role]} == {"control", "student", "self-trained"}
    alone = [keys(learn_from="teacher", control_num_epochs=epochs)["student"] for epochs in (2, 3)]
    assert len({known["student"], *alone}) == 2


def test_without_other_texts_it_learns_from_both_as_well(config: Config) -> None:
    settings = {"unlabelled": None, "labelled_per_batch": 8}
    results = run_experiment(config.model_copy(update=settings))
    assert 0 < results["student"]["teacher_share"] < 1
    assert "self-trained" not in results


def test_a_search_trains_the_control_before_the_student(config: Config) -> None:
    outcome = train_role(config, "student", nobody)
    assert 0 < outcome.facts["teacher_share"] < 1
    results = run_experiment(config)
    assert [results[role]["reused"] for role in ("teacher", "student", "control", "self-trained")] == [True] * 3 + [
        False
    ]
