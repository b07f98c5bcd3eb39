"""Suites whose truth is known: rows right and wrong of two recipes with several seeds, drawn many times."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm


@dataclass(frozen=True)
class World:
    """How rows come to be right: one normal score a row, model and seed, right above 0.

    The score adds up a model's level, what the seed does to it, how easy the row is for both models, how easy it is
    for this model, and chance.

    Attributes:
        accuracy: that of the second model, expected.
        gain: expected accuracy of the first beyond it.
        rows: n.
        seeds: S.
        seed_deviation: standard deviation that seeds give to a model's accuracy.
        row_effect: whether rows differ, in how easy they are, and for which of the models.
    """

    accuracy: float
    rows: int
    seeds: int
    seed_deviation: float = 0.0
    row_effect: bool = False
    gain: float = 0.0

    def draw(self, draws: int, generator: np.random.Generator) -> NDArray[np.int8]:
        """Differences of right answers, [draws, n, S], each -1, 0 or 1."""
        both, own = (1.5, 0.7) if self.row_effect else (0.0, 0.0)
        others = both**2 + own**2 + 1
        shape = (draws, self.rows, 1)
        easy = both * generator.standard_normal(shape, np.float32) if both else np.float32(0)
        right = []
        for accuracy in (self.accuracy + self.gain, self.accuracy):
            deviation, level = _level(accuracy, self.seed_deviation, others)
            score = level + deviation * generator.standard_normal((draws, 1, self.seeds), np.float32)
            score = score + easy
            if own:
                score = score + np.float32(own) * generator.standard_normal(shape, np.float32)
            probability = norm.cdf(score).astype(np.float32)
            right.append(generator.random((draws, self.rows, self.seeds), np.float32) < probability)
        difference: NDArray[np.int8] = right[0].astype(np.int8) - right[1].astype(np.int8)
        return difference

    @property
    def discordant(self) -> float:
        """Rows a seed on which the two are expected to differ, if rows had no effect; with one they are fewer."""
        first, second = self.accuracy + self.gain, self.accuracy
        return self.rows * (first * (1 - second) + second * (1 - first))


def _level(accuracy: float, seed_deviation: float, others: float) -> tuple[float, float]:
    """Deviation of the seeds' scores, and the level of the scores, that give a model its accuracy and its deviation.

    With scores N(level, deviation^2 + others) the expected accuracy is Phi(level / sqrt(deviation^2 + others)); with a
    seed's score given it is Phi(score / sqrt(others)), whose slope turns a deviation of scores into one of accuracies.
    """
    if seed_deviation == 0:
        return 0.0, float(norm.ppf(accuracy)) * math.sqrt(others)

    def spread_too_far(deviation: float) -> float:
        level = norm.ppf(accuracy) * math.sqrt(deviation**2 + others)
        nodes, weights = np.polynomial.hermite_e.hermegauss(41)
        each = norm.cdf((level + deviation * nodes) / math.sqrt(others))
        weights = weights / weights.sum()
        return float(math.sqrt(weights @ (each - weights @ each) ** 2)) - seed_deviation

    deviation = float(brentq(spread_too_far, 1e-9, 3.0 * math.sqrt(others)))
    return deviation, float(norm.ppf(accuracy)) * math.sqrt(deviation**2 + others)
