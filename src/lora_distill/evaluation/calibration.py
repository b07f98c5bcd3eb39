"""Whether a classifier is as often right as it says: calibration error, and one temperature that mends it."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

CALIBRATION_BINS = 15
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0
Binning = Literal["width", "mass"]


def confidence_of(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probability of the predicted class, float64 [N], of logits [N, C]."""
    confidence: NDArray[np.float64] = np.exp(log_softmax(logits.astype(np.float64), axis=1).max(axis=1))
    return confidence


def calibration_bins(confidence: NDArray[np.float64], binning: Binning = "width") -> NDArray[np.int64]:
    """The bin of each row, int64 [N] from 0 to 14; every bin is closed on the right.

    Args:
        confidence: float64 [N], probability of the predicted class.
        binning: "width": 15 bins of equal width. "mass": 15 bins of as many rows each as can be without parting rows of
            one confidence, which would let their order decide (Nguyen and O'Connor, Posterior Calibration and
            Exploratory Analysis for Natural Language Processing Models, EMNLP 2015).
    """
    inner_edges = np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS
    if binning == "mass":
        inner_edges = np.quantile(confidence, inner_edges, method="inverted_cdf")
    bins: NDArray[np.int64] = np.searchsorted(inner_edges, confidence, side="left")
    return bins


def calibration_error(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: NDArray[np.int64] | None = None
) -> float:
    """Expected calibration error (Guo et al., On Calibration of Modern Neural Networks, ICML 2017), 0 to 1.

    In each bin the share of right rows is compared with the mean confidence; the gaps are averaged, weighted by the
    bin's share of the rows. Chance alone makes it larger than 0, and more so the fewer rows there are; with bins of
    equal mass less so (Roelofs et al., Mitigating Bias in Calibration Error Estimation, AISTATS 2022).

    Args:
        confidence: float64 [N], probability of the predicted class.
        right: bool [N], whether it is the true one.
        bins: int64 [N], of each row; of equal width, if None.
    """
    bins = calibration_bins(confidence) if bins is None else bins
    # A bin's share times its gap is the absolute sum of (right - confidence) over its rows, divided by N.
    gaps = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(right))


def reliability_bins(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> list[tuple[float, float, int]]:
    """Mean confidence, share of right rows and number of rows, of each bin of equal width that has rows."""
    confidence, right = confidence_of(logits), logits.argmax(axis=1) == labels
    bins = calibration_bins(confidence)
    return [
        (float(confidence[here].mean()), float(right[here].mean()), int(here.sum()))
        for here in (bins == number for number in np.unique(bins))
    ]


def mean_nll(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> float:
    """The mean negative log-likelihood of labels, int64 [N], by logits [N, C], in nats."""
    rows = np.arange(len(labels))
    return float(-log_softmax(logits.astype(np.float64), axis=1)[rows, labels].mean())


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature T by which logits are divided so that the labels are likeliest (Guo et al. 2017).

    It changes no answer, only how sure they are. To a row's own label, N parts, one part is added that is spread over
    the classes evenly, as Platt does for two ("Probabilistic Outputs for Support Vector Machines", 1999): few rows that
    are all right do not say that all others will be, where by themselves they would drive T to 0. The loss is convex in
    1/T; T is looked for between 0.05 and 20, where logits that are oftener wrong than right would drive it without end.

    Args:
        logits: float32 [N, C], of rows that nothing else is measured on.
        labels: int64 [N].
    """
    exact, (rows, classes) = logits.astype(np.float64), logits.shape
    targets = (rows * np.eye(classes)[labels] + 1 / classes) / (rows + 1)

    def loss(inverse: float) -> float:
        return float(-(targets * log_softmax(exact * inverse, axis=1)).sum(axis=1).mean())

    found = minimize_scalar(
        loss, bounds=(1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE), method="bounded", options={"xatol": 1e-7}
    )
    return float(1 / found.x)


def calibrated_nll(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The mean negative log-likelihood at the temperature that fits best, in nats; the arguments as there.

    What is left of it once a classifier is as sure as it is right: so those of different confidence can be compared.
    """
    return mean_nll(logits / fit_temperature(logits, labels), labels)
