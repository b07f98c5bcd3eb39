"""Which rows belong together, and which are worth a look."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lora_distill.data.types import Text, parts

LENGTH_GROUPS = 5


def length_groups(texts: Sequence[Text]) -> list[tuple[int, int, NDArray[np.bool_]]]:
    """Fewest and most words of a text, and bool [N] which rows, of up to five groups of about as many rows.

    Words are what white space parts; of a pair, those of both texts. Texts of one length stay together, so there may be
    fewer groups.

    Args:
        texts: N, one at least.
    """
    words = np.array([sum(len(part.split()) for part in parts(text)) for text in texts])
    edges = np.quantile(words, np.arange(1, LENGTH_GROUPS) / LENGTH_GROUPS, method="inverted_cdf")
    group = np.searchsorted(edges, words, side="left")
    chosen = (group == number for number in np.unique(group))
    return [(int(words[here].min()), int(words[here].max()), here) for here in chosen]


def doubtful_labels(models: Sequence[NDArray[np.float32]], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows that all models put into the same other class, each at least as surely as it knows rows of that class.

    How surely a model knows a class is the mean probability that it gives the class on the rows labelled so, as in
    confident learning (Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels,
    JAIR 70, 2021).

    Args:
        models: float32 logits [N, C] of each.
        labels: int64 [N].

    Returns:
        bool [N].
    """
    answer = models[0].argmax(axis=1)
    doubtful: NDArray[np.bool_] = answer != labels
    for logits in models:
        probabilities = softmax(logits.astype(np.float64), axis=1)
        known = np.full(logits.shape[1], np.inf)
        for label in np.unique(labels):
            known[label] = probabilities[labels == label, label].mean()
        doubtful &= (logits.argmax(axis=1) == answer) & (probabilities.max(axis=1) >= known[answer])
    return doubtful
