"""How good a classifier's logits are: accuracy, F1, likelihood, calibration, and agreement with another's."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from lora_distill.evaluation.calibration import calibration_bins, calibration_error
from lora_distill.evaluation.selective import area_under_risk


def classification_metrics(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.int64], label_names: list[str]
) -> dict[str, Any]:
    """Judge logits against the true labels, in float64.

    Args:
        logits: float32 or float64 [N, C].
        labels: int64 [N], indices into the label names.
        label_names: C names, all different.

    Returns:
        Plain numbers and lists, fit for JSON:

        - `rows`: N.
        - `accuracy`, `macro_f1`: shares. Macro F1 is the mean over the classes that have rows or predictions, as
          scikit-learn's is.
        - `nll`: mean negative log-likelihood of the true class, in nats.
        - `ece`, `ece_equal_mass`: expected calibration error, 0 to 1, in 15 bins of equal width or of as many rows (see
          `calibration_error`).
        - `brier`: mean squared error of the probabilities, summed over the classes, 0 to 2 (Brier, Verification
          of Forecasts Expressed in Terms of Probability, 1950).
        - `aurc`: area under the risk-coverage curve, 0 to 1 (see `area_under_risk`).
        - `per_class`: `precision`, `recall`, `f1` and `support` (rows) by label name.
        - `confusion`: counts, C lists of C: a list for each true class, in it a count for each predicted one.

    Raises:
        ValueError: shapes that do not fit, no rows, or logits that are not finite.
    """
    log_probabilities = _log_probabilities(logits)
    rows, classes = logits.shape
    if labels.shape != (rows,) or len(label_names) != classes:
        raise ValueError(f"logits {logits.shape}, labels {labels.shape} and {len(label_names)} names do not fit")
    scores = scores_by_row(logits, labels)
    confidence, right = np.exp(log_probabilities.max(axis=1)), scores["accuracy"] == 1
    confusion = np.bincount(labels * classes + logits.argmax(axis=1), minlength=classes**2).reshape(classes, classes)
    return {
        "rows": rows,
        **{name: float(each.mean()) for name, each in scores.items()},
        "macro_f1": macro_f1(confusion),
        "ece": calibration_error(confidence, right),
        "ece_equal_mass": calibration_error(confidence, right, calibration_bins(confidence, "mass")),
        "aurc": area_under_risk(logits, labels),
        "per_class": {name: _of_class(confusion, index) for index, name in enumerate(label_names)},
        "confusion": confusion.tolist(),
    }


def _of_class(confusion: NDArray[np.int64], index: int) -> dict[str, float | int]:
    """What is said of one class; a share of no rows is 0."""
    right, answered, true = (
        int(cells.sum()) for cells in (confusion[index, index], confusion[:, index], confusion[index])
    )
    return {
        "precision": right / answered if answered else 0.0,
        "recall": right / true if true else 0.0,
        "f1": 2 * right / (answered + true) if answered + true else 0.0,
        "support": true,
    }


def macro_f1(confusion: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that have rows or predictions, of counts [C, C], true classes first."""
    predicted_or_true = confusion.sum(axis=0) + confusion.sum(axis=1)
    present = predicted_or_true > 0
    return float((2 * np.diag(confusion)[present] / predicted_or_true[present]).mean())


def temperature_scaling(
    logits: NDArray[np.float32], labels: NDArray[np.int64], label_names: list[str], temperature: float
) -> dict[str, float]:
    """What dividing the logits by a temperature would give: how sure it is changes, its answers do not.

    Args:
        logits: float32 [N, C].
        labels: int64 [N].
        label_names: C names.
        temperature: fitted on other rows (`fit_temperature`).

    Returns:
        `temperature`, and `nll`, `brier`, `ece` and `ece_equal_mass` after it.
    """
    scaled = classification_metrics(logits.astype(np.float64) / temperature, labels, label_names)
    return {"temperature": temperature} | {name: scaled[name] for name in ("nll", "brier", "ece", "ece_equal_mass")}


def scores_by_row(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
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


def _log_probabilities(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    if logits.ndim != 2 or logits.size == 0:
        raise ValueError(f"logits must be [rows, classes] with at least one of each, not {logits.shape}")
    broken = len(logits) - int(np.isfinite(logits).all(axis=1).sum())
    if broken:
        raise ValueError(f"{broken:,} of {len(logits):,} rows of logits hold a NaN or an infinity")
    result: NDArray[np.float64] = log_softmax(logits.astype(np.float64), axis=1)
    return result
