"""What a training takes on this machine: a few of its own rows through the code that trains."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_distill.cache import Cache
from lora_distill.data.tokens import Tokens
from lora_distill.data.types import JUDGED, Dataset
from lora_distill.preparation import Prepared, prepare
from lora_distill.profiling import stages
from lora_distill.progress import warnings_only
from lora_distill.remembering import remembering
from lora_distill.reporting.report import write_own_report
from lora_distill.results import judge, judged, save
from lora_distill.run_folder import HISTORY, RunFolder
from lora_distill.store import fingerprint
from lora_distill.training.activations import KIND
from lora_distill.training.filed_teacher import FiledTeacher
from lora_distill.training.logits import EVALUATION_TOKENS
from lora_distill.training.outcome import LOGITS, POOLED, Outcome
from lora_distill.training.recipe import Split
from lora_distill.training.role import RoleTraining
from lora_distill.training.teacher_reading import TeacherReading
from lora_distill.trainings import Model, Training, models_of, splits_of, trainings

logger = logging.getLogger(__name__)
Choice = Callable[[NDArray[np.int64], int, int], NDArray[np.int64]]  # rows by lengths, of so many batches of a size

STEPS = 6  # of a training that are measured
EVALUATED = 2  # batches of validation and of test that are


@dataclass(frozen=True)
class Work:
    """How much of each stage there is in a training; what is not named here is there once.

    Attributes:
        trained: rows of all steps.
        validated: rows that are judged after all epochs.
        answered: rows that are answered at its end, in the precision of the training.
        tested: rows of test.
        token_layers: tokens times frozen layers that they must be brought through, but for those of test.
        exact_token_layers: the same in fp32, for test.
    """

    trained: int
    validated: int
    answered: int
    tested: int
    token_layers: int = 0
    exact_token_layers: int = 0

    @classmethod
    def of(cls, training: Model, splits: dict[str, Tokens]) -> "Work":
        """That of a training, but for the frozen layers, of which the cache has some."""
        tested = len(splits["test"])
        if isinstance(training, TeacherReading):
            return cls(0, 0, sum(map(len, splits.values())) - tested, tested)
        epochs = training.settings.num_epochs
        order = Split(training.reads(splits)[training.learned_as], training.labels).order(training.settings)
        answered = sum(len(splits[name]) for name in training.answered)
        return cls(order.rows * epochs, len(splits["validation"]) * epochs, answered, tested)

    def units(self) -> dict[str, int]:
        """By the stage's name, as in a profile."""
        return {
            "frozen layers": self.token_layers,
            "frozen layers in fp32": self.exact_token_layers,
            "training steps": self.trained,
            "validation": self.validated,
            "logits": self.answered,
            "test in fp32": self.tested,
        }


@dataclass(frozen=True)
class Activated:
    """What frozen layers leave in the cache.

    Attributes:
        recipe: of the cache's entries.
        token_bytes: of each token.
    """

    recipe: dict[str, Any]
    token_bytes: int


@dataclass(frozen=True)
class Costs:
    """Of one kind of training.

    Attributes:
        seconds: of a unit of each stage; see `Work.units`.
        activated: in training and, in fp32, of the test split; None where no layer is frozen.
        artefact_bytes: what it leaves in the store, but for what grows with the rows.
        adapter_bytes: of its adapter's folder, which its run copies.
        history_bytes: for each row that is trained on.
        outcome: of the few rows.
        pooled_bytes: for each row that another learns from.
    """

    seconds: dict[str, float]
    activated: tuple[Activated, Activated] | None
    artefact_bytes: int
    adapter_bytes: int
    history_bytes: float
    outcome: Outcome
    pooled_bytes: float = 0.0

    def of(self, work: Work) -> float:
        """Seconds of a training."""
        units = work.units()
        return sum(seconds * units.get(stage, 1) for stage, seconds in self.seconds.items())


