"""Label names: which there are, in which order, and the index of each."""

import re
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from lora_distill.data.tables import Table
from lora_distill.data.wording import counted, listing
from lora_distill.errors import UserError

_MOST_CLASSES = 1000


def name_labels(train: Table) -> list[str]:
    """The different labels: in the order of their numbers if all are integers, else of the alphabet.

    Raises:
        UserError: there is one class only, or so many that the column can hold no classes.
    """
    names = sorted(set(train.labels))
    if len(names) == 1:
        raise UserError(f"{train.where}: every row has the label {names[0]!r}; a classifier needs two classes or more.")
    if len(names) > _MOST_CLASSES or (len(names) > 20 and len(names) > len(train.labels) / 2):
        raise UserError(
            f"{train.where}: {len(names):,} different labels in {len(train.labels):,} rows; that looks like "
            f"free text or numbers, not classes.\nName the right column with --label_column."
        )
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in names):
        names.sort(key=int)
    return names


def alike_labels(label_names: list[str]) -> list[str]:
    """A sentence on the names that differ by case only; none where there are none."""
    count = Counter(map(str.casefold, label_names))
    found = [name for name in label_names if count[name.casefold()] > 1]
    return [f"labels: {listing(found)} differ by case only and are different classes"] if found else []


def alike(name: str, label_names: list[str]) -> list[str]:
    """The other names that differ from this one by case only."""
    return [other for other in label_names if other != name and other.casefold() == name.casefold()]


def map_labels(labels: list[str], label_names: list[str], where: str) -> NDArray[np.int64]:
    """The index of each label in the label names, int64 [N]; case counts where two names differ by it only.

    Raises:
        UserError: labels that are not among the names.
    """
    exact = {name: position for position, name in enumerate(label_names)}
    count = Counter(map(str.casefold, label_names))
    folded = {name.casefold(): position for name, position in exact.items() if count[name.casefold()] == 1}
    index = {label: exact.get(label, folded.get(label.casefold())) for label in set(labels)}
    unknown = Counter(label for label in labels if index[label] is None)
    if unknown:
        raise UserError(
            f"{where}: {counted(sum(unknown.values()), 'row')} with labels that were not trained on: "
            f"{listing(sorted(unknown), 5)}.\nKnown labels: {listing(label_names)}."
        )
    return np.array([index[label] for label in labels], dtype=np.int64)
