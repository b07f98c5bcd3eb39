"""Trials for real, on a tiny model: pruned, over the budget, failed. The command: tests/end_to_end/test_tune.py."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import yaml

from lora_distill import tuning
from lora_distill.config import Config
from lora_distill.errors import UserError
from lora_distill.search import Search, read_search
from lora_distill.tuning import TrialResult, misfits, run_trials, storage_of, winner
from tests.end_to_end.conftest import small_values, write_rows
from tests.tiny import tiny_model

SPACE = {"student_lora_r": {"low": 1, "high": 8, "log": True}, "alpha": {"low": 0.1, "high": 0.9}}


def base_of(model: Path, rows: Path) -> dict[str, object]:
    values = small_values(model, rows)
    del values["student_lora_r"]
    return values


@pytest.fixture
def base(tiny: Callable[[str], Path], tmp_path: Path) -> dict[str, object]:
    return base_of(tiny("bert"), write_rows(tmp_path / "rows.csv", 60))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial fails as soon as it is run."""

    def diverge(*_: object) -> None:
        raise UserError("student: the loss is nan\nLower it.")

    monkeypatch.setattr(tuning, "train_role", diverge)


def write(folder: Path, base: dict[str, object], **changes: object) -> Path:
    output = {"output_dir": str(folder / "out")}
    contents = {"name": "mine", "trials": 4, "base": base | output, "search": SPACE, **changes}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(contents, sort_keys=False))
    return path


def trials_of(search: Search) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=search.name, storage=f"sqlite:///{storage_of(search)}").trials


def test_a_trial_behind_the_others_is_pruned_and_one_over_the_budget_is_not_trained(
    base: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        optuna.pruners, "MedianPruner", lambda: optuna.pruners.ThresholdPruner(lower=1.1, n_warmup_steps=2)
    )
    longer = base | {"num_epochs": 3, "student_budget": 1900}
    ranks = {"student_lora_r": {"low": 1, "high": 8}}
    search = read_search(write(tmp_path, longer, trials=4, search=ranks, seed=1), {}, {}, misfits)
    trials = run_trials(search)
    states = {each.state for each in trials}
    assert states == {"pruned", "over budget"}
    for each, held in zip(trials, trials_of(search), strict=True):
        over = each.state == "over budget"
        assert list(held.intermediate_values) == ([] if over else [1, 2])
        assert (held.constraints.get("budget", 0) > 0) == over
        assert each.message.startswith("by ") == over
    assert not [path for path in (tmp_path / "out" / ".artefacts").glob("student-*") if path.is_dir()]
    with pytest.raises(UserError, match="none of 4 trials has finished"):
        winner(trials)


def test_the_best_trial_is_the_likeliest_and_of_equals_the_most_accurate() -> None:
    accurate = TrialResult(0, {}, "finished", 0.5, 0.9, "")
    likely = replace(accurate, number=1, nll=0.4, accuracy=0.8)
    pruned = replace(accurate, number=2, nll=0.1, state="pruned")
    assert winner([accurate, likely, pruned]) == likely
    assert winner([accurate, likely, better := replace(likely, number=3, accuracy=0.85)]) == better


@pytest.mark.usefixtures("failing")
def test_trials_that_were_judged_by_something_else_are_not_compared(base: dict[str, object], tmp_path: Path) -> None:
    search = read_search(write(tmp_path, base, trials=1), {}, {})
    path = storage_of(search)
    path.parent.mkdir(parents=True, exist_ok=True)
    optuna.create_study(study_name=search.name, storage=f"sqlite:///{path}", direction="maximize")
    with pytest.raises(UserError, match="holds trials that were judged by their accuracy"):
        run_trials(search)


@pytest.mark.usefixtures("failing")
def test_a_trial_that_fails_is_told_and_the_next_is_run(base: dict[str, object], tmp_path: Path) -> None:
    trials = run_trials(read_search(write(tmp_path, base, trials=2), {}, {}))
    assert [(each.state, each.message) for each in trials] == [("failed", "student: the loss is nan")] * 2


def searches_of(folder: Path, base: dict[str, object], trials: int) -> list[Search]:
    """Two that are alike, each in a folder of its own."""
    for name in ("whole", "killed"):
        (folder / name).mkdir()
    return [read_search(write(folder / name, base, trials=trials), {}, {}) for name in ("whole", "killed")]