@dataclass(frozen=True)
class RunCosts:
    """Of a run beside its trainings.

    Attributes:
        seconds: to prepare, judge and write it.
        run_bytes: of its folder, but for adapters and history.
    """

    seconds: float
    run_bytes: int


class Measurements:
    """Of each kind of training, made once.

    Args:
        folder: empty; to work in.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trainings: dict[str, Costs] = {}
        self._runs: dict[tuple[object, ...], RunCosts] = {}

    def training(self, training: Model, splits: dict[str, Tokens]) -> Costs:
        """The costs of a training that an experiment asks for, with what it reads."""
        kind = _kind(training)
        if kind not in self._trainings:
            if not self._trainings:  # a process is slow at first; and the longest rows say what memory it takes
                self._measure(training, _few(training, splits, _longest), "warm")
            logger.info("measuring a few steps: training %d", len(self._trainings) + 1)
            self._trainings[kind] = self._measure(training, _few(training, splits, _spread), kind)
        return self._trainings[kind]

    def run(self, prepared: Prepared) -> RunCosts:
        """The costs of a run, its trainings apart."""
        config = prepared.config
        encoders = config.base_model, config.base_depth, config.student_base_model, config.student_depth
        kind = *encoders, config.roles, config.dataset, *map(len, prepared.dataset.splits().values())
        if kind not in self._runs:
            outcomes = judged(
                {role: self._outcome(prepared, training) for role, training in trainings(prepared).items()}
            )
            started = time.monotonic()
            with warnings_only(), remembering():  # nothing that is known already
                prepare(config)
            run = RunFolder(self._folder / f"run-{len(self._runs)}")
            run.begin(config, {"requested": {}})
            save(run, prepared, outcomes, judge(prepared, outcomes, []) | {"seconds": 0.0, "cost": {"seconds": {}}})
            seconds = time.monotonic() - started
            write_own_report(run)
            adapters = sum(_size(each) for outcome in outcomes.values() for each in outcome.adapters.values())
            self._runs[kind] = RunCosts(seconds, _size(run.path, but=(HISTORY,)) - adapters)
        return self._runs[kind]

    def _outcome(self, prepared: Prepared, training: Training) -> Outcome:
        """One of the size that a training's will have."""
        if isinstance(training, FiledTeacher):
            facts = {"trainable_parameters": None, "seconds": 0.0}
            return Outcome("", {}, training.answers.logits, [], facts, reused=False)
        model, splits = models_of(training, splits_of(prepared, training))[0]
        return _as_if_of_all_rows(self.training(model, splits).outcome, prepared.dataset)

    def _measure(self, training: Model, few: tuple[Dataset, dict[str, Tokens]], name: str) -> Costs:
        dataset, splits = few
        cache = Cache(self._folder / f"{name}-cache", sys.maxsize)  # what it has room for is forecast, not measured
        once = {"num_epochs": 1, "teacher_num_epochs": None, "control_num_epochs": None}
        config = training.config.model_copy(update={"output_dir": str(self._folder / name), **once})
        parts: dict[str, Any] = {"dataset": dataset, "cache": cache, "config": config}
        if isinstance(training, RoleTraining) and training.teacher:  # soft labels cost next to nothing
            parts |= {"role": "teacher" if training.role == "teacher" else "control", "teacher": None, "control": None}
        small: Model = replace(training, **parts)
        started = time.monotonic()
        with warnings_only(), training.plan.with_threads(), stages() as spent:
            outcome = small.run(splits)
        taken = {stage.partition(": ")[2]: seconds for stage, seconds in spent.items()}
        taken["other"] = time.monotonic() - started - sum(spent.values())
        activated = _activated(cache, training)
        depth = activated[0].recipe["depth"] if activated else 0
        frozen = {split: depth * len(each.flat) for split, each in read_by(small, splits).items()}
        exact = depth * len(splits["test"].flat)
        work = replace(Work.of(small, splits), token_layers=sum(frozen.values()), exact_token_layers=exact)
        units = work.units()
        folder = small.artefact().folder
        history = (folder / HISTORY).stat().st_size
        pooled = _size(folder) - _size(folder, but=(POOLED,))
        return Costs(
            {stage: seconds / max(units.get(stage, 1), 1) for stage, seconds in taken.items()},
            activated,
            _size(folder, but=(HISTORY, LOGITS, POOLED)),
            sum(map(_size, outcome.adapters.values())),
            history / max(work.trained, 1),
            outcome,
            pooled / max(work.answered - len(splits["validation"]), 1),
        )


