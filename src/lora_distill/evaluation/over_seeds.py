"""Whether one recipe does better than another: over texts and over seeds, beyond chance."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr, ndtri, stdtrit

from lora_distill.evaluation.enough import LEAST_DISCORDANT, LEAST_SEEDS
from lora_distill.evaluation.significance import share_interval

POWER = 0.8
LEAST_TAIL = 1e-100  # p values below are said to be 0
SHARES = (np.arange(200) + 0.5) / 200  # quantiles that stand for a whole distribution
ROUNDING = 1e-12  # what differences of equal figures may differ by


@dataclass(frozen=True)
class OverSeeds:
    """Mean of a difference over seeds, and over rows too or on exactly these.

    Attributes:
        difference: the mean, in the unit of what was given.
        low: lower end of its confidence interval; None, as are the next two, where all seeds give the same: how far
            others would be from it, such seeds do not tell.
        high: upper end.
        p_value: of the hypothesis that the mean is 0, two-sided.
        confidence: of the interval.
        seeds: S.
        per_seed: the S means over rows.
    """

    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    confidence: float
    seeds: int
    per_seed: list[float]


@dataclass(frozen=True)
class RecipeDifference(OverSeeds):
    """What to expect of other texts of this kind and of other seeds.

    Attributes:
        rows: n.
        discordant: rows a seed, on average, on which the two differ.
        seed_variance: of a seed's mean, beyond what its rows explain.
        row_variance: of a row's mean, beyond what its seeds explain.
        rest_variance: of what neither explains.
    """

    low: float
    high: float
    p_value: float
    rows: int
    discordant: float
    seed_variance: float
    row_variance: float
    rest_variance: float

    @property
    def can_decide(self) -> bool:
        """Whether there are seeds and discordant rows enough to say that one is better."""
        return self.seeds >= LEAST_SEEDS and self.discordant >= LEAST_DISCORDANT

    def detectable(self, level: float, *, seeds: int | None = None, rows: int | None = None) -> float:
        """The smallest true difference that so many seeds and rows would show in four of five suites.

        The power of the test of `recipe_difference` is the chance of mean > reach. The mean is normal; MS_seed, which
        reach grows with, is chi-square with S - 1 degrees of freedom, and the mean over its quantiles is taken. All
        have the expectations that the variances here give; of so many rows, MS_row and MS_rest are taken as known.

        Args:
            level: of the test; where several are corrected for their number, that of one of them.
            seeds: as many as there are, if None.
            rows: as many as there are, if None.
        """
        seeds, rows = seeds or self.seeds, rows or self.rows
        if seeds < 2:
            return math.inf
        rest = self.rest_variance
        ms_row, ms_seed = rest + seeds * self.row_variance, rest + rows * self.seed_variance
        by_chance = gammaincinv((seeds - 1) / 2, SHARES) * 2 / (seeds - 1)
        reach = _reach(level / 2, seeds, ms_row, ms_seed * by_chance, rest)
        error = math.sqrt(ms_row + ms_seed - rest)
        if not error:
            return 0.0

        def beyond(true: float) -> float:
            return float(ndtr((true - reach) / error).mean()) - POWER

        return float(brentq(beyond, 0, reach.max() + error)) / math.sqrt(rows * seeds)

    def seeds_needed(self, difference: float, level: float, most: int = 1000) -> int | None:
        """How many seeds would show a true difference on as many rows; None: no number would, up to `most`."""
        return _smallest(lambda seeds: self.detectable(level, seeds=seeds) <= abs(difference), LEAST_SEEDS, most)

    def rows_needed(self, difference: float, level: float, most: int = 10_000_000) -> int | None:
        """How many rows would show a true difference with as many seeds; None: no number would, up to `most`."""
        return _smallest(lambda rows: self.detectable(level, rows=rows) <= abs(difference), 2, most)


def recipe_difference(
    differences: NDArray[np.number[Any]], confidence: float = 0.95, largest: float | None = None
) -> RecipeDifference:
    """The mean difference over texts like these rows and over seeds, both of them random.

    Rows and seeds are crossed, as cases and readers are in radiology: a two-way random-effects layout without
    replication (Obuchowski and Rockette, Hypothesis Testing of Diagnostic Accuracy for Multiple Readers and Multiple
    Tests, Communications in Statistics - Simulation 24, 1995). With the mean squares of the layout, n rows and S seeds,
    the mean has the variance (MS_seed + max(MS_row - MS_rest, 0)) / (n S), of which few seeds tell the first part
    badly and many rows the second well. Each part has a quantile of its own (Banerjee, Approximate Confidence Interval
    for Linear Functions of Means of k Populations When the Population Variances Are Not Equal, Sankhya 22, 1960):

        reach^2 = (t(S - 1)^2 MS_seed + z^2 max(MS_row - MS_rest, 0)) / (n S)
                  and at least z^2 max(MS_row, MS_rest) / (n S)

    which is Student's t where seeds decide, the normal where rows do, and nowhere between them too narrow, as one t
    with Satterthwaite's degrees of freedom is with three seeds. The least is there for seeds that by chance agree too
    well: the rows alone still set a limit. The interval is m +- reach; the p-value is that at which reach is |m|.

    Where all differences are one, such as 0, other rows still may have others: the share of those is at most
    q = 1 - (a/2)^(1/n) with a = 1 - confidence (Clopper and Pearson, The Use of Confidence or Fiducial Limits
    Illustrated in the Case of the Binomial, Biometrika 26, 1934), and each differs at most by the largest difference L
    that a row can have. So the interval reaches from m - q (L + m) to m + q (L - m), and the p-value is
    2 (L / (L + |m|))^n, which for m = L is that of the sign test. No interval goes beyond -L or L.

    Args:
        differences: [n, S], first minus second on row i with seed s, such as 1 where only the first is right, -1 where
            only the second is, else 0.
        confidence: of the interval, between 0 and 1.
        largest: difference that a row can have, either way; None: there is no bound.

    Raises:
        ValueError: not two rows and two seeds at least, or numbers that are not finite.
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 2 or min(d.shape) < 2 or not np.isfinite(d).all():
        raise ValueError(f"finite differences of two rows and two seeds at least are needed, not {d.shape}")
    n, seeds = d.shape
    mean, row_means, seed_means = float(d.mean()), d.mean(axis=1), d.mean(axis=0)
    ms_row = seeds * float(((row_means - mean) ** 2).sum()) / (n - 1)
    ms_seed = n * float(((seed_means - mean) ** 2).sum()) / (seeds - 1)
    rest = d - row_means[:, None] - seed_means + mean
    ms_rest = float((rest**2).sum()) / ((n - 1) * (seeds - 1))

    def reach(tail: float) -> float:
        return float(_reach(tail, seeds, ms_row, ms_seed, ms_rest)) / math.sqrt(n * seeds)

    tail = (1 - confidence) / 2
    low, high, p_value = mean - reach(tail), mean + reach(tail), _p_value(mean, reach)
    if largest is not None:
        if np.ptp(d) == 0:
            share = 1 - tail ** (1 / n)
            low, high = mean - share * (largest + mean), mean + share * (largest - mean)
            p_value = min(2 * (largest / (largest + abs(mean))) ** n, 1.0)
        low, high = max(low, -largest), min(high, largest)
    return RecipeDifference(
        difference=mean,
        low=low,
        high=high,
        p_value=p_value,
        confidence=confidence,
        seeds=seeds,
        per_seed=seed_means.tolist(),
        rows=n,
        discordant=float((d != 0).sum() / seeds),
        seed_variance=max(ms_seed - ms_rest, 0.0) / n,
        row_variance=max(ms_row - ms_rest, 0.0) / seeds,
        rest_variance=ms_rest,
    )


