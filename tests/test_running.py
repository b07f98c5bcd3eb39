"""The runs of a suite, one after the other and side by side."""

import sys
from pathlib import Path

import pytest

from lora_distill import running
from lora_distill.config import Config, make_config
from lora_distill.run_folder import METRICS, RunFolder
from lora_distill.running import RENAME, run_suite
from lora_distill.store import write_json
from lora_distill.suite import Suite


def test_a_failure_does_not_stop_the_rest_and_what_is_finished_is_read(tmp_path: Path) -> None:
    settings = {"output_dir": str(tmp_path), "dataset": str(tmp_path / "absent.csv"), "base_model": "minilm"}
    failing = make_config({**settings, "exp_name": "s-failing"}, {})
    finished = make_config({**settings, "exp_name": "s-finished"}, {})
    run = RunFolder.of(finished)
    request = {"config": finished.model_dump(mode="json"), "named": sorted(finished.model_fields_set)}
    run.begin(finished, {"requested": request, "base_model": {"kind": "packaged", "reference": "minilm"}})
    results = {"exp_name": "s-finished", "data": {"source": {"kind": "packaged"}}}
    write_json(run.path / METRICS, results)
    outcome = run_suite(Suite("s", {"failing": failing, "finished": finished}, {}))
    assert outcome.results == [results]
    assert "absent.csv" in outcome.failures["failing"]
    assert run_suite(Suite("s", {"changed": finished.model_copy(update={"alpha": 0.7})}, {})).failures == {
        "changed": f"{run.path}: holds a run with another config (alpha 0.5, now 0.7).\n{RENAME}"
    }


def test_the_first_failure_stops_the_rest_where_that_is_asked_for(tmp_path: Path) -> None:
    settings = {"output_dir": str(tmp_path), "dataset": str(tmp_path / "absent.csv"), "base_model": "minilm"}
    runs = {name: make_config({**settings, "exp_name": f"s-{name}"}, {}) for name in ("one", "two")}
    assert list(run_suite(Suite("s", runs, {}), fail_fast=True).failures) == ["one"]
    assert list(run_suite(Suite("s", runs, {})).failures) == ["one", "two"]


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
    outcome = run_suite(Suite("s", runs, {}), jobs=2)
    assert [results["exp_name"] for results in outcome.results] == ["s-slow", "s-quick"]
    assert sorted(outcome.trained) == ["quick", "slow"]
    assert outcome.failures["ill"] == "no such thing.\nGive another."
    assert outcome.failures["taken"].endswith(f"holds a run with another config (alpha 0.9, now 0.2).\n{RENAME}")
    assert not outcome.running
    failing = Suite("s", {name: runs[name] for name in ("taken", "ill")}, {})
    assert list(run_suite(failing, jobs=2, fail_fast=True).failures) == ["taken"]
