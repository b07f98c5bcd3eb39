"""What the commands on suites and on budgets show."""

import contextlib
import itertools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_distill import checking, commands_on_suites, forecast
from lora_distill.data.catalogue import open_source
from lora_distill.data.files import Columns
from lora_distill.planning import Plan, PlannedRun
from lora_distill.run_folder import ENVIRONMENT, HISTORY, METRICS, PREDICTIONS, RunFolder
from lora_distill.store import write_json
from tests.conftest import Run
from tests.reporting.test_report import finished_run


def finished_suite(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunFolder]:
    """A suite file of two experiments with two seeds, and what finishes one of its runs as training does."""
    monkeypatch.setattr(checking, "misfits", lambda *_, **__: [])
    for name in "xy":
        (folder / f"{name}.csv").write_text("text,label\na,0\nb,1\n")
    settings = "x: {dataset: x.csv}\n  y: {dataset: y.csv}"
    (folder / "s.yaml").write_text(f"seeds: 2\nbase: {{output_dir: o}}\nexperiments:\n  {settings}\n")

    def finish(name: str, seed: int, base: str = "f") -> RunFolder:
        finished = finished_run(Path("o"), f"s-{name}-seed-{seed}", seed, dataset=f"{name}.csv")
        request = {"config": finished.resolved().model_dump(mode="json"), "named": ["dataset", "output_dir", "seed"]}
        model = {"kind": "packaged", "reference": "minilm", "fingerprint": base}
        bases = {"base_model": model, "student_base_model": model, "given_teacher": None}
        write_json(finished.path / ENVIRONMENT, {"requested": request, **bases})
        results = finished.results()
        results["data"]["source"] = open_source(f"{name}.csv", Columns("text", "label")).origin
        write_json(finished.path / METRICS, results)
        return finished

    return finish


def test_what_a_suite_shows_is_of_all_its_runs_and_of_none_that_was_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = finished_suite(tmp_path, monkeypatch)
    for name, seed in itertools.product("xy", range(2)):
        finish(name, seed)

    def shown() -> dict[str, list[int]]:
        experiments = json.loads(Path("o/s.json").read_text())["experiments"]
        return {name: each["seeds"] for name, each in experiments.items()}

    code, out, _ = run("suite", "s.yaml", "--only", "x")
    assert (code, shown()) == (0, {"x": [0, 1], "y": [0, 1]})
    assert "- y: " in out
    assert re.search(r"^Next: .* show o/s-x-seed-0\n {6}.* evaluate o/s-x-seed-0 --dataset FILE ", out, re.MULTILINE)
    assert "x.csv" in Path("o/s.html").read_text()  # though nothing was trained: who trained it may have been killed
    assert "Report: " not in run("suite", "s.yaml")[1]
    os.utime("o/s.html", (0, 0))
    assert "Report: o/s.html" in run("suite", "s.yaml")[1]
    (tmp_path / "y.csv").write_text("text,label\na,0\nc,1\n")
    code, out, err = run("suite", "s.yaml", "--only", "x")
    assert (code, shown()) == (0, {"x": [0, 1]})
    assert "y-seed-1 is left out of what the suite shows: y.csv: has changed since" in " ".join(err.split())
    finish("y", 1)
    code, out, err = run("suite", "s.yaml")
    assert (code, shown()) == (1, {"x": [0, 1], "y": [1]})
    assert "error: y-seed-0: y.csv: has changed since the run o/s-y-seed-0 was begun with it." in err
    assert "y.csv" in Path("o/s.html").read_text()
    finish("x", 1, base="g")
    code, out, err = run("suite", "s.yaml")
    assert code == 1
    assert "error: y-seed-0: y.csv: has changed" in err
    assert "error: x: o/s-x-seed-1: is no other seed of o/s-x-seed-0, for the two differ in: base model" in err
    assert shown() == {"y": [1]}  # what cannot be told of one hides no other


