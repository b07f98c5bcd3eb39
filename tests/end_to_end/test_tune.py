"""`lora-distill tune`: the test split is left to the winner, and a kill changes nothing."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

from lora_distill import tuning
from lora_distill.experiment import run_experiment
from lora_distill.search import Search, read_search
from lora_distill.training.role import RoleTraining
from lora_distill.tuning import run_trials, winner
from tests.end_to_end.conftest import Command, write_rows
from tests.end_to_end.test_resume import start_and_signal
from tests.test_tuning import base_of, trials_of, write


@pytest.fixture
def base(tiny: Callable[[str], Path], tmp_path: Path) -> dict[str, object]:
    return base_of(tiny("bert"), write_rows(tmp_path / "rows.csv", 60))


def test_the_best_of_its_trials_becomes_a_run_and_only_that_sees_the_test_split(
    base: dict[str, object], tmp_path: Path, call: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, base)
    judged: list[str] = []
    whole = RoleTraining.run

    def run(self: RoleTraining, splits: Any, **settings: Any) -> Any:  # noqa: ANN401
        judged.append(self.role) if "test" in splits else None
        return whole(self, splits, **settings)

    monkeypatch.setattr(RoleTraining, "run", run)
    done = call("tune", file)
    assert done.returncode == 0, done.stderr
    assert judged == ["teacher", "student", "control"]  # of the winner's run
    for words in (
        "Trials of the student, judged on validation",
        "student_lora_r",
        "The best student is that of trial",
        "The control has the student's settings",
        "Report: ",
    ):
        assert words in done.stdout
    search = read_search(file, {}, {})
    trials = run_trials(search)
    best = winner(trials)
    assert [each.number for each in trials] == [0, 1, 2, 3]
    assert best.nll == min(each.nll or 0 for each in trials if each.state == "finished")
    seen = []
    for logits in (tmp_path / "out" / ".artefacts").glob("*/logits.safetensors"):
        with safe_open(logits, framework="numpy") as held:
            if "test" in set(held.keys()):
                seen.append(logits.parent.name.partition("-")[0])
    assert sorted(seen) == ["control", "student", "teacher"]

    # The test split as it would have been judged at once, to the same bits; config.yaml is what train takes.
    again = yaml.safe_load((tmp_path / "out" / "mine" / "config.yaml").read_text())
    assert again["student_lora_r"] == best.settings["student_lora_r"]
    other = search.config(best.settings, "mine").model_copy(update={"output_dir": str(tmp_path / "other")})
    run_experiment(other)
    one, two = (tmp_path / out / "mine" / "predictions.parquet" for out in ("out", "other"))
    assert one.read_bytes() == two.read_bytes()

    # Nothing is left to do.
    monkeypatch.setattr(tuning, "train_role", None)
    done = call("tune", file)
    assert done.returncode == 0, done.stderr
    assert "already finished" in done.stderr
    refused = call("tune", write(tmp_path, base, seed=1))
    assert (refused.returncode, "holds trials of a search with other seed" in refused.stderr) == (2, True)


def test_the_control_is_tuned_as_well_where_what_is_searched_can_be_its_own(
    base: dict[str, object], tmp_path: Path, call: Command
) -> None:
    space = {"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}, "alpha": {"low": 0.1, "high": 0.9}}
    del base["learning_rate"]
    file = write(tmp_path, base, search=space, trials=3)
    done = call("tune", file)
    assert done.returncode == 0, done.stderr
    search = read_search(file, {}, {})
    student = winner(run_trials(search))
    control = search.of_control(student.settings, f"mine-control-{student.number + 1}")
    trials = run_trials(control, "control")
    best = winner(trials)
    assert len(trials) == 3
    assert {name for each in trials for name in each.settings} == {"control_learning_rate"}
    assert f"The best control is that of its trial {best.number + 1}." in done.stdout
    assert "flatters" not in done.stdout
    made = yaml.safe_load((tmp_path / "out" / "mine" / "config.yaml").read_text())
    assert made["control_learning_rate"] == best.settings["control_learning_rate"]
    assert made["learning_rate"] == student.settings["learning_rate"]
    artefacts = [path for path in (tmp_path / "out" / ".artefacts").glob("control-*") if path.is_dir()]
    assert len(artefacts) == 3  # the winner's was there


def told(search: Search) -> list[tuple[Any, ...]]:
    return [(each.number, each.state, each.params, each.value, each.intermediate_values) for each in trials_of(search)]


@pytest.mark.slow
def test_killed_and_called_again_its_trials_are_those_of_a_search_that_nothing_stopped(
    base: dict[str, object], tmp_path: Path, call: Command
) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    longer = base | {"num_epochs": 12}  # so that the student has not ended when the signal comes
    file = write(tmp_path / "killed", longer, trials=3)
    artefacts = tmp_path / "killed" / "out" / ".artefacts"

    def second_student_has_begun() -> bool:
        # The first's own checkpoint is still there for a moment when it has ended.
        ended = {each.parent.name for each in artefacts.glob("student-*/recipe.json")}
        begun = {each.parent.stem for each in artefacts.glob("student-*.unfinished/checkpoint.json")}
        return bool(ended and begun - ended)

    code, _ = start_and_signal(tmp_path, ["tune", str(file)], second_student_has_begun, signal.SIGKILL)
    assert code == -signal.SIGKILL
    killed, whole = read_search(file, {}, {}), read_search(write(tmp_path / "whole", longer, trials=3), {}, {})
    assert [each.state.name for each in trials_of(killed)] == ["COMPLETE", "RUNNING"]
    done = call("tune", file)
    assert done.returncode == 0, done.stderr
    assert "student: goes on after epoch" in done.stderr
    run_trials(whole)
    assert told(killed) == told(whole)
    assert [each.state.is_finished() for each in trials_of(killed)] == [True] * 3
