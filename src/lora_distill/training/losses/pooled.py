"""The distance of the student's pooled vectors from its teacher's."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from lora_distill.data.batches import to_device
from lora_distill.seeding import derive_seed


def pooled_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The squared distance of the vectors, each scaled to length 1, averaged over the batch: 2 - 2 * cosine.

    Sun, Cheng, Gan and Liu, "Patient Knowledge Distillation for BERT Model Compression", EMNLP 2019, equation 7, for
    the last layer alone.

    Args:
        student: float [B, W].
        teacher: the same, without gradient.

    Returns:
        A scalar, 0 to 4.

    Example:
        >>> pooled_distance(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.5]])).item()
        2.0
    """
    return (functional.normalize(student, dim=-1) - functional.normalize(teacher, dim=-1)).square().sum(-1).mean()


@dataclass(frozen=True)
class PooledMatching:
    """How a student is held to its teacher's pooled vectors.

    Attributes:
        vectors: float32 [N, W], the teacher's by training row.
        weight: of the distance in the loss.
        projector: from the student's width to W; trained with the student, and dropped afterwards.
    """

    vectors: NDArray[np.float32]
    weight: float
    projector: nn.Linear

    @classmethod
    def of(cls, vectors: NDArray[np.float32], weight: float, width: int, seed: int) -> "PooledMatching":
        """With a projector from `width`, linear as that of Jiao et al. ("TinyBERT", 2020), drawn from the seed."""
        torch.manual_seed(derive_seed(seed, "projector"))
        return cls(vectors, weight, nn.Linear(width, vectors.shape[1], bias=False))

    def to(self, device: str) -> "PooledMatching":
        """With the projector there."""
        return replace(self, projector=self.projector.to(device))

    @property
    def size(self) -> int:
        """Parameters of the projector."""
        return self.projector.weight.numel()

    def loss(self, pooled: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
        """Its part of the loss, a scalar.

        Args:
            pooled: float32 [B, width], the student's.
            rows: int64 [B], which of the training rows these are.
        """
        wanted = to_device(torch.from_numpy(self.vectors[rows]), pooled.device)
        return self.weight * pooled_distance(self.projector(pooled), wanted)
