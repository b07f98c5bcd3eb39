import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from lora_distill.evaluation.selective import area_under_risk, selective_risk

LOGITS = arrays(np.float32, (8, 3), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]))  # many rows are as sure
LABELS = arrays(np.int64, 8, elements=st.integers(0, 2))


def test_literal_values() -> None:
    logits = np.array([[0, 3], [2, 0], [0, 1], [4, 0]], np.float32)  # surest: the last, the first, the second
    risk = selective_risk(logits, np.array([0, 0, 1, 0]))
    assert risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4])
    assert area_under_risk(logits, np.array([0, 0, 1, 0])) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_equally_sure_rows_count_as_their_mean() -> None:
    logits = np.array([[1, 0], [1, 0], [0, 5]], np.float32)
    assert selective_risk(logits, np.array([0, 1, 1])).tolist() == pytest.approx([0, 0.25, 1 / 3])


@given(logits=LOGITS, labels=LABELS, order=st.permutations(range(8)))
def test_it_ends_at_the_error_rate_and_the_order_of_rows_says_nothing(
    logits: NDArray[np.float32], labels: NDArray[np.int64], order: list[int]
) -> None:
    risk = selective_risk(logits, labels)
    assert risk[-1] == pytest.approx((logits.argmax(axis=1) != labels).mean())
    assert ((risk >= 0) & (risk <= 1 + 1e-12)).all()
    assert selective_risk(logits[order], labels[order]).tolist() == pytest.approx(risk.tolist())


def test_confidence_that_says_nothing_has_the_error_rate() -> None:
    logits = np.array([[1, 0]] * 10, np.float32)
    assert area_under_risk(logits, np.array([0] * 7 + [1] * 3)) == pytest.approx(0.3)
