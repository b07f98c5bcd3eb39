"""What an experiment records; how it begins: test_experiment_begins.py; what it computes: tests/end_to_end."""

import csv
import json
import platform
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from lora_distill import experiment
from lora_distill.config import ROLES, Config, Role, make_config
from lora_distill.evaluate_run import evaluate_run
from lora_distill.evaluation.calibration import fit_temperature
from lora_distill.evaluation.metrics import temperature_scaling
from lora_distill.experiment import run_experiment, train_role
from lora_distill.made_with import VERSIONED
from lora_distill.preparation import prepare
from lora_distill.run_folder import RunFolder
from lora_distill.training import role as role_module
from lora_distill.training.loop import Unwanted, nobody
from lora_distill.trainings import run_training, trainings
from tests.end_to_end.conftest import small_values, write_rows

Tiny = Callable[[str], Path]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.csv", 60)


def config_of(base: Path, rows: Path, output: Path, **changes: object) -> Config:
    quick = {"num_epochs": 1, "no_control": True, "output_dir": str(output)}
    return make_config(small_values(base, rows) | quick | changes, {})


@pytest.fixture(scope="module")
def done(tiny: Tiny, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run's folder and what running it gave back. Read it, do not write into it."""
    output = tmp_path_factory.mktemp("out")
    return output / "run", run_experiment(config_of(tiny("roberta"), rows, output, exp_name="run"))


def test_what_is_given_back_is_what_is_written(done: tuple[Path, dict[str, Any]]) -> None:
    run, results = done
    assert json.loads((run / "metrics.json").read_text()) == results
    assert [role for role in ("teacher", "student", "control") if role in results] == ["teacher", "student"]
    assert results["data"]["drawn_by_seed"] == ["train", "validation"]
    assert "student_minus_control" not in results


def test_the_log_is_complete_for_a_caller_that_asked_to_see_nothing(done: tuple[Path, dict[str, Any]]) -> None:
    log = (done[0] / "train.log").read_text()
    for words in (
        "test split of its own",
        "trainable parameters of",
        "begun",
        "student: epoch 1 of 1: validation accuracy",
    ):
        assert words in log


def test_who_may_read_its_files_is_the_umask_s_to_say(done: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "fresh").touch()
    modes = {path.stat().st_mode for path in done[0].rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "fresh").stat().st_mode}


def test_predictions_are_by_row_and_by_name(done: tuple[Path, dict[str, Any]], rows: Path) -> None:
    run, results = done
    names = results["data"]["label_names"]
    with rows.open(encoding="utf-8") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    table = pq.read_table(run / "predictions.parquet")
    assert table.column_names[:3] == ["row_id", "text", "label"]
    assert [names[label] for label in table["label"].to_pylist()] == [
        labels[row] for row in table["row_id"].to_pylist()
    ]
    right = (np.array(table["student_prediction"]) == np.array(table["label"])) & (np.array(table["label"]) == 1)
    assert right.sum() == results["student"]["test"]["confusion"][1][1]


def test_a_temperature_is_fitted_on_validation_and_tried_on_test(done: tuple[Path, dict[str, Any]]) -> None:
    folder, results = done
    validation = prepare(RunFolder(folder).resolved()).dataset.validation
    table = pq.read_table(folder / "predictions.parquet")
    labels, names = table["label"].to_numpy(), results["data"]["label_names"]
    for role in ("teacher", "student"):
        (kept,) = (folder.parent / ".artefacts").glob(f"{role}-*/logits.safetensors")
        scaling = results[role]["temperature_scaling"]
        assert scaling["temperature"] == fit_temperature(load_file(kept)["validation"], validation.labels)
        logits = np.stack(table[f"{role}_logits"].to_numpy())
        assert scaling == temperature_scaling(logits, labels, names, scaling["temperature"])
        assert results[role]["test_intervals"].keys() < results[role]["test"].keys()


def test_other_runs_can_be_told_by_their_environment(done: tuple[Path, dict[str, Any]], tiny: Tiny) -> None:
    environment = json.loads((done[0] / "environment.json").read_text())
    base = environment["base_model"]
    assert (base["kind"], base["reference"]) == ("folder", str(tiny("roberta")))
    assert re.fullmatch("[0-9a-f]{16}", base["revision"])
    assert environment["data"]["fingerprint"] == done[1]["data"]["fingerprint"]
    assert environment["given_teacher"] is None
    assert environment["versions"]["python"] == platform.python_version()
    assert set(VERSIONED) < set(environment["versions"])
    assert environment["processor"]


