"""How good a classifier's logits are: accuracy, F1, likelihood, calibration, and agreement with another's."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

CALIBRATION_BINS = 15


def classification_metrics(
    logits: NDArray[np.float32], labels: NDArray[np.int64], label_names: list[str]
) -> dict[str, Any]:
    """Judge logits against the true labels, in float64.

    Args:
        logits: float32 [N, C].
        labels: int64 [N], indices into the label names.
        label_names: C names, all different.

    Returns:
        Plain numbers and lists, fit for JSON:

        - `rows`: N.
        - `accuracy`, `macro_f1`: shares. Macro F1 is the mean over the classes that have rows or predictions, as
          scikit-learn's is.
        - `nll`: mean negative log-likelihood of the true class, in nats.
        - `ece`: expected calibration error, 0 to 1 (see `_calibration_error`).
        - `brier`: mean squared error of the probabilities, summed over the classes, 0 to 2 (Brier, Verification
          of Forecasts Expressed in Terms of Probability, 1950).
        - `per_class`: `precision`, `recall`, `f1` and `support` (rows) by label name.
        - `confusion`: counts, C lists of C: a list for each true class, in it a count for each predicted one.

    Raises:
        ValueError: shapes that do not fit, no rows, or logits that are not finite.
    """
    log_probabilities = _log_probabilities(logits)
    rows, classes = logits.shape
    if labels.shape != (rows,) or len(label_names) != classes:
        raise ValueError(f"logits {logits.shape}, labels {labels.shape} and {len(label_names)} names do not fit")
    probabilities = np.exp(log_probabilities)
    predicted = logits.argmax(axis=1)
    each = {"labels": range(classes), "zero_division": 0}
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted, **each)
    present = np.union1d(labels, predicted)
    return {
        "rows": rows,
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1[present].mean()),
        "nll": float(-log_probabilities[np.arange(rows), labels].mean()),
        "ece": _calibration_error(probabilities.max(axis=1), predicted == labels),
        "brier": float(((probabilities - np.eye(classes)[labels]) ** 2).sum(axis=1).mean()),
        "per_class": {
            name: {
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "support": int(support[index]),
            }
            for index, name in enumerate(label_names)
        },
        "confusion": confusion_matrix(labels, predicted, labels=range(classes)).tolist(),
    }


def scores_by_row(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """What `accuracy`, `nll` and `brier` of `classification_metrics` are the means of, float64 [N] each."""
    log_probabilities = _log_probabilities(logits)
    classes = np.eye(logits.shape[1])
    return {
        "accuracy": (logits.argmax(axis=1) == labels).astype(np.float64),
        "nll": -log_probabilities[np.arange(len(labels)), labels],
        "brier": ((np.exp(log_probabilities) - classes[labels]) ** 2).sum(axis=1),
    }


def agreement(student_logits: NDArray[np.float32], teacher_logits: NDArray[np.float32]) -> dict[str, float]:
    """How far a student answers as its teacher does, in float64.

    Args:
        student_logits: float32 [N, C].
        teacher_logits: float32 [N, C], of the same rows and classes.

    Returns:
        `rate`, the share of rows on which both predict the same class; `kl`, the mean KL(teacher || student) in
        nats (Kullback and Leibler, On Information and Sufficiency, 1951).

    Raises:
        ValueError: shapes that do not fit, no rows, or logits that are not finite.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(f"the student's logits {student_logits.shape} and the teacher's {teacher_logits.shape} differ")
    student, teacher = _log_probabilities(student_logits), _log_probabilities(teacher_logits)
    divergence = (np.exp(teacher) * (teacher - student)).sum(axis=1).mean()
    return {
        "rate": float((student_logits.argmax(axis=1) == teacher_logits.argmax(axis=1)).mean()),
        "kl": max(float(divergence), 0.0),  # rounding can leave the zero of equal rows just below it
    }


def reliability_bins(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> list[tuple[float, float, int]]:
    """Mean confidence, share of right rows and number of rows, of each bin of `ece` that has rows."""
    probabilities = np.exp(_log_probabilities(logits))
    confidence, right = probabilities.max(axis=1), logits.argmax(axis=1) == labels
    bins = _bins(confidence)
    return [
        (float(confidence[here].mean()), float(right[here].mean()), int(here.sum()))
        for here in (bins == number for number in np.unique(bins))
    ]


def _log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    if logits.ndim != 2 or logits.size == 0:
        raise ValueError(f"logits must be [rows, classes] with at least one of each, not {logits.shape}")
    broken = len(logits) - int(np.isfinite(logits).all(axis=1).sum())
    if broken:
        raise ValueError(f"{broken:,} of {len(logits):,} rows of logits hold a NaN or an infinity")
    result: NDArray[np.float64] = log_softmax(logits.astype(np.float64), axis=1)
    return result


def _calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error (Guo et al., On Calibration of Modern Neural Networks, ICML 2017).

    The rows fall into 15 bins of equal width, closed on the right, by the probability of the predicted class. In
    each bin the share of right rows is compared with the mean confidence; the gaps are averaged, weighted by the
    bin's share of the rows.

    Args:
        confidence: float64 [N], probability of the predicted class.
        right: bool [N], whether it is the true one.
    """
    bins = _bins(confidence)
    # A bin's share times its gap is the absolute sum of (right - confidence) over its rows, divided by N.
    gaps = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(right))


def _bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    inner_edges = np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS
    bins: NDArray[np.int64] = np.searchsorted(inner_edges, confidence, side="left")
    return bins
