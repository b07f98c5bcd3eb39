"""A teacher that was trained elsewhere, read once."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors.numpy import save_file
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from lora_distill.cache import Cache
from lora_distill.config import Config
from lora_distill.data.tokens import Tokens
from lora_distill.data.types import LEARNED, Dataset
from lora_distill.errors import UserError
from lora_distill.model.given_teacher import GivenTeacher, check_order
from lora_distill.model.pooling import check_pools
from lora_distill.model.split import SplitClassifier, is_plain_lora
from lora_distill.profiling import stage
from lora_distill.store import Artefact, write_jsonl
from lora_distill.training.logits import plain, plain_pooled, predict_logits
from lora_distill.training.outcome import (
    LOGITS,
    Outcome,
    add_logits,
    add_pooled,
    answered,
    is_pooled,
    read_outcome,
    versions,
    write_facts,
)
from lora_distill.training.plan import ExecutionPlan
from lora_distill.training.reading import Reading

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherReading:
    """All that makes the logits of a teacher that was given.

    Attributes:
        given: the teacher.
        config: resolved.
        dataset: for its fingerprint.
        plan: where and how to compute.
        cache: of what the frozen layers give.
    """

    given: GivenTeacher
    config: Config
    dataset: Dataset
    plan: ExecutionPlan
    cache: Cache

    def artefact(self) -> Artefact:
        """Where the logits lie."""
        recipe = {
            "role": "given teacher",
            "versions": versions(),
            "teacher": self.given.fingerprint,
            "columns": self.given.columns.tolist(),
            "data": self.dataset.fingerprint,
            "max_length": self.config.max_length,
            "long_text": self.config.long_text,
            "plan": self.plan.as_dict(),
        }
        return Artefact(Path(self.config.output_dir), "given-teacher", recipe)

    def check(self, validation: Tokens) -> None:
        """Find out whether it can be used, before anything is written.

        Args:
            validation: the split as its own tokenizer reads it.

        Raises:
            UserError: its weights are not whole, its labels had no names and their order shows to be wrong, or a
                student is to match its pooled vectors, which cannot be had.
        """
        if self.config.pooled_weight:
            check_pools(AutoConfig.from_pretrained(self.given.tokenizer_folder))
        artefact = self.artefact()
        if artefact.finished:
            logits = read_outcome(artefact, reused=True).logits["validation"]
        else:
            model = self._load()
            self._check_padding(model, validation)
            if not self.given.matched_by_index:
                return
            with self.plan.autocast():
                logits = predict_logits(plain(model), validation, "teacher: validation")[:, self.given.columns]
        if self.given.matched_by_index:
            check_order(self.given, logits, self.dataset.validation.labels)

    def _check_padding(self, model: nn.Module, tokens: Tokens) -> None:
        """A model that reads padding as text would answer a row by the length of its neighbours."""
        short, long = int(tokens.lengths.argmin()), int(tokens.lengths.argmax())
        with torch.inference_mode():
            alone, beside = (plain(model)(tokens.batch(np.array(rows)))[0] for rows in ([short], [short, long]))
        if not alone.isfinite().all():
            raise self._no_numbers()
        if not torch.allclose(alone, beside, rtol=0.01, atol=0.01):
            raise UserError(
                f"--teacher_checkpoint {self.given.location}: answers a short text otherwise when a longer one stands"
                " beside it, so it reads padding as text.\nGive a teacher that padding on the right does not change."
            )

    def _logits(self, model: nn.Module, splits: dict[str, Tokens]) -> dict[str, NDArray[np.float32]]:
        """Of these splits, in the order of its own labels."""
        if adapted := self._adapted(model):
            reading, adapter = adapted
            network = SplitClassifier(adapter, self.plan.dtype)
            rows = reading.rows(network, {name: each for name, each in splits.items() if name != "test"})
            return reading.logits(network, rows, splits.get("test"))
        logits = {"test": self._test_logits(model, splits["test"])} if "test" in splits else {}
        with stage("teacher: logits"), self.plan.autocast():
            for split in (name for name in splits if name != "test"):
                told = "" if split == "validation" else "teacher: soft labels"
                logits[split] = predict_logits(plain(model), splits[split], told)
        return logits

    def _test_logits(self, model: nn.Module, test: Tokens) -> NDArray[np.float32]:
        if adapted := self._adapted(model):
            reading, adapter = adapted
            return reading.test_logits(adapter, test)
        with stage("teacher: test in fp32"):
            return predict_logits(plain(model), test, "teacher: test, in fp32")

    def _pooled(self, model: nn.Module, splits: dict[str, Tokens]) -> dict[str, NDArray[np.float32]]:
        if adapted := self._adapted(model):
            reading, adapter = adapted
            network = SplitClassifier(adapter, self.plan.dtype)
            return reading.pooled(network, reading.rows(network, splits))
        forward = plain_pooled(cast("PreTrainedModel | PeftModel", model))
        with stage("teacher: logits"), self.plan.autocast():
            return {name: predict_logits(forward, each, "teacher: pooled vectors") for name, each in splits.items()}

    def _adapted(self, model: nn.Module) -> tuple[Reading, PeftModel] | None:
        """Where its layers below an adapter are a base model's, they are read as those of a trained role."""
        if self.given.base and isinstance(model, PeftModel) and is_plain_lora(model):
            return Reading("teacher", self.given.base, self.plan, self.cache), model
        return None

    def _no_numbers(self) -> UserError:
        return UserError(
            f"--teacher_checkpoint {self.given.location}: answers some rows with no numbers (NaN or infinity)."
            " Give a teacher whose weights are sound."
        )

    def _load(self) -> nn.Module:
        return self.given.load().to(self.plan.device)

    def run(self, splits: dict[str, Tokens], *, since: float = 0.0) -> Outcome:
        """Let it label these splits, unless the store has that already.

        Args:
            splits: as its own tokenizer reads them; without test it is not judged on it.
            since: what it labelled before that moment, in seconds since the epoch, it labels again.
        """
        artefact = self.artefact()
        with artefact.lock():
            reused = artefact.finished_since(since)
            if reused:
                logger.info("teacher: given, as %s; its logits are at hand (%s)", self.given.location, artefact.key)
            else:
                logger.info("teacher: given, as %s; it labels every row once", self.given.location)
                self._read(artefact, splits)
            if "test" in splits and "test" not in answered(artefact):
                add_logits(artefact, self._ours({"test": self._test_logits(self._load(), splits["test"])}))
            if self.config.pooled_weight and not is_pooled(artefact):
                taught = {name: each for name, each in splits.items() if name in LEARNED}
                add_pooled(artefact, self._pooled(self._load(), taught))
            outcome = read_outcome(artefact, reused=reused)
        return replace(outcome, facts=outcome.facts | {"checkpoint": self.given.location})

    def _ours(self, own: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """In the order of our labels."""
        if not all(np.isfinite(each).all() for each in own.values()):
            raise self._no_numbers()
        return {name: np.ascontiguousarray(each[:, self.given.columns]) for name, each in own.items()}

    def _read(self, artefact: Artefact, splits: dict[str, Tokens]) -> None:
        started = time.monotonic()
        model = self._load()
        logits = self._ours(self._logits(model, splits))
        with artefact.fill() as folder:
            save_file(logits, folder / LOGITS)
            write_jsonl(folder / "history.jsonl", [])
            facts = {
                "trainable_parameters": None,
                "total_parameters": _total_parameters(model),
                "seconds": time.monotonic() - started,
            }
            write_facts(folder, facts, self.config.exp_name)


def _total_parameters(model: nn.Module) -> int:
    """As of a trained role: LoRA, which merges into the others, is not counted, nor the head that PEFT put aside."""
    beside = ("lora_", "original_module")
    return sum(p.numel() for name, p in model.named_parameters() if not any(part in name for part in beside))
