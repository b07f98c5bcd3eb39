"""A classifier that may leave rows unanswered: how often it is wrong on those of which it is surest."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_distill.evaluation.calibration import confidence_of


def selective_risk(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of wrong answers among the k rows of highest confidence, float64 [N] for k = 1 to N.

    The risk-coverage curve: coverage is k / N (El-Yaniv and Wiener, On the Foundations of Noise-free Selective
    Classification, JMLR 11, 2010). Rows of one confidence cannot be told apart, so each counts as the mean of them.

    Args:
        logits: float32 [N, C].
        labels: int64 [N].
    """
    wrong = (logits.argmax(axis=1) != labels).astype(np.float64)
    levels, level = np.unique(-confidence_of(logits), return_inverse=True)
    rows = np.bincount(level, minlength=len(levels))
    shares = np.bincount(level, weights=wrong, minlength=len(levels)) / rows
    risk: NDArray[np.float64] = np.cumsum(np.repeat(shares, rows)) / np.arange(1, len(wrong) + 1)
    return risk


def area_under_risk(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> float:
    """AURC, the mean of the selective risk over all coverages, 0 to 1; lower is better.

    (Geifman, Uziel and El-Yaniv, Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, ICLR 2019.) A model
    whose confidence says nothing has its error rate.
    """
    return float(selective_risk(logits, labels).mean())
