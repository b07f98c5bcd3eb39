"""The runs of a suite, one after the other and side by side."""

import errno
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lora_distill import experiment, running
from lora_distill.config import Config, make_config
from lora_distill.run_folder import METRICS, REPORT, RunFolder
from lora_distill.running import RENAME, SuiteResult, run_suite
from lora_distill.store import write_json
from lora_distill.suite import Suite
from tests.reporting.test_report import finished_run


def run(suite: Suite, **how: Any) -> SuiteResult:  # noqa: ANN401 - as run_suite takes it
    outcome = SuiteResult()
    run_suite(suite, outcome, **how)
    return outcome


def finish(config: Config, **environment: object) -> dict[str, Any]:
    """A finished run's folder; the results in it."""
    run, packaged = RunFolder.of(config), {"kind": "packaged", "reference": "minilm"}
    request = {"config": config.model_dump(mode="json"), "named": sorted(config.model_fields_set)}
    models = {"base_model": packaged, "student_base_model": packaged, "given_teacher": None}
    run.begin(config, {"requested": request, **models, **environment})
    source = {"kind": "file", "location": config.dataset, "revision": "1"}
    results = {"exp_name": config.exp_name, "data": {"source": source}}
    write_json(run.path / METRICS, results)
    (run.path / REPORT).touch()
    return results


def test_a_failure_does_not_stop_the_rest_and_what_is_finished_is_read(tmp_path: Path) -> None:
    settings = {"output_dir": str(tmp_path), "dataset": str(tmp_path / "absent.csv"), "base_model": "minilm"}
    failing = make_config({**settings, "exp_name": "s-failing"}, {})
    finished = make_config({**settings, "exp_name": "s-finished"}, {})
    results = finish(finished)
    outcome = run(Suite("s", {"failing": failing, "finished": finished}, {}))
    assert outcome.results == [results]
    assert "absent.csv" in outcome.failures["failing"]
    assert run(Suite("s", {"changed": finished.model_copy(update={"alpha": 0.7})}, {})).failures == {
        "changed": f"{RunFolder.of(finished).path}: holds a run with another config (alpha 0.5, now 0.7).\n{RENAME}"
    }


def test_the_first_failure_stops_the_rest_where_that_is_asked_for(tmp_path: Path) -> None:
    settings = {"output_dir": str(tmp_path), "dataset": str(tmp_path / "absent.csv"), "base_model": "minilm"}
    runs = {name: make_config({**settings, "exp_name": f"s-{name}"}, {}) for name in ("one", "two")}
    assert list(run(Suite("s", runs, {}), fail_fast=True).failures) == ["one"]
    assert list(run(Suite("s", runs, {})).failures) == ["one", "two"]


def test_side_by_side_results_come_in_their_order_and_a_failure_is_as_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {
        name: make_config({"output_dir": str(tmp_path), "exp_name": f"s-{name}", "alpha": alpha}, {})
        for name, alpha in (("slow", 0.1), ("taken", 0.2), ("ill", 0.3), ("quick", 0.4))
    }
    begun = runs["taken"].model_copy(update={"alpha": 0.9})
    RunFolder.of(begun).begin(begun, {"requested": {"config": begun.model_dump(mode="json"), "named": ["alpha"]}})

    def command(config: Config, file: Path, *, resume: bool, overwrite: float) -> list[str]:
        """Stands for a training: the slow one ends when the quick one has, the ill one with an error."""
        code = f"""
import pathlib, sys, time
name, folder = {config.exp_name!r}, pathlib.Path({str(tmp_path)!r})
if name == "s-ill":
    sys.exit("a warning\\nerror: no such thing.\\nGive another.")
while name == "s-slow" and not (folder / "s-quick" / "metrics.json").exists():
    time.sleep(0.01)
(folder / name).mkdir()
(folder / name / "metrics.json").write_text('{{"exp_name": ""}}')
"""
        return [sys.executable, "-c", code]

    monkeypatch.setattr(running, "train_command", command)
    outcome = run(Suite("s", runs, {}), jobs=2)
    assert [results["exp_name"] for results in outcome.results] == ["s-slow", "s-quick"]
    assert sorted(outcome.trained) == ["quick", "slow"]
    assert outcome.failures["ill"] == "no such thing.\nGive another."
    assert outcome.failures["taken"].endswith(f"holds a run with another config (alpha 0.9, now 0.2).\n{RENAME}")
    assert not outcome.running
    failing = Suite("s", {name: runs[name] for name in ("taken", "ill")}, {})
    assert list(run(failing, jobs=2, fail_fast=True).failures) == ["taken"]


def test_an_error_of_ours_stops_neither_the_rest_nor_is_it_hidden_and_a_full_disk_stops_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {"s-ill": RuntimeError("no such kernel"), "s-full": OSError(errno.ENOSPC, "No space left on device")}

    def run_or_read(config: Config, **_: object) -> dict[str, Any]:
        if config.exp_name in errors:
            raise errors[config.exp_name]
        return {"exp_name": config.exp_name}

    monkeypatch.setattr(running, "run_or_read", run_or_read)
    runs = {name: make_config({"output_dir": str(tmp_path), "exp_name": f"s-{name}"}, {}) for name in ("ill", "well")}
    outcome = run(Suite("s", runs, {}))
    assert outcome.trained == ["well"]
    assert outcome.failures["ill"].startswith("broke.\nTraceback")
    assert outcome.failures["ill"].endswith("RuntimeError: no such kernel")
    runs["full"] = runs["ill"].model_copy(update={"exp_name": "s-full"})
    with pytest.raises(OSError, match="No space left"):
        run(Suite("s", runs, {}))


