"""What a training is told: its recipe, the rows, and a teacher's soft labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from lora_distill.config import Config, Role
from lora_distill.data.batches import Batches, TrainingOrder
from lora_distill.data.types import UNLABELLED
from lora_distill.training.losses.pooled import PooledMatching


@dataclass(frozen=True)
class TrainingSettings:
    """The recipe; each field as in the config that it is taken from."""

    learning_rate: float
    batch_size: int
    num_epochs: int
    weight_decay: float
    warmup_ratio: float
    lr_schedule: str
    max_grad_norm: float
    keep_epoch: str
    early_stopping_patience: int
    logging_steps: int
    class_weights: str
    label_smoothing: float
    labelled_per_batch: int
    lora_plus_ratio: float

    @classmethod
    def of(cls, config: Config, role: Role, *, is_taught: bool) -> "TrainingSettings":
        """The recipe of a role.

        Args:
            config: resolved.
            role: what is trained; one that is taught by itself has the student's recipe.
            is_taught: whether it learns from soft labels, too. A teacher that does, goes through texts without labels
                as often as a student.
        """
        recipe = {name: getattr(config, name) for name in cls.__dataclass_fields__}
        recipe["learning_rate"] = config.own("learning_rate", role)
        if not is_taught:
            recipe["num_epochs"] = config.own("num_epochs", role)
            recipe["labelled_per_batch"] = 0  # it reads no others
        return cls(**recipe)


@dataclass(frozen=True)
class Split:
    """What a model reads of one split.

    Attributes:
        rows: N rows, those with labels first.
        labels: int64 [N], index into the label names, or UNLABELLED.
        class_weights: float32 [C], if classes weigh unlike.
    """

    rows: Batches
    labels: NDArray[np.int64]
    class_weights: torch.Tensor | None = None

    def order(self, settings: TrainingSettings) -> TrainingOrder:
        """How it is trained on."""
        labelled = int((self.labels != UNLABELLED).sum())
        return TrainingOrder(self.rows.lengths, settings.batch_size, labelled, settings.labelled_per_batch)


@dataclass(frozen=True)
class SoftLabels:
    """What a student learns from: float32 [N, C] teacher logits by training row, how they are weighed, and vectors.

    `made_by` says what the logits were divided by, where they were, and whether they are the teacher's and the
    control's together, where that was to be seen.
    """

    logits: NDArray[np.float32]
    alpha: float
    temperature: float
    loss: str = "kl"
    matching: PooledMatching | None = None
    made_by: Mapping[str, float] = field(default_factory=dict)

    def facts(self) -> dict[str, float]:
        """For metrics.json: the parameters that are trained and not kept, and what the logits were made by."""
        projector = {"projector_parameters": self.matching.size} if self.matching else {}
        return {**projector, **self.made_by}
