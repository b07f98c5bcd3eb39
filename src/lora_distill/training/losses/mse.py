"""The distance of the student's logits from its teacher's."""

import torch


def mse(student_logits: torch.Tensor, teacher_logits: torch.Tensor, _temperature: float) -> torch.Tensor:
    """The squared difference of the centred logits, averaged over batch and classes.

    Tang, Lu, Liu, Mou, Vechtomova and Lin, "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks",
    2019; compared with the divergence by Kim, Oh, Kim, Cho and Yun, "Comparing Kullback-Leibler Divergence and Mean
    Squared Error Loss in Knowledge Distillation", IJCAI 2021. It has no temperature; as T grows, the divergence comes
    near half of it. Logits count up to a constant in each row, and teachers choose theirs as they like (several that
    answer together give logarithms of probabilities), so each row's mean is taken from it first.

    Args:
        student_logits: float [B, C].
        teacher_logits: the same, without gradient.

    Returns:
        A scalar.

    Example:
        >>> mse(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]), 1.0).item()
        1.0
    """
    difference = student_logits - teacher_logits
    return (difference - difference.mean(dim=-1, keepdim=True)).square().mean()