def test_a_run_whose_answers_are_damaged_hides_no_other(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = finished_suite(tmp_path, monkeypatch)
    damaged, absent, *_ = [finish(name, seed) for name, seed in itertools.product("xy", range(2))]
    (damaged.path / PREDICTIONS).write_bytes(b"PAR1")
    (absent.path / PREDICTIONS).unlink()
    finish("y", 2)
    code, out, err = run("suite", "s.yaml")
    assert code == 1
    assert re.search(r"^error: x-seed-0: o/s-x-seed-0/predictions\.parquet: missing, damaged", err, re.MULTILINE)
    assert re.search(r"^error: x-seed-1: o/s-x-seed-1/predictions\.parquet: missing, damaged", err, re.MULTILINE)
    assert "- y: " in out
    assert list(json.loads(Path("o/s.json").read_text())["experiments"]) == ["y"]
    assert "Report: o/s.html" in out


def test_a_page_of_other_runs_of_the_suite_is_written_anew(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = finished_suite(tmp_path, monkeypatch)
    finish("x", 0)
    settings = (tmp_path / "s.yaml").read_text()
    (tmp_path / "s.yaml").write_text(
        settings.replace("seeds: 2", "seeds: [0, 1]").replace("\n  y: {dataset: y.csv}", "")
    )
    finish("x", 1)
    assert "Report: " in run("suite", "s.yaml")[1]
    (tmp_path / "s.yaml").write_text(settings)
    for seed in range(2):
        os.utime(finish("y", seed).path / METRICS, (0, 0))  # finished before that page
    assert "Report: " in run("suite", "s.yaml")[1]
    assert "y.csv" in Path("o/s.html").read_text()
    assert "Report: " not in run("suite", "s.yaml")[1]


def test_a_reader_who_leaves_loses_nothing(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = finished_suite(tmp_path, monkeypatch)
    for name, seed in itertools.product("xy", range(2)):
        finish(name, seed)

    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(commands_on_suites, "print_evidence", gone)
    with contextlib.suppress(BrokenPipeError):
        run("suite", "s.yaml")
    assert Path("o/s.json").is_file()
    assert Path("o/s.html").is_file()


def test_a_plan_is_made_of_runs_that_are_to_be_trained_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = finished_suite(tmp_path, monkeypatch)
    runs = [finish(name, seed) for name, seed in itertools.product("xy", range(2))]
    assert run("plan", "s.yaml")[1] == "4 runs, all finished.\n"
    runs[0].mark_outdated()
    monkeypatch.setattr(forecast, "plan_suite", lambda *_: Plan([PlannedRun("x", {}, [], [], 0.0)], 0, 0, {}, 0, 1))
    assert "1 run to do, 3 finished" in run("plan", "s.yaml")[1]


def test_what_a_plan_without_a_suite_and_with_one_does_not_take(run: Run, tmp_path: Path) -> None:
    code, out, err = run("plan", "--alpha", 0.3)
    assert (code, out) == (2, "")
    taken = "--classes, --preset, --base_model, --base_depth, --student_base_model, --student_depth, --student_budget,"
    taken += " --use_dora, --student_lora_r, --student_target_layers, --student_rank_pattern, --target_modules"
    assert err == f"error: --alpha: is for a suite; give its FILE. Without one, plan takes {taken}.\n"
    code, out, err = run("plan", "s.yaml", "--classes", 4)
    assert (code, out) == (2, "")
    assert err.startswith("error: --classes: the data of s.yaml say how many")
    assert run("plan", "--classes", 1)[2] == "error: --classes: 1 is too few; it takes 2 labels at least.\n"


def test_a_budget_is_planned_for_a_cut_encoder_too(run: Run, tiny: Callable[[str], Path]) -> None:
    code, whole, _ = run("plan", "--base_model", tiny("bert"))
    assert code == 0
    code, cut, _ = run("plan", "--base_model", tiny("bert"), "--base_depth", 2)
    assert code == 0
    # A line for each number of layers, for each choice of modules.
    assert len(whole.splitlines()) == len(cut.splitlines()) + 3
    code, dora, _ = run("plan", "--base_model", tiny("bert"), "--use_dora")
    assert code == 0
    assert all(name in dora for name in ("query,key,value", "attention", "all-linear"))
    assert dora != whole
    assert "has 3 layers" in run("plan", "--base_model", tiny("bert"), "--base_depth", 4)[2]


def test_a_budget_is_planned_for_the_encoder_of_the_student(run: Run, tiny: Callable[[str], Path]) -> None:
    own = run("plan", "--base_model", tiny("bert"))
    assert run("plan", "--base_model", "nowhere/at-all", "--student_base_model", tiny("bert")) == own
    assert run(
        "plan", "--base_model", "nowhere/at-all", "--student_base_model", tiny("bert"), "--student_depth", 2
    ) == run("plan", "--base_model", tiny("bert"), "--base_depth", 2)
    assert "--student_depth 4: " in run("plan", "--base_model", tiny("bert"), "--student_depth", 4)[2]
    code, out, _ = run("plan", "--preset", "small_student", "--student_base_model", tiny("bert"), "--student_depth", 2)
    assert code == 0
    assert "of rank 16 on 2 layers" in out


def test_a_budget_says_what_does_not_fit_and_what_the_asked_student_takes(
    run: Run, tiny: Callable[[str], Path]
) -> None:
    asked = "--student_lora_r", 2, "--student_rank_pattern", "2=4", "--target_modules", "query"
    code, out, _ = run("plan", "--base_model", tiny("bert"), "--student_budget", 1000, *asked)
    assert code == 0
    assert "over the budget with rank 1 already" in out
    assert "\nAsked for: 644 trainable parameters, 512 in LoRA of rank 2 on 3 layers (4 on layer 2), 132 in the" in out
    code, _, err = run("plan", "--base_model", tiny("bert"), "--student_budget", 600, *asked)
    assert (code, "44 over its budget of 600" in err) == (2, True)


def test_what_is_to_be_trained_again_is_not_mixed_with_what_was(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = finished_suite(tmp_path, monkeypatch)
    finished = [finish(name, seed) for name, seed in itertools.product("xy", range(2))]
    finished[3].mark_outdated()
    _, _, err = run("suite", "s.yaml", "--only", "x")
    assert "y-seed-1 is left out of what the suite shows: it is to be trained again" in " ".join(err.split())
    written = json.loads(Path("o/s.json").read_text())
    assert {name: each["seeds"] for name, each in written["experiments"].items()} == {"x": [0, 1], "y": [0]}
    assert written["missing"] == ["y-seed-1"]
    assert "1 run of the suite failed, or did not run: &#39;y-seed-1&#39;." in Path("o/s.html").read_text()


@pytest.mark.parametrize("contents", [None, '{"event": "val'])
def test_a_damaged_history_costs_its_plot_and_nothing_else(
    contents: str | None, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = finished_suite(tmp_path, monkeypatch)
    history, *_ = [finish(name, seed).path / HISTORY for name, seed in itertools.product("xy", range(2))]
    history.write_text(contents) if contents else history.unlink()
    code, out, err = run("suite", "s.yaml")
    assert (code, "Report: o/s.html" in out) == (0, True)
    assert f"{history} is left out, for it cannot be read" in " ".join(err.split())
