import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from lora_distill.evaluation.over_seeds import LEAST_SEEDS, holm, recipe_difference, same_rows_difference
from lora_distill.evaluation.verdict import LEVEL
from tests.evaluation.simulation import World

TABLES = st.tuples(st.integers(2, 30), st.integers(2, 6)).flatmap(
    lambda shape: arrays(np.int8, shape, elements=st.integers(-1, 1))
)


def test_literal_values() -> None:
    # Four rows, two seeds. Mean 3/8; row means 1, 0.5, 0, 0; seed means 0.5, 0.25.
    # MS_row = 2 (25 + 1 + 9 + 9) / 64 / 3 = 88 / 192; MS_seed = 4 * 2 / 64 = 1 / 8;
    # total sum of squares = 3 - 9/8 = 15/8, of it rows 11/8 and seeds 1/8, rest 3/8: MS_rest = 1/8.
    d = np.array([[1, 1], [1, 0], [1, -1], [-1, 1]])
    found = recipe_difference(d)
    assert found.difference == 3 / 8
    assert found.per_seed == [0.5, 0.25]
    ms_row, ms_seed, ms_rest = _anova(d)
    variance = (ms_seed + max(ms_row - ms_rest, 0)) / 8
    freedom = (8 * variance) ** 2 / ms_seed**2
    assert found.high - found.difference == pytest.approx(
        max(stats.t.ppf(0.975, freedom) * math.sqrt(variance), stats.norm.ppf(0.975) * math.sqrt(ms_row / 8))
    )
    assert (found.rows, found.seeds, found.discordant) == (4, 2, 3.5)


def _anova(d: NDArray[np.int8]) -> tuple[float, float, float]:
    """Mean squares of rows, seeds and rest by least squares on indicator columns: another way than sums of means."""
    n, seeds = d.shape
    row, seed = np.indices(d.shape).reshape(2, -1)
    y = d.reshape(-1).astype(float)

    def residual(*factors: NDArray[np.int64]) -> float:
        columns = [np.ones((len(y), 1))] + [np.eye(factor.max() + 1)[factor] for factor in factors]
        design = np.hstack(columns)
        return float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())

    rest = residual(row, seed)
    return (
        (residual(seed) - rest) / (n - 1),
        (residual(row) - rest) / (seeds - 1),
        rest / ((n - 1) * (seeds - 1)),
    )


@given(TABLES)
def test_variance_components_are_those_of_an_analysis_of_variance(d: NDArray[np.int8]) -> None:
    found = recipe_difference(d)
    ms_row, ms_seed, ms_rest = _anova(d)
    assert found.rest_variance == pytest.approx(ms_rest, abs=1e-9)
    assert found.row_variance == pytest.approx(max(ms_row - ms_rest, 0) / found.seeds, abs=1e-9)
    assert found.seed_variance == pytest.approx(max(ms_seed - ms_rest, 0) / found.rows, abs=1e-9)


@given(TABLES)
def test_swapping_the_two_turns_everything_around(d: NDArray[np.int8]) -> None:
    one, other = recipe_difference(d), recipe_difference(-d)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p_value == pytest.approx(other.p_value)


@given(TABLES, st.floats(0.5, 0.99), st.sampled_from([None, 1.0]))
def test_the_interval_leaves_zero_out_where_the_test_rejects(
    d: NDArray[np.int8], confidence: float, largest: float | None
) -> None:
    found = recipe_difference(d, confidence, largest)
    if abs(found.p_value - (1 - confidence)) > 1e-9 and found.high > found.low:
        assert (found.p_value < 1 - confidence) == (not found.low <= 0 <= found.high)


@given(TABLES)
def test_no_interval_leaves_what_a_difference_can_be(d: NDArray[np.int8]) -> None:
    bounded, free = recipe_difference(d, largest=1), recipe_difference(d)
    assert -1 <= bounded.low <= bounded.difference <= bounded.high <= 1
    if np.ptp(d):
        assert (bounded.low, bounded.high) == (max(free.low, -1), min(free.high, 1))
        assert bounded.p_value == free.p_value


def test_seeds_that_all_agree_leave_the_rows_uncertain() -> None:
    d = np.repeat([[1], [0], [0], [-1]] * 25, 3, axis=1)
    found = recipe_difference(d)
    assert found.seed_variance == 0
    assert found.high == pytest.approx(1.959964 * math.sqrt(d[:, 0].var(ddof=1) / 100), rel=1e-6)