def same_rows_difference(per_seed: NDArray[np.number[Any]], confidence: float = 0.95) -> OverSeeds:
    """The mean over seeds of a figure's difference on exactly these rows: Student's t with S - 1 degrees of freedom.

    For figures that are no mean over rows, such as macro F1 and calibration error, too. A bootstrap over so few seeds
    would stay between the least and the largest of them.

    Args:
        per_seed: [S], first minus second.
        confidence: of the interval, between 0 and 1.

    Raises:
        ValueError: fewer than two seeds, or numbers that are not finite.
    """
    values = np.asarray(per_seed, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"finite differences of two seeds at least are needed, not {values.shape}")
    seeds, mean = len(values), float(values.mean())
    if np.ptp(values) < ROUNDING:
        return OverSeeds(mean, None, None, None, confidence, seeds, values.tolist())
    error = float(values.std(ddof=1)) / math.sqrt(seeds)
    reach = float(stats.t.ppf((1 + confidence) / 2, seeds - 1)) * error
    p_value = 2 * float(stats.t.sf(abs(mean) / error, seeds - 1))
    return OverSeeds(mean, mean - reach, mean + reach, p_value, confidence, seeds, values.tolist())


def share_over_seeds(right: NDArray[np.bool_], confidence: float = 0.95) -> tuple[float, float]:
    """The interval of how often a recipe's model is right, for texts like these rows and for other seeds.

    It holds that of `recipe_difference`, which has what seeds do, and Wilson's of the mean, which is not too narrow
    where nearly all rows are right, or wrong. With one seed it is Wilson's, and speaks of that model.

    Args:
        right: bool [n, S], by row and seed.
        confidence: of the interval, between 0 and 1.
    """
    rows = len(right)
    low, high = share_interval(round(right.mean() * rows), rows, confidence)
    if min(right.shape) > 1:
        found = recipe_difference(right.astype(np.float64), confidence)
        low, high = max(min(low, found.low), 0.0), min(max(high, found.high), 1.0)
    return low, high


def _reach(
    tail: float, seeds: int, ms_row: float, ms_seed: float | NDArray[np.float64], ms_rest: float
) -> NDArray[np.float64]:
    """Half an interval with so much beyond each of its ends, times sqrt(n S), as `recipe_difference` has it."""
    t, z = stdtrit(seeds - 1, tail), ndtri(tail)
    both = t**2 * ms_seed + z**2 * max(ms_row - ms_rest, 0.0)
    reach: NDArray[np.float64] = np.sqrt(np.maximum(both, z**2 * max(ms_row, ms_rest)))
    return reach


def _p_value(mean: float, reach: Callable[[float], float]) -> float:
    """Twice the tail at which the interval ends at 0; without any error, a mean but 0 is beyond chance."""
    if mean == 0:
        return 1.0
    if reach(LEAST_TAIL) <= abs(mean):
        return 0.0
    ends = math.log(LEAST_TAIL), math.log(0.5)
    return 2 * math.exp(brentq(lambda exponent: reach(math.exp(exponent)) - abs(mean), *ends))


def _smallest(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number from low to high that is enough, where larger ones are, too."""
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def holm(p_values: list[float]) -> list[float]:
    """P-values corrected for their number (Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979).

    The k-th smallest of m is multiplied by m - k + 1, is at least that before it and at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    result = np.empty(len(p_values))
    result[order] = adjusted
    return [float(value) for value in result]