@pytest.mark.parametrize("given", [False, True])
def test_what_was_trained_for_validation_only_is_judged_when_an_experiment_asks(
    given: bool, done: tuple[Path, dict[str, Any]], tiny: Tiny, rows: Path, tmp_path: Path
) -> None:
    untaught = {"teacher_lora_r": 16, "teacher_target_layers": 8}  # the defaults again
    teacher = {"teacher_checkpoint": str(done[0]), **untaught} if given else {}
    config = config_of(tiny("roberta"), rows, tmp_path, exp_name="later", **teacher)
    outcome = train_role(config, "student", nobody)
    assert "test" not in outcome.logits
    kept = list((tmp_path / ".artefacts").glob("*/logits.safetensors"))
    assert len(kept) == 2
    assert not any("test" in load_file(file) for file in kept)
    results = run_experiment(config)
    for role in ("teacher", "student"):
        assert results[role]["reused"]
        assert results[role]["test"] == done[1][role]["test"]


# With texts that have no labels


@pytest.fixture(scope="module")
def with_unlabelled(tiny: Tiny, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run's folder and results. Read it, do not write into it."""
    output = tmp_path_factory.mktemp("unlabelled")
    others = write_rows(output / "others.csv", 60, seed=1)
    settings = {"no_control": False, "unlabelled": str(others), "labelled_per_batch": 4, "labels_per_class": 8}
    own = {"control_num_epochs": 3, "teacher_num_epochs": 2}
    return output / "run", run_experiment(config_of(tiny("roberta"), rows, output, exp_name="run", **settings, **own))


def test_a_student_is_compared_with_one_that_taught_itself(with_unlabelled: tuple[Path, dict[str, Any]]) -> None:
    run, results = with_unlabelled
    config = RunFolder(run).resolved()
    assert config.roles == tuple(role for role in ROLES if role in results) == ROLES
    assert results["student_minus_self-trained"].keys() == results["student_minus_control"].keys()
    assert results["agreement"].keys() == {"student_teacher", "control_teacher", "self-trained_teacher"}
    assert results["data"]["unlabelled_rows"] == 60
    assert results["data"]["train_rows"] == 24
    assert {role: results[role]["epochs"] for role in ROLES} == dict(zip(ROLES, (2, 1, 3, 1), strict=True))
    assert (run / "self-trained" / "adapter_model.safetensors").exists()
    columns = pq.read_schema(run / "predictions.parquet").names
    assert {"self-trained_logits", "self-trained_prediction"} <= set(columns)


def test_what_the_control_differs_in_is_kept_with_what_it_is_compared_with(
    with_unlabelled: tuple[Path, dict[str, Any]], rows: Path
) -> None:
    run, results = with_unlabelled
    elsewhere, _ = evaluate_run(run, make_config({"dataset": str(rows), "device": "cpu"}, {}))
    for each in (results, elsewhere):
        assert each["student_minus_control"]["apart"] == "but for the number of epochs and the unlabelled texts"
        assert each["student_minus_self-trained"]["apart"] == ""


def test_the_self_trained_student_learns_from_the_control_and_the_student_from_the_teacher(
    with_unlabelled: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = with_unlabelled
    learnt: dict[str, Any] = {}

    def see(*_: object, role: str, soft_labels: Any, **__: object) -> None:  # noqa: ANN401
        learnt[role] = soft_labels
        raise Unwanted

    prepared = prepare(RunFolder(run).resolved())
    wanted = trainings(prepared)
    monkeypatch.setattr(role_module, "train", see)
    pairs: list[tuple[Role, Role]] = [("student", "teacher"), ("self-trained", "control")]
    for role, teacher in pairs:
        with pytest.raises(Unwanted):
            run_training(prepared, wanted[role], time.time(), nobody)
        said = load_file(wanted[teacher].artefact().folder / "logits.safetensors")
        assert len(said["train"]) == 24
        assert len(said["unlabelled"]) == 60
        assert np.array_equal(learnt[role].logits, np.concatenate([said["train"], said["unlabelled"]]))
    assert "train" not in load_file(wanted["student"].artefact().folder / "logits.safetensors")


# Finished by others


def test_a_run_that_another_process_has_finished_meanwhile_is_read(
    done: tuple[Path, dict[str, Any]], tiny: Tiny, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(*arguments: Any) -> Any:  # noqa: ANN401
        shutil.copytree(done[0], tmp_path / "mine")
        return prepare(*arguments)

    monkeypatch.setattr(experiment, "prepare", overtaken)
    results = run_experiment(config_of(tiny("roberta"), rows, tmp_path, exp_name="mine"))
    assert results == done[1] | {"exp_name": "mine"}
    assert (tmp_path / "mine" / "student" / "adapter_config.json").is_file()
