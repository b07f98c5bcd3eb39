"""How far the figures of one model would differ on other rows of the same kind."""

import numpy as np
from numpy.typing import NDArray

from lora_distill.evaluation.calibration import CALIBRATION_BINS, calibration_bins, confidence_of
from lora_distill.evaluation.metrics import macro_f1, scores_by_row

RESAMPLES = 1000
ROUNDING = 1e-12  # by which sums of the same numbers differ


def bootstrap_intervals(
    logits: NDArray[np.float32], labels: NDArray[np.int64], draw: np.random.Generator, confidence: float = 0.95
) -> dict[str, list[float]]:
    """Intervals of `macro_f1`, `nll`, `brier`, `ece` and `ece_equal_mass` of one model, over its test rows.

    Rows are drawn with replacement, 1,000 times. With x for a figure and q for quantiles over the draws, the interval
    is 2x - q(97.5%) to 2x - q(2.5%), the basic bootstrap (Davison and Hinkley, Bootstrap Methods and Their
    Application, 1997, section 5.2), kept within what the figure can be.

    A calibration error is a sum of absolute gaps, which chance makes larger than it is, most where it is 0, and there
    no bootstrap of the sum itself can be trusted. Its lower end is therefore x minus the 97.5% quantile of the sum of
    |gap drawn - gap|: by the triangle inequality the sum is never further off than that. Its upper end is x plus what
    the 2.5% quantile of the sums drawn is below their mean. Both are cautious; the bins stay those of the rows as they
    are.

    It speaks of this model; what training with another seed would give it cannot know. A figure that is the same in
    every draw, such as the macro F1 of rows that are all right, has none: nothing shows how far it would differ.

    Args:
        logits: float32 [N, C].
        labels: int64 [N].
        draw: of the rows.
        confidence: of the intervals, between 0 and 1.

    Returns:
        `[low, high]` by figure, in its unit; of those that differ between draws.
    """
    rows, classes = logits.shape
    answers, sure = logits.argmax(axis=1), confidence_of(logits)
    excess, scores = ((answers == labels) - sure) / rows, scores_by_row(logits, labels)
    bins = {"ece": calibration_bins(sure), "ece_equal_mass": calibration_bins(sure, "mass")}

    def measure(drawn: NDArray[np.int64]) -> list[NDArray[np.float64]]:
        cells = np.bincount(labels[drawn] * classes + answers[drawn], minlength=classes**2)
        figures = [
            macro_f1(cells.reshape(classes, classes)),
            scores["nll"][drawn].mean(),
            scores["brier"][drawn].mean(),
        ]
        gaps = (np.bincount(each[drawn], excess[drawn], CALIBRATION_BINS) for each in bins.values())
        return [np.array(figures), *gaps]

    found = measure(np.arange(rows))
    measured = [measure(np.asarray(draw.integers(rows, size=rows))) for _ in range(RESAMPLES)]
    figures, *gaps = (np.stack(each) for each in zip(*measured, strict=True))

    tails = (1 - confidence) / 2, (1 + confidence) / 2
    lowest, highest = np.quantile(figures, tails, axis=0)
    ends = np.clip([2 * found[0] - highest, 2 * found[0] - lowest], 0, [1.0, np.inf, 2.0])
    intervals = {
        name: ends[:, place].tolist()
        for place, name in enumerate(("macro_f1", "nll", "brier"))
        if np.ptp(figures[:, place]) > ROUNDING
    }
    for name, gap, drawn in zip(bins, found[1:], gaps, strict=True):
        error, errors = np.abs(gap).sum(), np.abs(drawn).sum(axis=1)
        if np.ptp(errors) <= ROUNDING:
            continue
        off = np.quantile(np.abs(drawn - gap).sum(axis=1), tails[1])
        below = errors.mean() - np.quantile(errors, tails[0])
        intervals[name] = [float(max(error - off, 0.0)), float(min(error + below, 1.0))]
    return intervals
