"""A teacher that is several models: of many seeds, or each trained without the rows that it labels."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from lora_distill.config import Config
from lora_distill.data.splits import draw_folds
from lora_distill.data.tokens import Tokens
from lora_distill.data.types import UNLABELLED, Dataset
from lora_distill.model.base import BaseModel
from lora_distill.seeding import derive_seed
from lora_distill.store import Artefact, fingerprint, write_jsonl
from lora_distill.training.loop import Observer, nobody
from lora_distill.training.opinion_pool import pooled
from lora_distill.training.outcome import LOGITS, Outcome, add_logits, answered, read_outcome, write_facts
from lora_distill.training.role import RoleTraining

logger = logging.getLogger(__name__)

Retold = Callable[[dict[str, Any]], dict[str, Any]]  # of a line of a history


def ensemble_seeds(config: Config) -> list[int]:
    """Of each teacher; the first is that of a teacher that is alone, which is then the same."""
    others = (derive_seed(config.seed, "teacher ensemble", number) for number in range(1, config.teacher_ensemble))
    return [config.seed, *others]


@dataclass(frozen=True)
class Member:
    """One of several teachers.

    Attributes:
        training: of its model. Where rows are held back from it, these begin its unlabelled ones.
        held: int64 [H], positions of the training rows that it has not seen and labels; None: it learns from all, and
            labels all.
    """

    training: RoleTraining
    held: NDArray[np.int64] | None = None

    def reads(self, splits: dict[str, Tokens]) -> dict[str, Tokens]:
        """The splits as it has them."""
        if self.held is None:
            return splits
        train = splits["train"]
        unseen = train.take(self.held)
        if "unlabelled" in splits:
            unseen = unseen.followed_by(splits["unlabelled"])
        seen = train.take(np.delete(np.arange(len(train)), self.held))
        return splits | {"train": seen, "unlabelled": unseen}

    def answers(self, logits: dict[str, NDArray[np.float32]], dataset: Dataset) -> dict[str, NDArray[np.float32]]:
        """Its logits by the data set's own splits, with NaN in the training rows that it has seen."""
        if self.held is None:
            return {name: logits[name] for name in dataset.splits() if name in logits}
        unseen = logits["unlabelled"]
        train = np.full((len(dataset.train), unseen.shape[1]), np.nan, np.float32)
        train[self.held] = unseen[: len(self.held)]
        own = logits | {"train": train, "unlabelled": unseen[len(self.held) :]}
        return {name: own[name] for name in dataset.splits() if name in own}