def test_a_full_disk_stops_what_runs_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(*_: object, **__: object) -> list[str]:
        return [sys.executable, "-c", "import sys; sys.exit('error: x: No space left on device. Free some room.')"]

    monkeypatch.setattr(running, "train_command", command)
    names = [f"run-{number}" for number in range(5)]
    runs = {name: make_config({"output_dir": str(tmp_path), "exp_name": f"s-{name}"}, {}) for name in names}
    outcome = SuiteResult()
    with pytest.raises(OSError, match="No space left"):
        run_suite(Suite("s", runs, {}), outcome, jobs=2)
    assert outcome.failures == {}
    assert len(outcome.running) < len(runs)


def test_a_run_that_was_trained_has_a_page_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,0\nb,0\nc,0\nd,1\ne,1\nf,1\n")
    settings = {"output_dir": str(tmp_path), "dataset": str(tmp_path / "rows.csv"), "base_model": "minilm"}
    trained = make_config({**settings, "exp_name": "s-one"}, {})
    monkeypatch.setattr(experiment, "run_experiment", lambda *_, **__: finished_run(tmp_path, "s-one", 0).results())
    assert run(Suite("s", {"one": trained}, {})).trained == ["one"]
    page = tmp_path / "s-one" / REPORT
    assert "<h1>Was the distillation worth it?" in page.read_text()
    monkeypatch.setattr(running, "_read", lambda config: RunFolder.of(config).results())
    for jobs in (1, 2):  # what was killed before its page was written gets it from whoever reads the results
        page.unlink()
        assert run(Suite("s", {"one": trained}, {}), jobs=jobs).trained == []
        assert page.is_file()
    page.write_text("as it was")
    run(Suite("s", {"one": trained}, {}))
    assert page.read_text() == "as it was"


def test_overwriting_that_was_stopped_goes_on_without_being_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {name: make_config({"output_dir": str(tmp_path), "exp_name": f"s-{name}"}, {}) for name in ("one", "two")}
    suite, other = Suite("s", runs, {}), make_config({"output_dir": str(tmp_path), "exp_name": "t-other"}, {})
    for config in (*runs.values(), other):
        finish(config)
    asked: dict[str, float] = {}
    stopped = {"s-two"}

    def run_or_read(config: Config, *, resume: bool, overwrite: bool, since: float) -> dict[str, Any]:
        asked[config.exp_name] = since
        if overwrite and config.exp_name in stopped:
            raise KeyboardInterrupt
        return {"exp_name": config.exp_name}

    monkeypatch.setattr(running, "run_or_read", run_or_read)
    before = time.time() - 1
    with pytest.raises(KeyboardInterrupt):
        run(suite, overwrite=True)
    since = dict(asked)
    assert before < since["s-one"] <= since["s-two"]
    stopped.clear()
    assert run(suite).trained == ["two"]
    assert asked == {"s-one": 0.0, "s-two": since["s-two"]}
    assert run(Suite("t", runs | {"other": other}, {})).trained == []
    assert set(asked.values()) == {0.0}


def test_answers_that_have_changed_are_found_from_home_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "answers.csv").write_text("other answers")
    settings = {"dataset": "bbc_news", "teacher_predictions": "~/answers.csv"}
    config = make_config({**settings, "output_dir": str(tmp_path / "out"), "exp_name": "s-one"}, {})
    finish(config, answers={"revision": "1"})
    monkeypatch.setattr(running, "has_changed", lambda _: False)
    (told,) = run(Suite("s", {"one": config}, {})).failures.values()
    assert told.startswith("~/answers.csv: has changed since")


def test_what_finished_runs_share_is_read_once_to_see_whether_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    teacher = {"name": "t", "kind": "folder", "reference": "t", "fingerprint": "1"}
    settings = {"output_dir": str(tmp_path), "dataset": str(tmp_path / "rows.csv")}
    runs = {name: make_config({**settings, "exp_name": f"s-{name}"}, {}) for name in ("one", "two")}
    for config in runs.values():
        finish(config, given_teacher={"models": [teacher]})
    read: list[str] = []

    def open_source(name: str, _: object) -> SimpleNamespace:
        read.append(name)
        return SimpleNamespace(origin={"revision": "1"})

    def has_changed(recorded: dict[str, str]) -> bool:
        read.append(recorded["reference"])
        return recorded == teacher

    monkeypatch.setattr(running, "open_source", open_source)
    monkeypatch.setattr(running, "has_changed", has_changed)
    outcome = run(Suite("s", runs, {}))
    assert sorted(read) == sorted([str(tmp_path / "rows.csv"), "minilm", "t"])
    assert outcome.failures == {
        name: f"t: has changed since the run {tmp_path / f's-{name}'} was begun with it.\n{RENAME}" for name in runs
    }