def _as_if_of_all_rows(outcome: Outcome, dataset: Dataset) -> Outcome:
    """With the logits of the few rows again and again: what they say does not change how long judging them takes."""
    rows = dataset.splits()
    logits = {
        split: np.resize(each, (len(rows[split]), each.shape[1]))
        for split, each in outcome.logits.items()
        if split in rows
    }
    return replace(outcome, logits=logits)


def read_by(training: Model, splits: dict[str, Tokens]) -> dict[str, Tokens]:
    """What a training reads in its own precision."""
    if isinstance(training, TeacherReading):
        return {name: each for name, each in splits.items() if name != "test"}
    return training.reads(splits)


def _kind(training: Model) -> str:
    """Names what decides how long a step takes, and leaves out of a recipe what does not."""
    recipe = training.artefact().recipe | {"data": training.config.dataset, "seed": 0, "soft_labels": None}
    recipe["pools"] = training.config.pooled_weight > 0
    if isinstance(training, RoleTraining):
        adapter = {name: value for name, value in recipe["adapter"].items() if name != "alpha"}
        role = "teacher" if training.role == "teacher" else "control"
        recipe |= {"role": role, "adapter": adapter, "training": training.config.batch_size}
    return fingerprint(recipe)[:16]


def _few(training: Model, splits: dict[str, Tokens], choose: Choice) -> tuple[Dataset, dict[str, Tokens]]:
    """A few rows of each split, and as the training's own tokenizer reads them."""
    dataset, splits = training.dataset, dict(splits)
    for split in dataset.splits():
        lengths = splits[split].lengths
        batches, size = STEPS, training.config.batch_size
        if split in JUDGED:
            batches, size = EVALUATED, max(1, EVALUATION_TOKENS // int(np.median(lengths)))
        rows = choose(lengths, batches, size)
        dataset = replace(dataset, **{split: getattr(dataset, split).take(rows)})
        splits[split] = splits[split].take(rows)
    return dataset, splits


def _spread(lengths: NDArray[np.int64], batches: int, size: int) -> NDArray[np.int64]:
    """Rows of `batches` batches, neighbours in length together as in training, from the short to the long."""
    order = np.argsort(lengths, kind="stable")
    if len(order) <= batches * size:
        return np.sort(order)
    middles = (np.arange(batches) + 0.5) * len(order) / batches
    starts = np.clip(middles.astype(np.int64) - size // 2, 0, len(order) - size)
    return np.unique(np.concatenate([order[start : start + size] for start in starts]))


def _longest(lengths: NDArray[np.int64], _batches: int, size: int) -> NDArray[np.int64]:
    return np.sort(np.argsort(lengths, kind="stable")[-size:])


def _activated(cache: Cache, training: Model) -> tuple[Activated, Activated] | None:
    found = {}
    for entry in cache.entries():
        if entry.about["kind"] == KIND:
            data = entry.array("data")
            recipe = entry.about["recipe"]
            found[recipe["dtype"]] = Activated(recipe, data.shape[1] * data.itemsize)
    if not found:
        return None
    return found[str(training.plan.dtype).removeprefix("torch.")], found["float32"]


def _size(folder: Path, but: tuple[str, ...] = ()) -> int:
    """Bytes of the files in a folder, those of some names left out."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name not in but)
