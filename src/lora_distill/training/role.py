"""One role trained, or taken from the store where the same one was trained before."""

import logging
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors.numpy import save_file

from lora_distill.cache import Cache
from lora_distill.config import Config, Role
from lora_distill.data.tokens import Tokens
from lora_distill.data.types import LEARNED, Dataset
from lora_distill.evaluation.calibration import fit_temperature
from lora_distill.model.adapter import AdapterSettings, attach_adapter, load_classifier
from lora_distill.model.base import BaseModel
from lora_distill.model.budget import check_budget, count_trainable
from lora_distill.model.saved_adapter import load_adapter, save_adapter
from lora_distill.model.split import SplitClassifier
from lora_distill.profiling import stage
from lora_distill.progress import ONCE
from lora_distill.seeding import derive_seed
from lora_distill.store import Artefact, write_jsonl
from lora_distill.training.checkpoint import Progress
from lora_distill.training.loop import Observer, Unwanted, nobody, train
from lora_distill.training.losses.distillation import balanced_weights
from lora_distill.training.losses.pooled import PooledMatching
from lora_distill.training.opinion_pool import is_likelier_together, pooled
from lora_distill.training.outcome import (
    LOGITS,
    Outcome,
    add_logits,
    add_pooled,
    answered,
    is_pooled,
    read_outcome,
    read_pooled,
    versions,
    write_facts,
)
from lora_distill.training.plan import ExecutionPlan
from lora_distill.training.reading import Reading
from lora_distill.training.recipe import SoftLabels, Split, TrainingSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoleTraining:
    """All that makes one role.

    Attributes:
        role: what it is trained for.
        config: resolved.
        dataset: for its fingerprint and label names.
        base: the encoder.
        plan: where and how to compute.
        cache: of what the frozen layers give.
        teacher: where the logits lie that it learns from, by then finished; None: it learns from the labels alone.
        control: where those lie that it learns from beside its teacher's, by then finished; None: there are none.
        teaches: whether another learns from it.
    """

    role: Role
    config: Config
    dataset: Dataset
    base: BaseModel
    plan: ExecutionPlan
    cache: Cache
    teacher: Artefact | None = None
    control: Artefact | None = None
    teaches: bool = False

    @property
    def settings(self) -> TrainingSettings:
        """Its recipe."""
        return TrainingSettings.of(self.config, self.role, is_taught=self.teacher is not None)

    @property
    def learned(self) -> list[str]:
        """The splits that it is trained on: what has no labels only with a teacher."""
        is_taught = self.teacher is not None and self.dataset.unlabelled is not None
        return list(LEARNED) if is_taught else ["train"]

    @property
    def learned_as(self) -> str:
        """By which name `reads` has all of them."""
        return self.learned[0] if len(self.learned) == 1 else "learned"

    @property
    def answered(self) -> list[str]:
        """Those that it answers in the precision of its training."""
        splits = [name for name in self.dataset.splits() if name != "test"]
        return splits if self.teaches else ["validation"]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Int64 [N], of all rows that it is trained on, in their order."""
        splits = self.dataset.splits()
        return np.concatenate([splits[name].labels for name in self.learned])

    def _of_learned(self, by_split: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """What a teacher gave for the rows that it is trained on, in their order."""
        return np.concatenate([by_split[name] for name in self.learned])

    def reads(self, splits: dict[str, Tokens]) -> dict[str, Tokens]:
        """What is read in the precision of its training: what it answers, and as `learned_as` what it is trained on."""
        learned = reduce(Tokens.followed_by, (splits[name] for name in self.learned))
        return {name: splits[name] for name in self.answered} | {self.learned_as: learned}

    def artefact(self) -> Artefact:
        """Where it lies, by the hash of all that makes it. A control's depends on neither alpha nor temperature."""
        config = self.config
        soft_labels: dict[str, Any] | None = None
        if self.teacher:
            soft_labels = {"teacher": self.teacher.key, "alpha": config.alpha, "loss": config.soft_loss}
            if config.soft_loss == "kl":
                soft_labels |= {"temperature": config.temperature}
            if config.teacher_calibrate:
                soft_labels |= {"calibrated": True}
            if config.pooled_weight:
                soft_labels |= {"pooled_weight": config.pooled_weight}
            if self.control:
                soft_labels |= {"control": self.control.key}
        recipe = {
            "role": self.role,
            "versions": versions(),
            "base": [self.base.reference, self.base.fingerprint],
            "data": self.dataset.fingerprint,
            "max_length": config.max_length,
            "long_text": config.long_text,
            "adapter": asdict(AdapterSettings.of(config, self.role)),
            "training": asdict(self.settings),
            "seed": config.seed,
            "plan": self.plan.as_dict(),
            "soft_labels": soft_labels,
        }
        return Artefact(Path(config.output_dir), self.role, recipe)

    def run(self, splits: dict[str, Tokens], *, since: float = 0.0, observe: Observer = nobody) -> Outcome:
        """Train it, unless the store has it already.

        Args:
            splits: as the base model's tokenizer reads them; without test it is not judged on it.
            since: what was trained before that moment, in seconds since the epoch, is trained again.
            observe: of its training, if it is trained.
        """
        artefact = self.artefact()
        with artefact.lock():
            reused = artefact.finished_since(since)
            if since and not reused:
                artefact.forget_checkpoints(before=since)
            if reused:
                logger.info("%s: already trained (%s)", self.role, artefact.key)
            else:
                try:
                    self._train(artefact, splits, observe)
                except Unwanted:
                    artefact.forget_checkpoints()
                    raise
            there = answered(artefact)
            if missing := {name: splits[name] for name in self.answered if name not in there}:
                self._answer(artefact, missing)
            if "test" in splits and "test" not in there:
                self._judge(artefact, splits["test"])
            if self.teaches and self.config.pooled_weight and not is_pooled(artefact):
                self._pool(artefact, {name: splits[name] for name in self.answered if name != "validation"})
            return read_outcome(artefact, reused=reused)

    def _answer(self, artefact: Artefact, taught: dict[str, Tokens]) -> None:
        """Let a model answer what another learns from that was trained where nobody did."""
        network = SplitClassifier(self._reopened(artefact), self.plan.dtype)
        add_logits(artefact, self._reading.logits(network, self._reading.rows(network, taught), None))

    def _judge(self, artefact: Artefact, test: Tokens) -> None:
        """Let a model answer the test split that was trained where nobody was to see its answers."""
        add_logits(artefact, {"test": self._reading.test_logits(self._reopened(artefact), test)})

    def _pool(self, artefact: Artefact, taught: dict[str, Tokens]) -> None:
        """Let a model give its pooled vectors for what another learns from; one may be trained before any asks."""
        network = SplitClassifier(self._reopened(artefact), self.plan.dtype)
        add_pooled(artefact, self._reading.pooled(network, self._reading.rows(network, taught)))

    def _reopened(self, artefact: Artefact) -> PeftModel:
        with stage(f"{self.role}: load"):
            model = load_adapter(self.base, self.dataset.label_names, artefact.folder / "adapter")
        return model.to(self.plan.device)

    @property
    def _reading(self) -> Reading:
        return Reading(self.role, self.base, self.plan, self.cache)

    def _soft_labels(self, width: int, seed: int) -> SoftLabels | None:
        """What its teacher, if it has one, left for the rows that it is trained on; `width` is its own."""
        config, matching = self.config, None
        if self.teacher is None:
            return None
        if config.pooled_weight:
            vectors = self._of_learned(read_pooled(self.teacher))
            matching = PooledMatching.of(vectors, config.pooled_weight, width, seed).to(self.plan.device)
            logger.info("%s: a projector of %s parameters is trained and dropped", self.role, f"{matching.size:,}")
        teacher, made_by = self._answers(self.teacher, "teacher")
        logits = teacher.logits
        if self.control:
            control, of_control = self._answers(self.control, "control")
            labels = self.dataset.validation.labels
            from_both = is_likelier_together(logits["validation"], control.logits["validation"], labels)
            made_by["learns_from_both"] = from_both
            if from_both:
                logits, of_both = self._together(teacher, control)
                made_by |= of_control | of_both
            likelier = "teacher and control together" if from_both else "the teacher alone"
            logger.info("%s: validation is likelier by %s, from which it learns", self.role, likelier)
        weighed = config.alpha, config.temperature, config.soft_loss
        return SoftLabels(self._of_learned(logits), *weighed, matching, made_by)

    def _answers(self, artefact: Artefact, name: str) -> tuple[Outcome, dict[str, float]]:
        """What another left, and by its name what the logits of rows with labels are divided by there, if they are."""
        left = read_outcome(artefact, reused=True)
        if not self.config.teacher_calibrate:
            return left, {}
        fitted = fit_temperature(left.logits["validation"], self.dataset.validation.labels)
        temperatures = dict.fromkeys([*self.learned, "validation"], fitted)
        if left.facts.get("cross_fitted"):
            # These rows are answered by fewer models than validation's, none of which has seen them.
            temperatures["train"] = fit_temperature(left.logits["train"], self.dataset.train.labels)
        calibrated = {split: left.logits[split] / np.float32(each) for split, each in temperatures.items()}
        return replace(left, logits=calibrated), {f"{name}_temperature": temperatures["train"]}

    def _together(self, teacher: Outcome, control: Outcome) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
        """What both say as one, and what it is divided by, if it is."""
        names, divisor = [*self.learned, "validation"], {}
        both = {name: pooled([each.logits[name] for each in (teacher, control)]) for name in names}
        if self.config.teacher_calibrate:
            fitted = fit_temperature(both["validation"], self.dataset.validation.labels)
            both = {name: logits / np.float32(fitted) for name, logits in both.items()}
            divisor = {"both_temperature": fitted}
        if teacher.facts.get("cross_fitted"):
            # The control has seen the labels of these rows, as those who answer them here have not.
            both["train"] = teacher.logits["train"]
        return both, divisor

    def _train(self, artefact: Artefact, splits: dict[str, Tokens], observe: Observer) -> None:
        # Student and control start from the same weights and see the same rows in the same order.
        seed = derive_seed(self.config.seed, "teacher" if self.role == "teacher" else "student")
        model, sizes = self._drawn(seed)
        network = SplitClassifier(model, self.plan.dtype)
        if not network.lean:
            kind = model.config.model_type
            logger.info("%s has no lean layers here: they run as they are, slower", kind, extra=ONCE)
        reading = self._reading
        rows = reading.rows(network, self.reads(splits))
        soft_labels = self._soft_labels(int(model.config.hidden_size), seed)
        training = Split(rows[self.learned_as], self.labels, self._class_weights())
        progress = train(
            network,
            training,
            Split(rows["validation"], self.dataset.validation.labels),
            role=self.role,
            settings=self.settings,
            plan=self.plan,
            seed=seed,
            work=artefact.work,
            soft_labels=soft_labels,
            observe=observe,
        )
        logits = reading.logits(network, {name: rows[name] for name in self.answered}, splits.get("test"))
        if any(len(each) != len(splits[name]) for name, each in logits.items()):
            raise AssertionError("answers that are not one for each row of their split")
        spared = progress.epoch * sum(rows[name].seconds() for name in (self.learned_as, "validation"))
        with stage(f"{self.role}: save"), artefact.fill() as folder:
            save_adapter(model.cpu(), self.base, self.dataset.label_names, folder / "adapter")
            save_file(logits, folder / LOGITS)
            write_jsonl(folder / "history.jsonl", progress.history)
            facts = sizes | (soft_labels.facts() if soft_labels else {}) | self._took(training, progress, spared)
            facts["execution"] = network.facts() | {"kept": {name: each.share_kept for name, each in rows.items()}}
            write_facts(folder, facts, self.config.exp_name)

    def _drawn(self, seed: int) -> tuple[PeftModel, dict[str, Any]]:
        """The model before its first step, and how large it is."""
        with stage(f"{self.role}: load"):
            classifier = load_classifier(self.base, self.dataset.label_names, seed)
            total = sum(p.numel() for p in classifier.model.parameters())
            settings = AdapterSettings.of(self.config, self.role)
            model = attach_adapter(classifier, settings, seed).to(self.plan.device)
        is_free = self.role == "teacher"
        count = count_trainable(model) if is_free else check_budget(model, self.config.student_budget)
        return model, {"trainable_parameters": count.as_dict(), "total_parameters": total}

    def _class_weights(self) -> torch.Tensor | None:
        if self.config.class_weights == "none":
            return None
        return balanced_weights(self.dataset.train.labels, len(self.dataset.label_names))

    def _took(self, training: Split, progress: Progress, spared: float) -> dict[str, Any]:
        """What the training took, `spared` the seconds that its epochs would have taken in the frozen layers."""
        is_best = self.config.keep_epoch == "best"
        return {
            "seconds": progress.seconds,
            "spared_seconds": spared,
            "examples_per_second": training.order(self.settings).rows * progress.epoch / progress.seconds,
            "epochs": progress.epoch,
            "steps": progress.step,
            "learning_rate": self.settings.learning_rate,
            "still_learning": progress.best_epoch == progress.epoch,
            "kept_epoch": progress.best_epoch if is_best else progress.epoch,
        }