def kill_between_two_draws(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run it until the next trial has drawn the first of its settings."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Trial, "suggest_float", killed)
        run_trials(search)
    assert list(trials_of(search)[-1].params) == ["student_lora_r"]


@pytest.mark.usefixtures("failing")
def test_killed_between_two_draws_of_a_trial_a_search_goes_on_as_if_nothing_had_stopped_it(
    base: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = searches_of(tmp_path, base, trials=3)
    kill_between_two_draws(killed, monkeypatch)
    assert len(trials_of(killed)) == 1
    assert [each.settings for each in run_trials(killed)] == [each.settings for each in run_trials(whole)]


def test_so_it_does_when_it_draws_by_what_the_trials_before_showed(
    base: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(config: Config, *_: object) -> SimpleNamespace:
        line = {"event": "validation", "epoch": 1, "accuracy": 0.9, "calibrated_nll": (config.alpha - 0.3) ** 2}
        return SimpleNamespace(history=[line], facts={"kept_epoch": 1})

    monkeypatch.setattr(tuning, "train_role", learn)
    whole, killed = searches_of(tmp_path, base, trials=14)
    run_trials(replace(killed, trials=12))
    kill_between_two_draws(killed, monkeypatch)
    assert [each.settings for each in run_trials(killed)] == [each.settings for each in run_trials(whole)]


@pytest.mark.usefixtures("failing")
def test_the_order_of_choices_does_not_decide_whether_a_search_fits_its_budget(
    base: dict[str, object], tmp_path: Path
) -> None:
    space = {"target_modules": {"choices": ["all-linear", "attention"]}, "student_lora_r": {"choices": [8, 1]}}
    with pytest.raises(UserError) as error:
        read_search(write(tmp_path, base | {"student_budget": 10}, search=space), {}, {}, misfits)
    least = int(re.findall(r"the student has ([\d,]+) trainable", str(error.value))[0].replace(",", ""))
    search = read_search(write(tmp_path, base | {"student_budget": least}, trials=1, search=space), {}, {}, misfits)
    assert len(run_trials(search)) == 1


@pytest.mark.usefixtures("failing")
def test_an_encoder_that_is_over_the_budget_stops_no_trial_of_the_others(
    base: dict[str, object], tmp_path: Path
) -> None:
    wide = tiny_model("roberta", tmp_path / "wide", hidden=64)
    space = {"student_base_model": {"choices": [str(wide), str(base["base_model"])]}}
    fitting = base | {"student_budget": 2500, "student_lora_r": 1}
    search = read_search(write(tmp_path, fitting, trials=2, search=space), {}, {}, misfits)
    assert len(run_trials(search)) == 2


@pytest.mark.usefixtures("failing")
def test_trials_of_another_encoder_are_not_compared(base: dict[str, object], tmp_path: Path) -> None:
    encoder = tiny_model("bert", tmp_path / "encoder")
    search = read_search(write(tmp_path, base | {"base_model": str(encoder)}, trials=1), {}, {})
    assert run_trials(search) == run_trials(search)
    tiny_model("bert", encoder, seed=1)
    with pytest.raises(UserError, match="holds trials of a search with other base_model"):
        run_trials(search)


def test_what_the_model_cannot_take_is_told_with_its_lines(base: dict[str, object], tmp_path: Path) -> None:
    fixed = {name: value for name, value in base.items() if not name.endswith("layers")}
    space = {
        "student_target_layers": {"low": 1, "high": 4},
        "teacher_target_layers": {"choices": [1, 9]},
        "alpha": {"low": 1, "high": 0},
    }
    with pytest.raises(UserError) as error:
        read_search(write(tmp_path, fixed, search=space), {}, {}, misfits)
    said = str(error.value)
    for words in ("less than high", "student_target_layers: --student_target_layers 4", "--teacher_target_layers 9"):
        assert words in said
    ranks = {"teacher_lora_r": {"low": 1, "high": 999}}
    without_rank = {name: value for name, value in fixed.items() if name != "teacher_lora_r"}
    with pytest.raises(UserError, match=r"rank 999: the smallest adapted matrix of bert has rank"):
        read_search(write(tmp_path, without_rank, search=ranks), {}, {}, misfits)
    with pytest.raises(UserError, match=r"the student has .* over its budget"):
        read_search(write(tmp_path, base | {"student_budget": 10}), {}, {}, misfits)
    assert not (tmp_path / "out").exists()
