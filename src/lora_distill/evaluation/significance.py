"""Whether one model is right more often than another on the same rows, beyond chance."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from lora_distill.evaluation.enough import LEAST_DISCORDANT


@dataclass(frozen=True)
class PairedDifference:
    """Two models on the same rows, the first minus the second.

    Attributes:
        difference: share of rows that the first has right minus that of the second, -1 to 1.
        low: lower end of its confidence interval.
        high: upper end.
        p_value: of the hypothesis that both are right equally often, two-sided.
        confidence: of the interval.
        both_right: rows that both have right.
        only_first_right: rows that only the first has right.
        only_second_right: rows that only the second has right.
        both_wrong: rows that neither has right.
    """

    difference: float
    low: float
    high: float
    p_value: float
    confidence: float
    both_right: int
    only_first_right: int
    only_second_right: int
    both_wrong: int

    @property
    def rows(self) -> int:
        """All rows."""
        return self.both_right + self.only_first_right + self.only_second_right + self.both_wrong

    @property
    def can_decide(self) -> bool:
        """Whether there are discordant rows enough to say that one is better."""
        return self.only_first_right + self.only_second_right >= LEAST_DISCORDANT


def paired_difference(
    first_right: NDArray[np.bool_], second_right: NDArray[np.bool_], confidence: float = 0.95
) -> PairedDifference:
    """Compare how often two models are right on the same rows.

    It speaks of these two models and of other rows of the same kind; what training with another seed would give
    it cannot know.

    The interval is Wald's after half a row has been added to each cell of the two-by-two table (Agresti and Min,
    Simple Improved Confidence Intervals for Comparing Matched Proportions, Statistics in Medicine 24, 2005). With
    b rows that only the first has right, c that only the second has, and m = n + 2 rows in all:

        (b - c) / m  plus or minus  z * sqrt(b + c + 1 - (b - c)^2 / m) / m

    The p-value is that of McNemar's exact test: a two-sided binomial test of b among b + c with probability 1/2
    (McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions, Psychometrika 12, 1947).

    Args:
        first_right: bool [N].
        second_right: bool [N], of the same rows.
        confidence: of the interval, between 0 and 1.

    Raises:
        ValueError: shapes that do not fit, or no rows.
    """
    if first_right.ndim != 1 or first_right.shape != second_right.shape or not len(first_right):
        raise ValueError(f"two lists of the same rows are needed, not {first_right.shape} and {second_right.shape}")
    rows = len(first_right)
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    discordant, excess = only_first + only_second, only_first - only_second
    padded_rows = rows + 2
    centre = excess / padded_rows
    error = math.sqrt(discordant + 1 - excess**2 / padded_rows) / padded_rows
    reach = float(norm.ppf((1 + confidence) / 2)) * error
    return PairedDifference(
        difference=excess / rows,
        low=max(centre - reach, -1.0),
        high=min(centre + reach, 1.0),
        p_value=float(binomtest(only_first, discordant).pvalue) if discordant else 1.0,
        confidence=confidence,
        both_right=int((first_right & second_right).sum()),
        only_first_right=only_first,
        only_second_right=only_second,
        both_wrong=int((~first_right & ~second_right).sum()),
    )


def share_interval(count: int, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share (Probable Inference, the Law of Succession, and Statistical Inference, 1927).

    Args:
        count: of rows that have it.
        rows: all, one at least.
        confidence: of the interval, between 0 and 1.
    """
    found = binomtest(count, rows).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)
