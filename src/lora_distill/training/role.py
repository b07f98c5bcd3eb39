"""One role trained, or taken from the store where the same one was trained before."""

import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import peft
import tokenizers
import torch
import transformers
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import nn

import lora_distill
from lora_distill.config import Config, Role
from lora_distill.data.batches import assemble
from lora_distill.data.tokens import Tokens
from lora_distill.data.types import Dataset
from lora_distill.errors import UserError
from lora_distill.model.adapter import AdapterSettings, attach_adapter, load_classifier
from lora_distill.model.base import BaseModel
from lora_distill.model.budget import check_budget, count_trainable
from lora_distill.model.given_teacher import GivenTeacher, check_order
from lora_distill.model.saved_adapter import save_adapter
from lora_distill.seeding import derive_seed
from lora_distill.store import Artefact, fingerprint, read_json, write_json, write_jsonl
from lora_distill.training.logits import batch_logits, predict_logits
from lora_distill.training.loop import SoftLabels, Split, TrainingSettings, train
from lora_distill.training.plan import ExecutionPlan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """A role's finished model, as what it left behind.

    Attributes:
        key: names all that made it.
        adapter: folder in PEFT's format; None for a whole model that was given.
        logits: float32 [N, C] of each split in the rows' order; of train only the teacher's.
        history: what history.jsonl holds of it.
        facts: parameters, seconds and the like, for metrics.json.
        reused: whether it was there already.
    """

    key: str
    adapter: Path | None
    logits: dict[str, NDArray[np.float32]]
    history: list[dict[str, Any]]
    facts: dict[str, Any]
    reused: bool


@dataclass(frozen=True)
class RoleTraining:
    """All that makes one role.

    Attributes:
        role: teacher, student or control.
        config: resolved.
        dataset: for its fingerprint and label names.
        base: the encoder.
        plan: where and how to compute.
        teacher: whose logits a student learns from; None for teacher and control.
    """

    role: Role
    config: Config
    dataset: Dataset
    base: BaseModel
    plan: ExecutionPlan
    teacher: Outcome | None = None

    def artefact(self) -> Artefact:
        """Where it lies, by the hash of all that makes it. A control's depends on neither alpha nor temperature."""
        config = self.config
        soft_labels = None
        if self.teacher:
            soft_labels = {"teacher": self.teacher.key, "alpha": config.alpha, "temperature": config.temperature}
        recipe = {
            "role": self.role,
            "versions": _versions(),
            "base": [self.base.reference, self.base.fingerprint],
            "data": self.dataset.fingerprint,
            "max_length": config.max_length,
            "adapter": asdict(AdapterSettings.of(config, self.role)),
            "training": asdict(TrainingSettings.of(config)),
            "seed": config.seed,
            "plan": self.plan.as_dict(),
            "soft_labels": soft_labels,
        }
        return Artefact(Path(config.output_dir), self.role, recipe)

    def run(self, splits: dict[str, Split], *, renew: bool = False) -> Outcome:
        """Train it, unless the store has it already; with `renew`, train it again."""
        artefact = self.artefact()
        with artefact.lock():
            if renew:
                artefact.forget_checkpoints()
            reused = artefact.finished and not renew
            if reused:
                logger.info("%s: already trained (%s)", self.role, artefact.key)
            else:
                self._train(artefact, splits)
            return read_outcome(artefact, reused=reused)

    def _train(self, artefact: Artefact, splits: dict[str, Split]) -> None:
        config, role = self.config, self.role
        # Student and control start from the same weights and see the same rows in the same order.
        seed = derive_seed(config.seed, "teacher" if role == "teacher" else "student")
        classifier = load_classifier(self.base, self.dataset.label_names, seed)
        total = sum(p.numel() for p in classifier.model.parameters())
        model = attach_adapter(classifier, AdapterSettings.of(config, role), seed)
        count = count_trainable(model) if role == "teacher" else check_budget(model, config.student_budget)
        soft_labels = None
        if self.teacher:
            soft_labels = SoftLabels(self.teacher.logits["train"], config.alpha, config.temperature)
        progress = train(
            model,
            splits["train"],
            splits["validation"],
            role=role,
            settings=TrainingSettings.of(config),
            plan=self.plan,
            seed=seed,
            work=artefact.work,
            soft_labels=soft_labels,
        )
        logits = _logits(model, splits, self.plan, role)
        with artefact.fill() as folder:
            save_adapter(model.cpu(), self.base, self.dataset.label_names, folder / "adapter")
            save_file(logits, folder / "logits.safetensors")
            write_jsonl(folder / "history.jsonl", progress.history)
            write_json(
                folder / "facts.json",
                {
                    "trainable_parameters": count.as_dict(),
                    "total_parameters": total,
                    "seconds": progress.seconds,
                    "examples_per_second": len(splits["train"].labels) * progress.epoch / progress.seconds,
                    "epochs": progress.epoch,
                    "kept_epoch": progress.best_epoch if config.keep_epoch == "best" else progress.epoch,
                },
            )


