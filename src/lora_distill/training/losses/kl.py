"""The Kullback-Leibler divergence of the student from its teacher, both softened."""

import torch
from torch.nn import functional


def kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015. T^2 keeps the gradient on one scale
    as T changes.

    Args:
        student_logits: float64 (or float32 where a device has none) [B, C].
        teacher_logits: the same, without gradient.
        temperature: T > 0.

    Returns:
        A scalar, in nats.

    Example:
        >>> round(kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]), 1.0).item(), 4)
        0.3278
    """
    divergence = functional.kl_div(
        functional.log_softmax(student_logits / temperature, dim=-1),
        functional.log_softmax(teacher_logits / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence
