import numpy as np
import pytest
import torch

from lora_distill.training.losses.pooled import PooledMatching, pooled_distance


def test_literal_values_whatever_the_lengths() -> None:
    student = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, -2.0]])
    teacher = torch.tensor([[0.0, 0.5], [7.0, 7.0], [0.0, 1.0]])
    # Orthogonal: 2; of one direction: 0; opposite: 4.
    assert [pooled_distance(student[[row]], teacher[[row]]).item() for row in range(3)] == pytest.approx([2, 0, 4])
    assert pooled_distance(student, teacher).item() == pytest.approx(2.0)
    assert pooled_distance(torch.zeros(1, 2), teacher[:1]).item() == pytest.approx(1.0)


def test_it_is_twice_what_cosine_embedding_loss_is() -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(8, 5, dtype=torch.float64, generator=draw) for _ in range(2))
    cosine = torch.nn.functional.cosine_embedding_loss(student, teacher, torch.ones(8))
    assert pooled_distance(student, teacher).item() == pytest.approx(2 * cosine.item())


def test_gradient() -> None:
    draw = torch.Generator().manual_seed(1)
    student = torch.randn(4, 3, dtype=torch.float64, generator=draw, requires_grad=True)
    teacher = torch.randn(4, 3, dtype=torch.float64, generator=draw)
    assert torch.autograd.gradcheck(pooled_distance, (student, teacher))


def test_the_projector_brings_the_student_s_width_to_the_teacher_s_and_is_drawn_from_the_seed() -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    matching = PooledMatching.of(vectors, 0.5, width=2, seed=0)
    assert matching.size == 6
    weight = matching.projector.weight.detach()
    assert torch.equal(weight, PooledMatching.of(vectors, 0.5, 2, 0).projector.weight)
    assert not torch.equal(weight, PooledMatching.of(vectors, 0.5, 2, 1).projector.weight)
    pooled = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    expected = 0.5 * pooled_distance(pooled @ weight.T, torch.from_numpy(vectors[[3, 1]]))
    assert torch.equal(matching.loss(pooled, np.array([3, 1])).detach(), expected)
