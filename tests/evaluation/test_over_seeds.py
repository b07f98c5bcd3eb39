import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from lora_distill.evaluation.enough import LEAST_SEEDS
from lora_distill.evaluation.over_seeds import (
    RecipeDifference,
    holm,
    recipe_difference,
    same_rows_difference,
    share_over_seeds,
)
from lora_distill.evaluation.significance import share_interval
from lora_distill.evaluation.verdict import LEVEL
from tests.evaluation.simulation import World

TABLES = st.tuples(st.integers(2, 30), st.integers(2, 6)).flatmap(
    lambda shape: arrays(np.int8, shape, elements=st.integers(-1, 1))
)


def test_literal_values_where_rows_decide() -> None:
    # Four rows, two seeds. Mean 3/8; row means 1, 1/2, 0, 0; seed means 1/2, 1/4. Sums of squares: total
    # 7 - 8 (3/8)^2 = 47/8, rows 2 (25 + 1 + 9 + 9) / 64 = 11/8, seeds 4 (1 + 1) / 64 = 1/8, rest 35/8. MS_row = 11/24,
    # MS_seed = 1/8, MS_rest = 35/24: of rows nothing is left. t(1) = 12.7062: reach = sqrt(12.7062^2 / 64) = 1.588276.
    found = recipe_difference(np.array([[1, 1], [1, 0], [1, -1], [-1, 1]]))
    assert found.difference == 3 / 8
    assert found.per_seed == [0.5, 0.25]
    assert (found.low, found.high) == pytest.approx((-1.213276, 1.963276), abs=1e-6)
    # Of t alone it would be 1 - 2 atan(3) / pi = 0.205; of rows z = (3/8) sqrt(8 * 24 / 35) = 0.878310 is left.
    assert found.p_value == pytest.approx(0.379775, abs=1e-6)
    assert (found.row_variance, found.seed_variance, found.rest_variance) == pytest.approx((0, 0, 35 / 24))
    assert (found.rows, found.seeds, found.discordant) == (4, 2, 3.5)


def test_literal_values_where_seeds_and_rows_count() -> None:
    # Rows give 1, -1, 1, -1, seeds -1/2, 0, 1/2, and nothing else does: MS_row = 3 * 4 / 3 = 4, MS_seed = 2 / 2 = 1.
    # t(2) = 4.302653, z = 1.959964: reach = sqrt((4.302653^2 + 4 * 1.959964^2) / 12) = 1.680244.
    d = 2 + np.array([[1], [-1], [1], [-1]]) + np.array([-0.5, 0, 0.5])
    found = recipe_difference(d)
    assert (found.low, found.high) == pytest.approx((0.319756, 3.680244), abs=1e-6)
    # t = 5.443660 and z = 2.142812 leave as much beyond them, and t^2 + 4 z^2 = 48 = 12 * 2^2.
    assert found.p_value == pytest.approx(0.032128, abs=1e-6)


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


def right_of(rows: int, *wrong: int) -> NDArray[np.bool_]:
    """Bool [n, S]: with each seed so many rows are wrong, the first ones."""
    return np.arange(rows)[:, None] >= np.array(wrong)


def test_a_share_over_seeds_has_the_interval_of_rows_and_seeds() -> None:
    # The seeds differ by two rows on average, and each has some 5 points of Wald's interval from its rows.
    right = right_of(400, 100, 120, 80)
    found = recipe_difference(right.astype(float))
    assert share_over_seeds(right) == (found.low, found.high)
    assert found.high - found.low > 0.08
    # One row of 445 more or less makes no other interval of it.
    for one, other in zip(
        share_over_seeds(right_of(445, 44, 44, 44)), share_over_seeds(right_of(445, 44, 44, 45)), strict=True
    ):
        assert one == pytest.approx(other, abs=0.002)


