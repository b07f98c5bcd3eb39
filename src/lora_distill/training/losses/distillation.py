"""The loss of a training: labels, and a teacher where there is one."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lora_distill.data.types import UNLABELLED
from lora_distill.training.losses.kl import kl
from lora_distill.training.losses.mse import mse

# Student's and teacher's logits [B, C] and the temperature, to a scalar.
SoftLoss = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
SOFT_LOSSES: dict[str, SoftLoss] = {"kl": kl, "mse": mse}


def balanced_weights(labels: NDArray[np.int64], classes: int) -> torch.Tensor:
    """Float32 [C], rows / (classes * rows of the class): with them, each class counts as much as another.

    King and Zeng, "Logistic Regression in Rare Events Data", 2001; scikit-learn's `class_weight="balanced"`.

    Args:
        labels: class indices of the training rows, each class at least once.
        classes: C.
    """
    return torch.from_numpy(len(labels) / (classes * np.bincount(labels, minlength=classes))).float()


def distillation_loss(
    student_logits: torch.Tensor,
    labels: torch.Tensor,
    teacher_logits: torch.Tensor | None = None,
    *,
    alpha: float = 0.0,
    temperature: float = 1.0,
    soft_loss: str = "kl",
    class_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Hard and soft loss of a student, Hinton, Vinyals and Dean (2015), "Distilling the Knowledge in a Neural Network".

        (1 - alpha) * cross_entropy(student, label) + alpha * soft_loss(student, teacher)

    the hard loss averaged over the rows with labels, the soft one over the batch; weights of classes and smoothing are
    the hard loss's. A row's loss, smoothed or not, has the weight of its own class; by how many rows, not by what they
    weigh, the sum is divided: a batch that a rare class is not in would else give the others their weight back.

    Args:
        student_logits: float [B, C].
        labels: int64 [B], class indices, or UNLABELLED; of one row at least there is a label.
        teacher_logits: float [B, C], without gradient; None: the hard loss alone, whatever alpha.
        alpha: weight of the soft loss, 0 to 1.
        temperature: T > 0.
        soft_loss: a name in SOFT_LOSSES.
        class_weights: float [C], 1 on average over the training rows.
        label_smoothing: share of each label that goes to all classes alike, 0 to 1 (Szegedy et al., "Rethinking the
            Inception Architecture for Computer Vision", 2016).

    Returns:
        A scalar; in nats, where the soft loss is.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> round(distillation_loss(logits, torch.tensor([0]), logits, alpha=0.5, temperature=2.0).item(), 4)
        0.0635
    """
    each = functional.cross_entropy(
        student_logits, labels, ignore_index=UNLABELLED, label_smoothing=label_smoothing, reduction="none"
    )
    if class_weights is not None:
        each = each * class_weights[labels.clamp(min=0)]
    hard = each.sum() / (labels != UNLABELLED).sum()
    if teacher_logits is None:
        return hard
    # In double precision, for at a high temperature the divergence is a small difference of near equals; mps has none.
    exact = torch.float32 if student_logits.device.type == "mps" else torch.float64
    soft = SOFT_LOSSES[soft_loss](student_logits.to(exact), teacher_logits.to(exact), temperature)
    return (1 - alpha) * hard + (alpha * soft).to(hard.dtype)
