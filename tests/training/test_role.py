"""What makes a trained role, and who shares it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lora_distill import config as config_module
from lora_distill.cache import Cache
from lora_distill.config import Config, Role, make_config
from lora_distill.data.types import Dataset, Rows
from lora_distill.experiment import run_experiment
from lora_distill.model.base import BaseModel
from lora_distill.run_folder import RunFolder
from lora_distill.running import SuiteResult, run_suite
from lora_distill.store import Artefact
from lora_distill.suite import Suite
from lora_distill.training import role as role_module
from lora_distill.training.activations import Activations
from lora_distill.training.plan import ExecutionPlan
from lora_distill.training.role import RoleTraining
from tests.end_to_end.conftest import small_values, write_rows

ROLES: tuple[Role, ...] = ("teacher", "student", "control")
TAUGHT: tuple[Role, ...] = ("student", "self-trained")
BASE = BaseModel("tiny", Path("/tiny"), "folder", "1", "fingerprint of the base")
NO_ROWS = Rows(np.array([], np.int64), [], np.array([], np.int64))
DATA = Dataset("rows", NO_ROWS, NO_ROWS, NO_ROWS, ["a", "b"], "fingerprint of the data", {}, [])
PLAN = ExecutionPlan("cpu", "fp32", 1)
NO_CACHE = Cache(Path("/none"), 0)
TEACHER = Artefact(Path("/none"), "teacher", {})

TRAINING = {
    "learning_rate": 1.0,
    "batch_size": 7,
    "num_epochs": 7,
    "weight_decay": 0.7,
    "warmup_ratio": 0.7,
    "lr_schedule": "cosine",
    "max_grad_norm": 7.0,
    "keep_epoch": "last",
    "early_stopping_patience": 7,
    "logging_steps": 7,  # decides what history.jsonl holds
    "lora_dropout": 0.7,
    "target_modules": ("query",),
    "use_rslora": True,
    "use_dora": True,
    "lora_plus_ratio": 7.0,
    "layer_placement": "first",
    "class_weights": "balanced",
    "label_smoothing": 0.7,
    "seed": 7,
    "max_length": 77,
    "long_text": "head_tail",
}
# A setting of one role's own, which wins over the one that all have.
OWN: dict[Role, dict[str, Any]] = {
    "teacher": {"teacher_learning_rate": 7.0, "teacher_num_epochs": 77},
    "student": {"labelled_per_batch": 7},
    "control": {"control_learning_rate": 7.0, "control_num_epochs": 77},
    "self-trained": {"labelled_per_batch": 7},
}
ADAPTER = {"lora_r": 7, "lora_alpha": 7, "target_layers": 7, "rank_pattern": {7: 7}}
STUDENTS, TEACHERS = ({f"{role}_{name}": value for name, value in ADAPTER.items()} for role in ("student", "teacher"))
SOFT = {"alpha": 0.7, "temperature": 7.0, "soft_loss": "mse", "pooled_weight": 7.0, "teacher_calibrate": True}
# What is found in the data's, the base model's or the plan's own fingerprint, and what decides nothing.
ELSEWHERE = {
    "base_model": "other",
    "base_depth": 7,
    "student_base_model": "other",
    "student_depth": 7,
    "student_keep": "last",
    "dataset": "other",
    "text_column": "other",
    "text_pair_column": "other",
    "label_column": "other",
    "max_train_rows": 7,
    "labels_per_class": 7,
    "unlabelled": "other",
    "validation_fraction": 0.7,
    "test_fraction": 0.7,
    "device": "cuda",
    "precision": "bf16",
}
IDLE = {
    "preset": "few_labels",  # what it sets decides
    "min_steps": 7,  # the epochs that make them decide
    "exp_name": "other",
    "output_dir": "other",
    "student_budget": 7,
    "no_control": True,
    "learn_from": "both",  # from which, is the student's own
    "cache_limit": 7,
    "report_to": "mlflow",
    "teacher_checkpoint": "other",
    "teacher_label_map": {"a": "b"},
    "teacher_predictions": "other",
    "teacher_ensemble": 7,  # of whose members each is one
    "teacher_fit": "crossfit",
    "teacher_folds": 7,
    "teacher_self_training": True,  # of whose two trainings each is one
}


def training(role: Role, config: Config | None = None, **parts: Any) -> RoleTraining:  # noqa: ANN401
    teacher = TEACHER if role in TAUGHT else None
    known: dict[str, Any] = {
        "dataset": DATA,
        "base": BASE,
        "plan": PLAN,
        "cache": Cache(Path("/none")),
        "teacher": teacher,
    }
    return RoleTraining(role, config or Config(), **(known | parts))


def key(role: Role, config: Config | None = None, **parts: Any) -> str:  # noqa: ANN401
    return training(role, config, **parts).artefact().key


def test_every_setting_is_considered_here() -> None:
    settings = {*TRAINING, *STUDENTS, *TEACHERS, *SOFT, *ELSEWHERE, *IDLE}
    assert settings.union(*OWN.values()) == set(Config.model_fields)


@pytest.mark.parametrize("role", config_module.ROLES)
def test_what_a_role_depends_on_and_what_not(role: Role) -> None:
    own = TRAINING | OWN[role] | (TEACHERS if role == "teacher" else STUDENTS) | (SOFT if role in TAUGHT else {})
    others = {name: value for settings in OWN.values() for name, value in settings.items()}
    for name, value in {**TRAINING, **others, **STUDENTS, **TEACHERS, **SOFT, **ELSEWHERE, **IDLE}.items():
        config = Config().model_copy(update={name: value})
        assert getattr(config, name) != getattr(Config(), name)
        assert (key(role, config) != key(role)) == (name in own), name


@pytest.mark.parametrize("role", ROLES)
def test_data_base_model_plan_and_versions_decide(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(role)
    for parts in (
        {"dataset": replace(DATA, fingerprint="other")},
        {"base": replace(BASE, fingerprint="other")},
        {"base": replace(BASE, folder=Path("/moved"))},  # the adapter names it
        {"plan": replace(PLAN, device="cuda")},
        {"plan": replace(PLAN, precision="bf16")},
        {"plan": replace(PLAN, threads=2)},
    ):
        assert key(role, **parts) != before
    for parts in ({"dataset": replace(DATA, name="other", notes=["other"])}, {"base": replace(BASE, name="./tiny")}):
        assert key(role, **parts) == before
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert key(role) != before


def test_only_the_student_depends_on_the_teacher() -> None:
    assert key("student", teacher=Artefact(Path("/none"), "teacher", {"other": 1})) != key("student")
    assert len({key(role) for role in ROLES}) == 3
    # Same weights, same rows: but what a student was trained with says so.
    assert key("student", Config(alpha=0.0)) != key("control", Config(alpha=0.0))


# Sharing


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[[str], Path]) -> Suite:
    """Experiments that differ in one thing each."""
    folder = tmp_path_factory.mktemp("suite")
    rows = write_rows(folder / "rows.csv", 60)
    plain = small_values(tiny("roberta"), rows) | {"num_epochs": 1, "output_dir": str(folder / "out")}
    changes: dict[str, dict[str, object]] = {
        "base": {},
        "alpha": {"alpha": 0.7},
        "temperature": {"temperature": 1.0},
        "student": {"student_lora_r": 2},
        "teacher": {"teacher_lora_r": 4},
        "lonely": {"no_control": True, "alpha": 0.9, "student_budget": 10_000},
    }
    runs = {name: make_config(plain | {"exp_name": name} | each, {}) for name, each in changes.items()}
    return Suite("s", runs, {name: [name] for name in runs})


FRESHLY_TRAINED = {
    "base": ["teacher", "student", "control"],
    "alpha": ["student"],
    "temperature": ["student"],
    "student": ["student", "control"],
    "teacher": ["teacher", "student"],
    "lonely": ["student"],
}


@pytest.fixture(scope="module")
def done(suite: Suite) -> dict[str, dict[str, Any]]:
    """The results of the suite's first run, by experiment."""
    return run_all(suite)