@pytest.mark.parametrize(("wrong", "of_one"), [((0, 0, 0), 445), ((2, 2), 443), ((44,), 401)])
def test_a_share_over_seeds_is_no_surer_than_that_of_one(wrong: tuple[int, ...], of_one: int) -> None:
    wilson = share_interval(of_one, 445)
    low, high = share_over_seeds(right_of(445, *wrong))
    assert low <= wilson[0] < wilson[1] <= high <= 1
    if len(wrong) == 1 or wrong[0] == 0:
        assert (low, high) == wilson
    assert share_over_seeds(right_of(1, 0, 0)) == share_interval(1, 1)


def test_an_interval_of_a_share_covers_other_texts_and_seeds() -> None:
    generator, level = _generator(), stats.norm.ppf(0.9) * math.hypot(1, 1.5, 0.1)
    draws, n, seeds = 400, 445, 3
    score = level + 1.5 * generator.normal(size=(draws, n, 1)) + 0.1 * generator.normal(size=(draws, 1, seeds))
    right = score + generator.normal(size=(draws, n, seeds)) > 0
    covered = [low <= 0.9 <= high for low, high in map(share_over_seeds, right)]
    assert np.mean(covered) >= 0.93


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


def test_rows_and_seeds_that_all_come_to_the_same_leave_their_differences() -> None:
    found = recipe_difference(np.array([[1, -1]] * 100 + [[-1, 1]] * 100), largest=1)
    # MS_row and MS_seed are 0; MS_rest = 400 / 199.
    assert found.high == pytest.approx(1.959964 * math.sqrt(400 / 199 / 400), rel=1e-6)
    assert (found.low, found.p_value) == (-found.high, 1)


def planned(
    seeds: int, seed_variance: float, row_variance: float, rest_variance: float, rows: int = 1000
) -> RecipeDifference:
    return RecipeDifference(
        difference=0.0,
        low=0.0,
        high=0.0,
        p_value=1.0,
        confidence=0.95,
        seeds=seeds,
        per_seed=[],
        rows=rows,
        discordant=100.0,
        seed_variance=seed_variance,
        row_variance=row_variance,
        rest_variance=rest_variance,
    )


VARIANCES = st.tuples(st.floats(0, 1e-3), st.floats(0, 0.3), st.floats(1e-4, 0.3))


@given(st.integers(2, 10), VARIANCES, st.sampled_from([1, 3, 8, 30]), st.integers(2, 100_000), st.integers(3, 500))
def test_more_seeds_or_rows_never_show_less(
    seeds: int, variances: tuple[float, float, float], comparisons: int, rows: int, more_seeds: int
) -> None:
    found, level = planned(seeds, *variances), LEVEL / comparisons
    assert found.detectable(level, rows=2 * rows) <= found.detectable(level, rows=rows) * (1 + 1e-9)
    assert found.detectable(level, seeds=more_seeds + 1) <= found.detectable(level, seeds=more_seeds) * (1 + 1e-9)


def test_what_is_needed_is_the_least_that_shows_it() -> None:
    found = recipe_difference(World(0.9, 2000, 5, seed_deviation=0.005, row_effect=True).draw(1, _generator())[0])
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
    assert planned(3, 0.0, 0.0, 0.0).detectable(LEVEL) == 0


@pytest.mark.parametrize("comparisons", [1, 8])
@pytest.mark.parametrize(
    "variances", [(1e-5, 0.03, 0.03), (1e-4, 0.03, 0.03), (0.0, 0.0, 0.06), (0.0, 0.05, 0.01), (1e-3, 0.0, 0.01)]
)
@pytest.mark.parametrize("seeds", [3, 5])
def test_detectable_is_found_in_four_of_five_suites(
    seeds: int, variances: tuple[float, float, float], comparisons: int
) -> None:
    draws, rows, level, generator = 300, 60, LEVEL / comparisons, _generator()
    found = planned(seeds, *variances, rows)
    of_seeds, of_rows, rest = (generator.normal(0, math.sqrt(each), (draws, rows, seeds)) for each in variances)
    d = found.detectable(level) + of_seeds[:, :1] + of_rows[:, :, :1] + rest
    assert 0.74 < np.mean([recipe_difference(each).p_value < level for each in d]) < 0.86


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
