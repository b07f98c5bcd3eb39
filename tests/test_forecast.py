"""What a plan says will be trained is what is trained then, and what it will take on disk is what it takes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from lora_distill.cache import Cache
from lora_distill.data.tokens import Tokens
from lora_distill.forecast import CacheForecast, plan_suite
from lora_distill.measuring import Activated, Costs, Measurements, RunCosts
from lora_distill.model.adapter import load_classifier
from lora_distill.model.base import resolve_base_model
from lora_distill.planning import Plan, compare_plan, keep_plan
from lora_distill.run_folder import RunFolder
from lora_distill.running import SuiteResult, run_suite
from lora_distill.store import ARTEFACTS
from lora_distill.suite import Suite, read_suite
from lora_distill.training.outcome import Outcome
from tests.end_to_end.conftest import WORDS, small_values, write_rows
from tests.tiny import tiny_model

UNTAUGHT = "teacher_lora_r: 16, teacher_target_layers: 8"  # the defaults again, where no teacher is trained
NOTHING = Costs({}, None, 0, 0, 0.0, Outcome("", {}, {}, [], {}, reused=False))


def suite_of(folder: Path, base: Path, experiments: dict[str, str], **settings: object) -> Suite:
    rows = write_rows(folder / "rows.csv", 90)
    values = small_values(base, rows) | {"output_dir": str(folder / "out")} | settings
    lines = [f"base: {{{', '.join(f'{name}: {value}' for name, value in values.items())}}}", "experiments:"]
    (folder / "s.yaml").write_text("\n".join([*lines, *(f"  {name}: {{{own}}}" for name, own in experiments.items())]))
    return read_suite(folder / "s.yaml", {"seed": "3"}, {"seed": "--seed"})


def whole_classifier(base: Path, folder: Path) -> Path:
    model = load_classifier(resolve_base_model(str(base)), sorted(WORDS), seed=0).model
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def trained(plan: Plan) -> list[str]:
    return [key for run in plan.runs for key in run.leaves]


def test_eight_kinds_of_experiment_need_five_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Measurements, "training", lambda *_: NOTHING)
    monkeypatch.setattr(Measurements, "run", lambda *_: RunCosts(0.0, 0))
    base = tiny_model("roberta", tmp_path / "base", layers=4)
    cut = [tiny_model("roberta", tmp_path / f"cut-{layers}", layers=layers) for layers in (3, 2)]
    experiments = {
        "base": "",
        "alpha": "alpha: 0.7",
        "temperature": "temperature: 1.0",
        "teacher-rank": "teacher_lora_r: 16",
        "teacher-layers": "teacher_target_layers: 4",
        "student": "student_lora_r: 2, student_target_layers: 1",
        "cut-3": f"base_model: {cut[0]}",
        "cut-2": f"base_model: {cut[1]}, teacher_target_layers: 2",
    }
    suite = suite_of(tmp_path, base, experiments)
    plan = plan_suite(suite)
    keys = trained(plan)
    assert len(keys) == len(set(keys))
    count = {role: sum(key.startswith(f"{role}-") for key in keys) for role in ("teacher", "student", "control")}
    assert count == {"teacher": 5, "student": 8, "control": 4}
    assert [run.trains for run in plan.runs][:2] == [["teacher", "student", "control"], ["student"]]


def test_what_is_planned_is_what_happens(
    tmp_path: Path, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_DISTILL_CACHE", str(tmp_path / "cache"))
    given = whole_classifier(tiny("roberta"), tmp_path / "given")
    experiments = {
        "base": "",
        "alpha": "alpha: 0.7",
        "deeper": "teacher_target_layers: 2",
        "several": "teacher_ensemble: 2, no_control: true",
        "folds": "teacher_fit: crossfit, teacher_folds: 2, no_control: true",
        "filed": f"teacher_predictions: {tmp_path / 'rows.csv'}, {UNTAUGHT}",
        "unlabelled": f"unlabelled: {write_rows(tmp_path / 'others.csv', 70, seed=1)}, control_num_epochs: 1",
        "self-taught": f"unlabelled: {tmp_path / 'others.csv'}, teacher_self_training: true, control_num_epochs: 1",
        "given": f"teacher_checkpoint: {given}, {UNTAUGHT}, no_control: true",
    }
    suite = suite_of(tmp_path, tiny("roberta"), experiments, teacher_target_layers=1, student_target_layers=1)
    plan = plan_suite(suite)
    assert not (tmp_path / "out").exists()  # planning leaves nothing but what it keeps
    keep_plan(plan, suite)
    run_suite(suite, outcome := SuiteResult())
    assert outcome.failures == {}
    made = {path.name for path in (tmp_path / "out" / ARTEFACTS).iterdir() if path.is_dir()}
    assert sorted(trained(plan)) == sorted(made)
    for run in plan.runs:
        results = RunFolder.of(suite.runs[run.name]).results()
        fresh = [role for role, models in run.artefacts.items() if models and not results[role]["reused"]]
        assert fresh == list(dict.fromkeys(run.trains))
    cache = [entry.size for entry in Cache(tmp_path / "cache").entries() if entry.name in plan.cache_entries]
    assert plan.cache == pytest.approx(sum(cache), rel=0.1)
    taken = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert plan.disk == pytest.approx(taken, rel=0.1)
    assert plan.memory > 100_000_000
    assert all(run.seconds > 0 for run in plan.runs)
    assert compare_plan(suite) != []
    again = plan_suite(suite)
    assert (again.runs, again.disk, again.cache) == ([], 0, 0)


def test_what_is_planned_for_runs_side_by_side_is_what_they_train(
    tmp_path: Path, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "4")  # so that one of two runs has another number than this process
    suite = suite_of(tmp_path, tiny("roberta"), {"base": "", "alpha": "alpha: 0.7"}, no_control=True)
    threads = torch.get_num_threads()
    plan = plan_suite(suite, jobs=2)
    assert torch.get_num_threads() == threads
    run_suite(suite, outcome := SuiteResult(), jobs=2)
    assert outcome.failures == {}
    made = {path.name for path in (tmp_path / "out" / ARTEFACTS).iterdir() if path.is_dir()}
    assert sorted(trained(plan)) == sorted(made)


def test_runs_that_are_to_be_trained_again_are_planned(
    tmp_path: Path, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Measurements, "training", lambda *_: NOTHING)
    monkeypatch.setattr(Measurements, "run", lambda *_: RunCosts(0.0, 0))
    suite = suite_of(tmp_path, tiny("roberta"), {"one": "", "other": "alpha: 0.7"})
    run_suite(suite, SuiteResult())
    assert plan_suite(suite).runs == []
    RunFolder.of(suite.runs["other"]).mark_outdated()
    (planned,) = plan_suite(suite).runs
    assert planned.name == "other"
    assert planned.trains == ["teacher", "student", "control"]  # though what the first run shares with it lies there


def test_rows_that_have_no_room_are_computed_each_time_they_are_read(tmp_path: Path) -> None:
    lengths = np.array([8, 3, 5])
    tokens = Tokens(np.arange(16, dtype=np.int32), np.concatenate([[0], np.cumsum(lengths)]), 0, 0)
    activated = Activated({"depth": 2}, token_bytes=64)
    cache = Cache(tmp_path, 8 * 64 + 2 * (32 + 8))  # of the two shorter rows, with a key and a length each
    forecast = CacheForecast()
    assert forecast.add(cache, activated, tokens, 4) == 8 * 2 + 8 * 2 * 4
    assert forecast.grown == cache.limit
    assert forecast.add(cache, activated, tokens, 4) == 8 * 2 * 4
    nothing = CacheForecast()
    assert nothing.add(Cache(tmp_path, 0), activated, tokens, 4) == 16 * 2 * 4
    assert (nothing.grown, nothing.before) == (0, {})


def test_a_cache_that_has_no_room_for_all_is_planned_with(
    tmp_path: Path, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_DISTILL_CACHE", str(tmp_path / "cache"))
    only = {"base": "no_control: true, cache_limit: 20KB"}
    suite = suite_of(tmp_path, tiny("roberta"), only, teacher_target_layers=1, student_target_layers=1)
    assert 10_000 < plan_suite(suite).cache <= 20_000