@dataclass(frozen=True)
class SeveralTeachers:
    """Teachers that answer together, by the mean of their probabilities.

    Of folds, each training row is answered by those that have not seen it: cross-fitting, Chernozhukov et al.,
    "Double/debiased machine learning for treatment and structural parameters", 2018; for distillation Dao, Kamath,
    Syrgkanis and Mackey, "Knowledge Distillation as Semiparametric Inference", 2021. All other rows are answered by all
    (cross-validated committees, Parmanto, Munro and Doyle, "Improving Committee Diagnosis with Resampling Techniques",
    1996): none has seen them either, so that no row gets the confidence of a model that knows it by heart, and no
    further teacher is trained.

    Attributes:
        members: two at least.
        config: resolved.
        dataset: whose rows they answer.
    """

    members: list[Member]
    config: Config
    dataset: Dataset

    @property
    def base(self) -> BaseModel:
        """The encoder of all of them."""
        return self.members[0].training.base

    def artefact(self) -> Artefact:
        """Where their logits lie; each member is an artefact of its own."""
        recipe = {
            "role": "several teachers",
            "data": self.dataset.fingerprint,
            "members": [member.training.artefact().key for member in self.members],
        }
        return Artefact(Path(self.config.output_dir), "teachers", recipe)

    def run(self, splits: dict[str, Tokens], *, since: float = 0.0, observe: Observer = nobody) -> Outcome:
        """Train those that the store does not have, one after the other, and put their answers together.

        Args:
            splits: as the base model's tokenizer reads them; without test they are not judged on it.
            since: what was trained before that moment, in seconds since the epoch, is trained again.
            observe: of the trainings, as if they were one.
        """
        outcomes: list[Outcome] = []
        history: list[dict[str, Any]] = []
        for number, member in enumerate(self.members, start=1):
            logger.info("teacher %d of %d", number, len(self.members))
            retold = as_of(number, history[-1]["step"] if history else 0)
            watch = compose(observe, retold)
            outcome = member.training.run(member.reads(splits), since=since, observe=watch)
            history += map(retold, outcome.history)
            outcomes.append(outcome)
        artefact = self.artefact()
        with artefact.lock():
            logits = self._logits(outcomes)
            if not artefact.finished_since(since):
                with artefact.fill() as folder:
                    save_file(logits, folder / LOGITS)
                    write_jsonl(folder / "history.jsonl", history)
                    is_cross_fitted = self.members[0].held is not None
                    write_facts(folder, _facts(outcomes) | {"cross_fitted": is_cross_fitted}, self.config.exp_name)
            elif "test" in splits and "test" not in answered(artefact):
                add_logits(artefact, {"test": logits["test"]})
            outcome = read_outcome(artefact, reused=all(each.reused for each in outcomes))
        adapters = {str(number): each.adapters[""] for number, each in enumerate(outcomes, start=1)}
        runs = frozenset().union(*(each.runs for each in outcomes))
        return replace(outcome, adapters=adapters, runs=runs)

    def _logits(self, outcomes: list[Outcome]) -> dict[str, NDArray[np.float32]]:
        answers = [
            member.answers(outcome.logits, self.dataset) for member, outcome in zip(self.members, outcomes, strict=True)
        ]
        # One of them may have been judged before, for another experiment.
        by_all = [name for name in answers[0] if all(name in each for each in answers)]
        return {name: pooled([each[name] for each in answers]) for name in by_all}


def as_of(number: int, before: int) -> Retold:
    """What makes a line of a history that of one of several, after so many steps of others."""
    return lambda line: {**line, "member": line.get("member", number), "step": line["step"] + before}


def compose(observe: Observer, retold: Retold) -> Observer:
    """The observer that is told of one of several."""
    return lambda line: observe(retold(line))


def _facts(outcomes: list[Outcome]) -> dict[str, Any]:
    """Of all together: what they take is the sum of what each takes."""
    facts = [each.facts for each in outcomes]
    seconds = sum(each["seconds"] for each in facts)
    return {
        "members": len(facts),
        "trainable_parameters": {
            part: sum(each["trainable_parameters"][part] for each in facts) for part in facts[0]["trainable_parameters"]
        },
        "total_parameters": sum(each["total_parameters"] for each in facts),
        "seconds": seconds,
        "spared_seconds": sum(each["spared_seconds"] for each in facts),
        "examples_per_second": sum(each["examples_per_second"] * each["seconds"] for each in facts) / seconds,
    }


def teachers(teacher: RoleTraining) -> RoleTraining | SeveralTeachers:
    """The teacher that a config asks for, made of the one that is alone and learns from all rows."""
    config = teacher.config
    members: list[Member] = []
    for seed in ensemble_seeds(config):
        own = replace(teacher, config=config.model_copy(update={"seed": seed}))
        members += _folds(own) if config.teacher_fit == "crossfit" else [Member(own)]
    return teacher if len(members) == 1 else SeveralTeachers(members, config, teacher.dataset)


def _folds(teacher: RoleTraining) -> Iterator[Member]:
    config, dataset = teacher.config, teacher.dataset
    for held in draw_folds(dataset.train, config.teacher_folds, config.seed, dataset.label_names):
        yield Member(replace(teacher, dataset=_without(dataset, held)), held)


def _without(dataset: Dataset, held: NDArray[np.int64]) -> Dataset:
    """The data set with some training rows among those that have no labels, before the others."""
    unseen = replace(dataset.train.take(held), labels=np.full(len(held), UNLABELLED, dtype=np.int64))
    return replace(
        dataset,
        train=dataset.train.take(np.delete(np.arange(len(dataset.train)), held)),
        unlabelled=unseen.followed_by(dataset.unlabelled) if dataset.unlabelled else unseen,
        fingerprint=fingerprint([dataset.fingerprint, "held back", held.tolist()]),
    )