def run_all(suite: Suite, *, overwrite: bool = False) -> dict[str, dict[str, Any]]:
    outcome = SuiteResult()
    run_suite(suite, outcome, overwrite=overwrite)
    assert outcome.failures == {}
    return {results["exp_name"]: results for results in outcome.results}


def trained(results: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    return {
        name: [role for role in ROLES if role in each and not each[role]["reused"]] for name, each in results.items()
    }


def store(suite: Suite) -> Path:
    return Path(suite.runs["base"].output_dir) / ".artefacts"


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its inode and time of change."""
    stats = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items() if not name.endswith(".lock")}


def test_a_suite_trains_each_teacher_and_each_control_once(suite: Suite, done: dict[str, dict[str, Any]]) -> None:
    assert trained(done) == FRESHLY_TRAINED
    kept = [path.name.partition("-")[0] for path in store(suite).iterdir() if path.is_dir()]
    assert {role: kept.count(role) for role in ROLES} == {"teacher": 2, "student": 6, "control": 2}
    for name in suite.runs:
        log = (RunFolder.of(suite.runs[name]).path / "train.log").read_text()
        for role in ROLES:
            epochs = log.count(f"{role}: epoch 1 of 1: validation accuracy")
            assert epochs == (1 if role in FRESHLY_TRAINED[name] else 0), (name, role)


def test_what_is_shared_is_the_same_in_every_run(suite: Suite, done: dict[str, dict[str, Any]]) -> None:
    def adapter(name: str, role: str) -> bytes:
        return (RunFolder.of(suite.runs[name]).path / role / "adapter_model.safetensors").read_bytes()

    assert adapter("base", "teacher") == adapter("alpha", "teacher") != adapter("teacher", "teacher")
    assert adapter("base", "control") == adapter("teacher", "control") != adapter("student", "control")
    assert adapter("base", "student") != adapter("alpha", "student")
    assert "control" not in done["lonely"]


def test_a_run_s_teacher_answers_as_when_it_was_trained(
    suite: Suite, done: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """It is read with the frozen layers' outputs that its training has left."""
    first = suite.runs["base"]
    again = make_config(
        {name: value for name, value in first.model_dump(exclude_defaults=True).items() if name not in TEACHERS}
        | {"output_dir": str(tmp_path), "teacher_checkpoint": str(RunFolder.of(first).path), "no_control": True},
        {},
    )
    run_experiment(again)
    own, given = (
        pq.read_table(RunFolder.of(config).path / "predictions.parquet")["teacher_logits"].to_pylist()
        for config in (first, again)
    )
    assert own == given


def no_training(*_: object, **__: object) -> None:
    raise AssertionError("trained again")


def test_a_second_call_trains_nothing_and_touches_nothing(
    suite: Suite, done: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_module, "train", no_training)
    before = files(store(suite).parent)
    assert run_all(suite) == done
    assert files(store(suite).parent) == before


def test_another_name_for_the_same_takes_all_from_the_store(
    suite: Suite, done: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_module, "train", no_training)
    renamed = suite.runs["base"].model_copy(update={"exp_name": "renamed"})
    results = run_experiment(renamed)
    assert [results[role]["reused"] for role in ROLES] == [True, True, True]
    assert results["student"]["test"] == done["base"]["student"]["test"]


def test_overwriting_one_experiment_trains_its_own_again_and_leaves_the_others_as_they_are(
    suite: Suite, done: dict[str, dict[str, Any]]
) -> None:
    others = {name: files(RunFolder.of(suite.runs[name]).path) for name in suite.runs if name != "alpha"}
    results = run_experiment(suite.runs["alpha"], overwrite=True)
    assert [results[role]["reused"] for role in ROLES] == [False, False, False]
    assert results["student"]["test"] == done["alpha"]["student"]["test"]
    assert {name: files(RunFolder.of(suite.runs[name]).path) for name in others} == others
    assert trained(run_all(suite)) == FRESHLY_TRAINED | {"alpha": list(ROLES)}  # read, not trained


def test_overwriting_a_suite_trains_each_once_again(suite: Suite, done: dict[str, dict[str, Any]]) -> None:
    before = files(store(suite))
    results = run_all(suite, overwrite=True)
    assert trained(results) == FRESHLY_TRAINED
    after = files(store(suite))
    assert before.keys() == after.keys()
    assert not any(before[name] == after[name] for name in before)


def test_what_the_frozen_layers_would_have_taken_counts_the_rows_of_each_epoch(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher answers texts without labels once, after its training."""
    monkeypatch.setattr(Activations, "seconds", lambda _: 1.0)
    rows, texts = write_rows(tmp_path / "rows.csv", 60), write_rows(tmp_path / "texts.csv", 20, seed=1)
    settings = {"output_dir": str(tmp_path / "out"), "unlabelled": str(texts), "num_epochs": 3, "no_control": True}
    results = run_experiment(make_config(small_values(tiny("roberta"), rows) | settings, {}))
    assert results["teacher"]["spared_seconds"] == results["student"]["spared_seconds"] == 3 * 2
