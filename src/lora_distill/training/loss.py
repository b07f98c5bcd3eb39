"""The distillation loss."""

import torch
from torch.nn import functional


def distillation_loss(
    student_logits: torch.Tensor,
    labels: torch.Tensor,
    teacher_logits: torch.Tensor | None = None,
    *,
    alpha: float = 0.0,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Hard and soft loss of a student, Hinton, Vinyals and Dean (2015), "Distilling the Knowledge in a Neural Network".

        (1 - alpha) * cross_entropy(student, label)
        + alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T))

    both averaged over the batch. T^2 keeps the two gradients on one scale as T changes.

    Args:
        student_logits: float [B, C].
        labels: int64 [B], class indices.
        teacher_logits: float [B, C], without gradient; None: the hard loss alone, whatever alpha.
        alpha: weight of the soft loss, 0 to 1.
        temperature: T > 0.

    Returns:
        A scalar, in nats.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> round(distillation_loss(logits, torch.tensor([0]), logits, alpha=0.5, temperature=2.0).item(), 4)
        0.0635
    """
    hard = functional.cross_entropy(student_logits, labels)
    if teacher_logits is None:
        return hard
    # In double precision, for at a high temperature the divergence is a small difference of near equals; mps has none.
    exact = torch.float32 if student_logits.device.type == "mps" else torch.float64
    soft = functional.kl_div(
        functional.log_softmax(student_logits.to(exact) / temperature, dim=-1),
        functional.log_softmax(teacher_logits.to(exact) / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - alpha) * hard + (alpha * temperature**2 * soft).to(hard.dtype)
