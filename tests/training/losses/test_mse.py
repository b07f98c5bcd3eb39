import pytest
import torch

from lora_distill.training.losses.kl import kl
from lora_distill.training.losses.mse import mse


def test_literal_values_whatever_the_temperature() -> None:
    student, teacher = (
        torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]]),
        torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 3.0]]),
    )
    for temperature in (1.0, 7.0):
        # The differences are -1, 0, -2 and 0, 0, -3, each less its row's mean of -1.
        assert mse(student, teacher, temperature).item() == pytest.approx((0 + 1 + 1 + 1 + 1 + 4) / 6)


def test_what_a_row_s_logits_share_counts_for_nothing() -> None:
    """Several teachers answer with logarithms of probabilities, one with logits as they are."""
    logits = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 3.0]])
    assert mse(logits, logits.log_softmax(1), 1.0).item() == pytest.approx(0, abs=1e-12)


def test_the_divergence_comes_near_half_of_it_as_the_temperature_grows() -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 4, dtype=torch.float64, generator=draw) for _ in range(2))
    assert kl(student, teacher, 1e4).item() == pytest.approx(mse(student, teacher, 1e4).item() / 2, rel=1e-3)


def test_gradient() -> None:
    draw = torch.Generator().manual_seed(1)
    student = torch.randn(4, 3, dtype=torch.float64, generator=draw, requires_grad=True)
    teacher = torch.randn(4, 3, dtype=torch.float64, generator=draw)
    assert torch.autograd.gradcheck(lambda z: mse(z, teacher, 2.0), (student,))
