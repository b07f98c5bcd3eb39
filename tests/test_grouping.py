from dataclasses import replace
from pathlib import Path

import pytest

from lora_distill.grouping import group_by_seed
from lora_distill.run_folder import METRICS, PREDICTIONS, RunFolder
from lora_distill.store import write_json
from tests.test_evidence import finish, suite_in


def test_runs_of_a_folder_are_grouped_by_all_but_the_seed(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, 2, "one", "two")
    runs = {
        name: each.model_copy(update={"alpha": 0.7}) if "two" in name else each for name, each in suite.runs.items()
    }
    finish(replace(suite, runs=runs), {"teacher": 0.9, "student": 0.9, "control": 0.85})
    groups = group_by_seed([RunFolder.of(config) for config in suite.runs.values()])
    assert {name: [run.path.name for run in each] for name, each in groups.items()} == {
        "s-one": ["s-one-seed-0", "s-one-seed-1"],
        "s-two": ["s-two-seed-0", "s-two-seed-1"],
    }


def test_a_run_of_the_same_models_is_left_out_and_what_was_trained_again_is_no_second_seed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    suite = suite_in(tmp_path, 2, "one")
    roles = {"teacher": 0.9, "student": 0.9, "control": 0.85}
    copies = {f"copy-{number}": suite.runs["one-seed-0"] for number in range(3)}
    copies = {name: config.model_copy(update={"exp_name": f"s-{name}"}) for name, config in copies.items()}
    again = {"again": suite.runs["one-seed-0"].model_copy(update={"exp_name": "s-again"})}
    finish(replace(suite, runs=suite.runs | copies), roles)
    for seconds, config in enumerate(copies.values()):  # as where another suite found the models trained
        run = RunFolder.of(config)
        write_json(run.path / METRICS, run.results() | {"seconds": seconds, "cost": {"seconds": {}}})
    finish(replace(suite, runs=again), roles | {"student": 0.8})
    damaged = {"damaged": suite.runs["one-seed-0"].model_copy(update={"exp_name": "s-damaged"})}
    finish(replace(suite, runs=damaged), roles)
    (tmp_path / "s-damaged" / PREDICTIONS).write_bytes(b"no parquet")
    groups = group_by_seed([RunFolder.of(config) for config in (suite.runs | copies | again | damaged).values()])
    assert {name: [run.path.name for run in each] for name, each in groups.items()} == {
        "s-one": ["s-one-seed-0", "s-one-seed-1"],
        "s-again": ["s-again"],
        "s-damaged": ["s-damaged"],
    }
    left_out = [f"s-{name} is left out, for it has the models of {tmp_path / 's-one-seed-0'}" for name in copies]
    assert [message.removeprefix(f"{tmp_path}/") for message in caplog.messages] == left_out


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    runs = []
    for folder, alpha in (("a", 0.1), ("b", 0.2), ("deep/b", 0.3)):
        suite = suite_in(tmp_path / folder, 2, "one")
        changed = {name: each.model_copy(update={"alpha": alpha}) for name, each in suite.runs.items()}
        changed["own"] = suite.runs["one-seed-0"].model_copy(update={"alpha": 1 - alpha, "exp_name": f"own-{alpha}"})
        finish(replace(suite, runs=changed), {"teacher": 0.9, "student": 0.9})
        runs += [RunFolder.of(config) for config in changed.values()]
    assert {name: len(each) for name, each in group_by_seed(runs).items()} == {
        "a/s-one": 2,
        "own-0.1": 1,
        str(tmp_path / "b" / "s-one-seed-0"): 2,
        "own-0.2": 1,
        str(tmp_path / "deep" / "b" / "s-one-seed-0"): 2,
        "own-0.3": 1,
    }


def test_a_run_that_is_to_be_trained_again_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    suite = suite_in(tmp_path, 2, "one")
    finish(suite, {"teacher": 0.9, "student": 0.9, "control": 0.85})
    runs = [RunFolder.of(config) for config in suite.runs.values()]
    runs[1].mark_outdated()
    assert list(group_by_seed(runs)) == ["s-one"]
    assert caplog.messages == [f"{runs[1].path} is to be trained again, which has not been done: it is shown as it was"]
