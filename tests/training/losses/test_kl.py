import pytest
import torch

from lora_distill.training.losses.kl import kl


def test_literal_values() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    # p = sigmoid(2) = 0.8808: KL = ln 2 - H(p) = 0.6931 - 0.3653. At T = 2: p = sigmoid(1): 4 * (0.6931 - 0.5822).
    assert kl(student, teacher, 1.0).item() == pytest.approx(0.327813, abs=1e-5)
    assert kl(student, teacher, 2.0).item() == pytest.approx(0.443776, abs=1e-5)
    assert kl(teacher, teacher, 2.0).item() == pytest.approx(0.0, abs=1e-6)


def test_gradient() -> None:
    draw = torch.Generator().manual_seed(1)
    student = torch.randn(4, 3, dtype=torch.float64, generator=draw, requires_grad=True)
    teacher = torch.randn(4, 3, dtype=torch.float64, generator=draw)
    assert torch.autograd.gradcheck(lambda z: kl(z, teacher, 2.0), (student,))
