"""What an adapted encoder reads: rows with the frozen layers' outputs, and the logits of a finished one."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from lora_distill.cache import Cache
from lora_distill.config import Role
from lora_distill.data.batches import Batch
from lora_distill.data.tokens import Tokens
from lora_distill.model.base import BaseModel
from lora_distill.model.split import SplitClassifier
from lora_distill.profiling import stage
from lora_distill.training.activations import Activations, keep_activations
from lora_distill.training.logits import predict_logits
from lora_distill.training.outcome import versions
from lora_distill.training.plan import ExecutionPlan, machine


@dataclass(frozen=True)
class Reading:
    """How a role's rows are read.

    Attributes:
        role: names the stages.
        base: the encoder below the adapter.
        plan: where and how to compute.
        cache: of what the frozen layers give.
    """

    role: Role
    base: BaseModel
    plan: ExecutionPlan
    cache: Cache

    def rows(
        self, network: SplitClassifier, splits: dict[str, Tokens], named: str = "frozen layers"
    ) -> dict[str, Activations]:
        """The rows of these splits, with what the frozen layers give for them; `named` is the stage in a profile."""
        recipe = {
            "base": self.base.begins_as.fingerprint,
            "dtype": str(network.dtype).removeprefix("torch."),
            "lean": network.lean,
            "machine": machine(network.device),
            "threads": self.plan.threads,
            "versions": versions(),
        }
        with stage(f"{self.role}: {named}"):
            kept = {
                name: keep_activations(network, tokens, self.cache, recipe, f"{self.role}: {name}")
                for name, tokens in splits.items()
            }
        if all(rows.at_hand for rows in kept.values()):
            network.forget_prefix()
        return kept

    def logits(
        self, network: SplitClassifier, rows: dict[str, Activations], test: Tokens | None
    ) -> dict[str, NDArray[np.float32]]:
        """A finished network's, float32 [N, C] for each split.

        The test split's, if it is given, as `test_logits` has them; the others in the precision of the training.
        """
        network.eval()
        with stage(f"{self.role}: logits"):
            logits = {
                split: predict_logits(
                    network.logits, each, "" if split == "validation" else f"{self.role}: soft labels"
                )
                for split, each in rows.items()
            }
        if test is not None:
            network.forget()  # both at once would not be needed by anyone
            logits["test"] = self.test_logits(network.model, test)
        return logits

    def pooled(self, network: SplitClassifier, rows: dict[str, Activations]) -> dict[str, NDArray[np.float32]]:
        """A finished network's pooled vectors, float32 [N, H] for each split, in the precision of the training."""
        network.eval()

        def forward(batch: Batch) -> torch.Tensor:
            return network.logits_and_pooled(batch)[1]

        with stage(f"{self.role}: logits"):
            return {name: predict_logits(forward, each, f"{self.role}: pooled vectors") for name, each in rows.items()}

    def test_logits(self, model: PeftModel, test: Tokens) -> NDArray[np.float32]:
        """A finished model's, float32 [N, C], in fp32: as a stranger would get them."""
        exact = SplitClassifier(model, torch.float32)
        exact.eval()
        kept = self.rows(exact, {"test": test}, "frozen layers in fp32")
        with stage(f"{self.role}: test in fp32"):
            return predict_logits(exact.logits, kept["test"], f"{self.role}: test, in fp32")
