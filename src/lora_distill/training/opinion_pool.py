"""Models that answer as one: several teachers, or a teacher and the control."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from lora_distill.evaluation.calibration import calibrated_nll


def pooled(logits: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The logarithm of the mean of several models' probabilities, float32 [N, C].

    Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles", 2017. The mean is that of the probabilities as they are, at temperature 1: so the models together are a
    classifier like any other, the same for every student, and a student's temperature softens what that one says.

    Args:
        logits: float32 [N, C] of each model; NaN in the rows that it does not answer, which each must leave to another.
    """
    each = log_softmax(np.stack(logits).astype(np.float64), axis=2)
    answers = np.isfinite(each).all(axis=2, keepdims=True)
    if not answers.any(axis=0).all():
        raise ValueError("a row that no model answers")
    together = logsumexp(np.where(answers, each, -np.inf), axis=0) - np.log(answers.sum(axis=0))
    return np.asarray(together, dtype=np.float32)


def is_likelier_together(teacher: NDArray[np.float32], control: NDArray[np.float32], labels: NDArray[np.int64]) -> bool:
    """Whether the mean of teacher and control is likelier to be right than the teacher alone.

    So it is where they are about as good and err apart; a control that is much worse takes more than it gives. A weight
    in between, fitted to few rows, would be chance's. Each is judged at its own best temperature, for the mean of
    probabilities that are as sure as they are right is less sure than that (Ranjan and Gneiting, "Combining Probability
    Forecasts", 2010).

    Args:
        teacher: float32 [N, C], logits of rows that neither was trained on.
        control: the same of the control.
        labels: int64 [N].
    """
    return calibrated_nll(pooled([teacher, control]), labels) < calibrated_nll(teacher, labels)
