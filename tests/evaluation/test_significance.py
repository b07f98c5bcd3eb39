import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import binomtest, multinomial

from lora_distill.evaluation.significance import PairedDifference, paired_difference, share_interval

RIGHT = st.integers(1, 60).flatmap(lambda rows: st.tuples(*[arrays(np.bool_, rows)] * 2))


def compare(
    both_right: int, only_first: int, only_second: int, both_wrong: int, confidence: float = 0.95
) -> PairedDifference:
    counts = (both_right, only_first, only_second, both_wrong)
    first = np.repeat([True, True, False, False], counts)
    second = np.repeat([True, False, True, False], counts)
    return paired_difference(first, second, confidence)


def test_interval_of_the_reference_implementation() -> None:
    # The example of R's PropCIs::diffpropci.mp(b = 40, c = 20, n = 160), printed in its manual (it takes c - b).
    found = compare(100, 20, 40, 0)
    assert (found.low, found.high) == pytest.approx((-0.21601726, -0.03089632), abs=1e-8)


def test_published_values_of_a_clinical_trial() -> None:
    # Cavo et al. 2012, as in Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables, 2017,
    # chapter 8: estimate -0.0621, Agresti-Min -0.1182 to -0.0045, McNemar's exact conditional test 0.052479.
    found = compare(59, 6, 16, 80)
    assert round(found.difference, 4) == -0.0621
    assert (round(found.low, 4), round(found.high, 4)) == (-0.1182, -0.0045)
    assert round(found.p_value, 6) == 0.052479
    assert (found.both_right, found.only_first_right, found.only_second_right, found.both_wrong) == (59, 6, 16, 80)
    assert found.rows == 161


def test_approval_ratings_of_agresti() -> None:
    # Agresti, Categorical Data Analysis, chapter on matched pairs: 1,600 people asked twice. Wald's interval is -0.06
    # to -0.02, and with so many rows the adjustment changes little; the exact test's p is 3.716e-05.
    found = compare(794, 86, 150, 570)
    assert found.difference == -0.04
    assert (round(found.low, 2), round(found.high, 2)) == (-0.06, -0.02)
    assert found.p_value == pytest.approx(3.716e-05, abs=5e-9)
    assert found.p_value == binomtest(86, 236).pvalue


def test_literal_exact_p_values() -> None:
    assert compare(5, 3, 0, 0).p_value == pytest.approx(2 / 8)
    assert compare(0, 1, 7, 0).p_value == pytest.approx(2 * (1 + 8) / 2**8)
    assert compare(5, 4, 4, 0).p_value == 1.0


def test_two_equal_models_still_have_an_interval() -> None:
    found = compare(90, 0, 0, 10)
    assert found.difference == 0
    assert found.p_value == 1.0
    assert (found.low, found.high) == pytest.approx((-1.96 / 102, 1.96 / 102), abs=1e-4)


def test_another_confidence() -> None:
    assert compare(50, 10, 5, 5, 0.99).low < compare(50, 10, 5, 5, 0.95).low
    assert compare(50, 10, 5, 5, 0.99).confidence == 0.99
    half_width = 1.2815515655 * math.sqrt(16 - 25 / 72) / 72
    assert compare(50, 10, 5, 5, 0.8).high == pytest.approx(5 / 72 + half_width)


@given(RIGHT)
def test_swapping_the_models_changes_the_sign_alone(right: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> None:
    forward, backward = paired_difference(*right), paired_difference(*right[::-1])
    assert backward.difference == -forward.difference
    assert (backward.low, backward.high) == pytest.approx((-forward.high, -forward.low))
    assert backward.p_value == pytest.approx(forward.p_value)
    assert backward.only_first_right == forward.only_second_right


@given(RIGHT)
def test_bounds(right: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> None:
    found = paired_difference(*right)
    assert -1 <= found.low <= found.difference <= found.high <= 1
    assert found.low < found.high
    assert 0 < found.p_value <= 1
    assert found.rows == len(right[0])
    assert found.difference == pytest.approx(right[0].mean() - right[1].mean())


@pytest.mark.parametrize(
    ("only_first", "only_second"), [(0.1, 0.1), (0.05, 0.05), (0.2, 0.05), (0.3, 0.1), (0.02, 0.1)]
)
def test_the_interval_covers_as_often_as_it_says(only_first: float, only_second: float) -> None:
    rows = 40
    cells = [only_first, only_second, 1 - only_first - only_second]
    covered = 0.0  # the exact probability: a sum over every table of 40 rows
    for b in range(rows + 1):
        for c in range(rows + 1 - b):
            probability = multinomial.pmf([b, c, rows - b - c], rows, cells)
            if probability > 1e-9:
                found = compare(rows - b - c, b, c, 0)
                covered += probability * (found.low <= only_first - only_second <= found.high)
    assert covered >= 0.93


def test_refuses_lists_that_do_not_fit() -> None:
    right = np.array([True, False])
    with pytest.raises(ValueError, match="same rows"):
        paired_difference(right, right[:1])
    with pytest.raises(ValueError, match="same rows"):
        paired_difference(right[:0], right[:0])


def test_the_interval_of_a_share_is_wilson_s() -> None:
    # Worked out by hand for 8 of 10: (p + z^2/2n +- z sqrt(p(1 - p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.959964.
    assert share_interval(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert share_interval(0, 10)[0] == 0
    assert share_interval(10, 10)[1] == 1