def test_same_rows_is_students_t() -> None:
    values = np.array([0.3, 0.5, -0.1, 0.4])
    found = same_rows_difference(values)
    expected = stats.ttest_1samp(values, 0)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_holm_of_the_literature() -> None:
    # Holm 1979's rule on four p-values, as R's p.adjust gives them.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_multiplies_each_by_how_many_are_no_smaller(p_values: list[float]) -> None:
    expected, before = [], 0.0
    for place, value in enumerate(sorted(p_values)):
        before = max(before, min((len(p_values) - place) * value, 1.0))
        expected.append((value, before))
    assert sorted(zip(p_values, holm(p_values), strict=True)) == expected


def test_seeds_that_all_give_the_same_do_not_tell_how_far_others_would_be_from_it() -> None:
    found = same_rows_difference(np.array([0.905 - 0.9, 0.955 - 0.95, 0.805 - 0.8]))
    assert found.difference == pytest.approx(0.005)
    assert (found.low, found.high, found.p_value) == (None, None, None)


def test_more_seeds_and_rows_show_smaller_differences() -> None:
    found = recipe_difference(World(0.9, 2000, 5, seed_deviation=0.005, row_effect=True).draw(1, _generator())[0])
    assert found.detectable(LEVEL, seeds=10) < found.detectable(LEVEL) < found.detectable(LEVEL, seeds=3)
    assert found.detectable(LEVEL, rows=20_000) < found.detectable(LEVEL)
    assert found.detectable(LEVEL, seeds=1) == math.inf
    wanted = found.detectable(LEVEL) * 0.9
    seeds, rows = found.seeds_needed(wanted, LEVEL), found.rows_needed(wanted, LEVEL)
    assert seeds
    assert found.detectable(LEVEL, seeds=seeds) <= wanted < found.detectable(LEVEL, seeds=seeds - 1)
    assert rows
    assert found.detectable(LEVEL, rows=rows) <= wanted < found.detectable(LEVEL, rows=rows - 1)
    assert found.detectable(LEVEL / 8) > found.detectable(LEVEL)
    assert found.seeds_needed(1, LEVEL) == LEAST_SEEDS
    assert found.seeds_needed(1e-6, LEVEL) is None
    assert found.rows_needed(1e-6, LEVEL) is None


def test_detectable_is_found_in_four_of_five_suites() -> None:
    world = World(0.9, 1000, 5, seed_deviation=0.005, row_effect=True)
    generator = _generator()
    planned = np.mean([recipe_difference(d).detectable(LEVEL) for d in world.draw(200, generator)])
    with_gain = World(0.9, 1000, 5, seed_deviation=0.005, row_effect=True, gain=float(planned))
    shown = np.mean([recipe_difference(d).p_value < 0.05 for d in with_gain.draw(400, generator)])
    assert 0.72 < shown < 0.92


@pytest.mark.parametrize("shape", [(5,), (1, 3), (3, 1), (0, 2)])
def test_too_little_to_compute_is_said(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two rows and two seeds"):
        recipe_difference(np.zeros(shape))


def test_numbers_that_are_none_are_said() -> None:
    with pytest.raises(ValueError, match="finite"):
        recipe_difference(np.array([[1, math.nan], [0, 1]]))
    with pytest.raises(ValueError, match="two seeds"):
        same_rows_difference(np.array([1.0]))


def _generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_rows_that_never_differ_do_not_say_that_none_will() -> None:
    found = recipe_difference(np.zeros((60, 3)), largest=2)
    # Of 60 rows none: the exact interval of the share reaches 5.96%, each of at most two.
    assert (found.low, found.high) == pytest.approx((-0.11925, 0.11925), abs=1e-4)
    assert found.p_value == 1


def test_rows_that_all_differ_alike_do_not_say_that_all_will() -> None:
    found = recipe_difference(np.ones((60, 3)), largest=1)
    # The exact interval of the share of other rows reaches 5.96%; each may be as far off as -1.
    assert (found.low, found.high) == pytest.approx((1 - 2 * 0.0596, 1), abs=1e-4)
    assert found.p_value == pytest.approx(stats.binomtest(60, 60).pvalue)
