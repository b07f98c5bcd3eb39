"""Two who answer as one: the teacher and the control, from whom a student may learn together."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

SHARES = 200  # between 0 and 1, at which the likelihood is looked at
LEAST = -1e3  # of a log-probability: two who are both certain of another label say nothing of their shares


def teacher_share(teacher: NDArray[np.float32], control: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The weight of the teacher's probabilities beside the control's, between 0 and 1.

    That of the linear opinion pool (Stone, "The Opinion Pool", Annals of Mathematical Statistics, 1961): the mean of
    its posterior, where nothing is known of it before. The likeliest weight is often 0 or 1 by the chance of few rows.

    Args:
        teacher: float32 [N, C], logits of rows that neither was trained on.
        control: the same of the control.
        labels: int64 [N].
    """
    shares = (np.arange(SHARES) + 0.5) / SHARES
    rows = np.arange(len(labels))
    of_teacher, of_control = (np.maximum(_log_probabilities(each)[rows, labels], LEAST) for each in (teacher, control))
    likelihoods = _pooled(of_teacher, of_control, shares[:, None]).sum(axis=1)
    return float(shares @ softmax(likelihoods))


def together(teacher: NDArray[np.float32], control: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The logarithm of the weighted mean of their probabilities, float32 [N, C].

    Args:
        teacher: float32 [N, C], logits.
        control: the same of the control.
        share: the teacher's, between 0 and 1.
    """
    pooled = _pooled(_log_probabilities(teacher), _log_probabilities(control), np.array(share))
    return pooled.astype(np.float32)


def _log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(log_softmax(logits.astype(np.float64), axis=1))


def _pooled(
    teacher: NDArray[np.float64], control: NDArray[np.float64], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of log-probabilities, for one share or several."""
    return np.asarray(np.logaddexp(np.log(share) + teacher, np.log1p(-share) + control))
