from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from lora_distill.data.types import UNLABELLED
from lora_distill.training.losses.distillation import SOFT_LOSSES, balanced_weights, distillation_loss

LOGITS = arrays(np.float64, (3, 4), elements=st.floats(-20, 20))


def reference(
    student: NDArray[np.float64], labels: NDArray[np.int64], teacher: NDArray[np.float64], alpha: float, t: float
) -> float:
    def log_softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
        shifted = x - x.max(axis=1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))

    hard = -log_softmax(student)[np.arange(len(labels)), labels].mean()
    log_p, log_q = log_softmax(teacher / t), log_softmax(student / t)
    soft = (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()
    return float((1 - alpha) * hard + alpha * t**2 * soft)


@given(
    student=LOGITS,
    teacher=LOGITS,
    alpha=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    temperature=st.sampled_from([0.5, 1.0, 2.0, 50.0]),
)
def test_agrees_with_a_reference_in_numpy(
    student: NDArray[np.float64], teacher: NDArray[np.float64], alpha: float, temperature: float
) -> None:
    labels = np.array([0, 3, 1])
    ours = distillation_loss(
        torch.from_numpy(student),
        torch.from_numpy(labels),
        torch.from_numpy(teacher),
        alpha=alpha,
        temperature=temperature,
    )
    assert ours.item() == pytest.approx(reference(student, labels, teacher, alpha, temperature), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("temperature", [1e4, 1e5, 1e6])
def test_single_precision_logits_agree_with_it_at_temperatures_that_make_near_equals_of_them(
    temperature: float,
) -> None:
    draw = torch.Generator().manual_seed(2)
    student, teacher = (3 * torch.randn(8, 4, generator=draw) for _ in range(2))
    labels = torch.arange(8) % 4
    ours = distillation_loss(student, labels, teacher, alpha=0.5, temperature=temperature)
    assert ours.dtype == torch.float32
    in_numpy = (each.double().numpy() for each in (student, teacher))
    expected = reference(next(in_numpy), labels.numpy(), next(in_numpy), 0.5, temperature)
    # The reference rounds, too: 1e-16 of T^2.
    assert ours.item() == pytest.approx(expected, rel=1e-6, abs=1e-15 * temperature**2)


def test_literal_values() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    label = torch.tensor([0])
    # Hard: ln 2. Soft at T = 1: p = sigmoid(2) = 0.8808, KL = ln 2 - H(p) = 0.6931 - 0.3653. At T = 2:
    # p = sigmoid(1) = 0.7311, KL = 0.6931 - 0.5822, times 4.
    assert distillation_loss(student, label).item() == pytest.approx(0.693147, abs=1e-6)
    soft = distillation_loss(student, label, teacher, alpha=1.0, temperature=1.0)
    assert soft.item() == pytest.approx(0.327813, abs=1e-5)
    soft = distillation_loss(student, label, teacher, alpha=1.0, temperature=2.0)
    assert soft.item() == pytest.approx(0.443776, abs=1e-5)


def test_rows_without_a_label_count_in_the_soft_loss_only() -> None:
    student, teacher = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, UNLABELLED, 0, UNLABELLED])
    hard = distillation_loss(student[[0, 2]], labels[[0, 2]])
    soft = distillation_loss(student, torch.zeros(4, dtype=torch.int64), teacher, alpha=1.0, temperature=2.0)
    loss = distillation_loss(student, labels, teacher, alpha=0.3, temperature=2.0)
    assert loss.item() == pytest.approx(0.7 * hard.item() + 0.3 * soft.item(), rel=1e-6)
    assert distillation_loss(student, labels).item() == pytest.approx(hard.item(), rel=1e-6)


def test_alpha_0_is_the_hard_loss_to_the_bit() -> None:
    student, teacher = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(8, 4)
    labels = torch.arange(8) % 4
    assert torch.equal(
        distillation_loss(student, labels, teacher, alpha=0.0, temperature=2.0), distillation_loss(student, labels)
    )


def test_alpha_1_knows_no_labels_and_is_0_for_a_student_that_equals_its_teacher() -> None:
    logits = torch.tensor([[1.0, -3.0, 0.5]])
    for label in range(3):
        loss = distillation_loss(logits, torch.tensor([label]), logits, alpha=1.0, temperature=3.0)
        assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_at_a_high_temperature_the_gradient_is_that_of_matching_centred_logits() -> None:
    # Hinton et al. (2015), section 2.1: with T large, dC/dz is (z - v) / (N T^2) for centred logits; T^2 cancels.
    student = torch.tensor([[0.3, -0.2, -0.1]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.5, 0.1, -0.6]], dtype=torch.float64)
    distillation_loss(student, torch.tensor([0]), teacher, alpha=1.0, temperature=1e4).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert torch.allclose(student.grad, (student.detach() - teacher) / 3, atol=1e-4)


def test_gradient() -> None:
    draw = torch.Generator().manual_seed(1)
    student = torch.randn(4, 3, dtype=torch.float64, generator=draw, requires_grad=True)
    teacher = torch.randn(4, 3, dtype=torch.float64, generator=draw)
    labels = torch.tensor([0, 1, 2, 1])
    hard: dict[str, Any] = {"class_weights": torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), "label_smoothing": 0.1}
    for alpha, temperature in ((0.0, 1.0), (0.5, 2.0), (1.0, 8.0)):
        for name in SOFT_LOSSES:
            loss = partial(distillation_loss, alpha=alpha, temperature=temperature, soft_loss=name, **hard)
            assert torch.autograd.gradcheck(lambda z, loss=loss: loss(z, labels, teacher), (student,))


def test_literal_values_of_weighed_and_smoothed_labels() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    labels = torch.tensor([0, 1])
    # -log softmax: 0.126928 and 2.126928 in the first row, ln 2 twice in the second.
    weights = torch.tensor([0.5, 1.5])
    weighed = distillation_loss(logits, labels, class_weights=weights)
    assert weighed.item() == pytest.approx((0.5 * 0.126928 + 1.5 * 0.693147) / 2, abs=1e-5)
    smoothed = distillation_loss(logits, labels, label_smoothing=0.2)
    assert smoothed.item() == pytest.approx((0.9 * 0.126928 + 0.1 * 2.126928 + 0.693147) / 2, abs=1e-5)
    both = distillation_loss(logits, labels, class_weights=weights, label_smoothing=0.2)
    assert both.item() == pytest.approx((0.5 * (0.9 * 0.126928 + 0.1 * 2.126928) + 1.5 * 0.693147) / 2, abs=1e-5)


def test_the_weight_of_a_class_is_the_same_in_a_batch_without_the_others() -> None:
    logits, weights = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0.6, 3.0])
    labels = torch.tensor([0, 0, 0, 0, 1, UNLABELLED])
    batches = [[0, 1], [2, 3, 5], [4]]
    means = torch.stack([distillation_loss(logits[rows], labels[rows], class_weights=weights) for rows in batches])
    whole = distillation_loss(logits, labels, class_weights=weights)
    assert (means @ torch.tensor([2.0, 2.0, 1.0]) / 5).item() == pytest.approx(whole.item(), rel=1e-6)


@given(arrays(np.int64, 30, elements=st.integers(0, 3)))
def test_balanced_weights_are_scikit_learn_s(labels: NDArray[np.int64]) -> None:
    labels = np.concatenate([labels, np.arange(4)])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert balanced_weights(labels, 4).numpy() == pytest.approx(expected, rel=1e-6)