def _logits(
    model: nn.Module, splits: dict[str, Split], plan: ExecutionPlan, role: Role
) -> dict[str, NDArray[np.float32]]:
    """The test split's in fp32, as a stranger would get them; the others in the precision of the training."""
    logits = {"test": predict_logits(model, splits["test"].tokens, f"{role}: test, in fp32")}
    with plan.autocast():
        logits["validation"] = predict_logits(model, splits["validation"].tokens)
        if role == "teacher":
            logits["train"] = predict_logits(model, splits["train"].tokens, f"{role}: soft labels")
    return logits


@dataclass(frozen=True)
class TeacherReading:
    """All that makes the logits of a teacher that was given.

    Attributes:
        given: the teacher.
        config: resolved.
        dataset: for its fingerprint.
        plan: where and how to compute.
    """

    given: GivenTeacher
    config: Config
    dataset: Dataset
    plan: ExecutionPlan

    def artefact(self) -> Artefact:
        """Where the logits lie."""
        recipe = {
            "role": "given teacher",
            "versions": _versions(),
            "teacher": self.given.fingerprint,
            "columns": self.given.columns.tolist(),
            "data": self.dataset.fingerprint,
            "max_length": self.config.max_length,
            "plan": self.plan.as_dict(),
        }
        return Artefact(Path(self.config.output_dir), "given-teacher", recipe)

    def check(self, validation: Split) -> None:
        """Find out whether it can be used, before anything is written.

        Args:
            validation: as its own tokenizer reads it.

        Raises:
            UserError: its weights are not whole, or its labels had no names and their order shows to be wrong.
        """
        artefact = self.artefact()
        if artefact.finished:
            logits = read_outcome(artefact, reused=True).logits["validation"]
        else:
            model = self._load()
            self._check_padding(model, validation.tokens)
            if not self.given.matched_by_index:
                return
            with self.plan.autocast():
                logits = predict_logits(model, validation.tokens, "teacher: validation")[:, self.given.columns]
        if self.given.matched_by_index:
            check_order(self.given, logits, validation.labels)

    def _check_padding(self, model: nn.Module, tokens: Tokens) -> None:
        """A model that reads padding as text would answer a row by the length of its neighbours."""
        short, long = tokens.lengths.argmin(), tokens.lengths.argmax()
        alone, beside = (batch_logits(model, assemble(tokens, np.array(rows)))[0] for rows in ([short], [short, long]))
        if not np.isfinite(alone).all():
            raise self._no_numbers()
        if not np.allclose(alone, beside, rtol=0.01, atol=0.01):
            raise UserError(
                f"--teacher_checkpoint {self.given.location}: answers a short text otherwise when a longer one stands"
                " beside it, so it reads padding as text.\nGive a teacher that padding on the right does not change."
            )

    def _no_numbers(self) -> UserError:
        return UserError(
            f"--teacher_checkpoint {self.given.location}: answers some rows with no numbers (NaN or infinity)."
            " Give a teacher whose weights are sound."
        )

    def _load(self) -> nn.Module:
        return self.given.load().to(self.plan.device)

    def run(self, splits: dict[str, Split], *, renew: bool = False) -> Outcome:
        """Let it label every split, unless the store has that already; with `renew`, let it label them again.

        Args:
            splits: as its own tokenizer reads them.
            renew: whether to do again what is done.
        """
        artefact = self.artefact()
        with artefact.lock():
            reused = artefact.finished and not renew
            if reused:
                logger.info("teacher: given, as %s; its logits are at hand (%s)", self.given.location, artefact.key)
            else:
                logger.info("teacher: given, as %s; it labels every row once", self.given.location)
                self._read(artefact, splits)
            outcome = read_outcome(artefact, reused=reused)
        return replace(outcome, facts=outcome.facts | {"checkpoint": self.given.location})

    def _read(self, artefact: Artefact, splits: dict[str, Split]) -> None:
        started = time.monotonic()
        model = self._load()
        own = _logits(model, splits, self.plan, "teacher")
        if not all(np.isfinite(each).all() for each in own.values()):
            raise self._no_numbers()
        logits = {name: np.ascontiguousarray(each[:, self.given.columns]) for name, each in own.items()}
        with artefact.fill() as folder:
            save_file(logits, folder / "logits.safetensors")
            write_jsonl(folder / "history.jsonl", [])
            write_json(
                folder / "facts.json",
                {
                    "trainable_parameters": None,
                    "total_parameters": sum(p.numel() for p in model.parameters()),
                    "seconds": time.monotonic() - started,
                },
            )


def _versions() -> dict[str, str]:
    modules = (accelerate, lora_distill, np, peft, tokenizers, torch, transformers)
    return {module.__name__: module.__version__ for module in modules} | {"source": _source()}


@cache
def _source() -> str:
    """Of the code that decides the bits: a clone changes between two versions of the package."""
    root = Path(lora_distill.__file__).parent
    files = [root / "seeding.py", *(file for part in ("data", "model", "training") for file in (root / part).iterdir())]
    return fingerprint({str(file.relative_to(root)): file.read_text() for file in files if file.suffix == ".py"})


def read_outcome(artefact: Artefact, *, reused: bool) -> Outcome:
    """A finished artefact's contents."""
    folder = artefact.folder
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return Outcome(
        key=artefact.key,
        adapter=folder / "adapter" if (folder / "adapter").is_dir() else None,
        logits=load_file(folder / "logits.safetensors"),
        history=[json.loads(line) for line in lines],
        facts=read_json(folder / "facts.json"),
        reused=reused,
    )
