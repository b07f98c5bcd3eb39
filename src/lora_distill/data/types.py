"""What the data stage hands on: texts by row id."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNLABELLED = -1
LEARNED, JUDGED = ("train", "unlabelled"), ("validation", "test")  # splits that models learn from, and that they do not
PARTS = ("text", "text_pair")  # what a text's columns are called in files

# One text, or two that are judged together; of a data set all are of one kind.
Text = str | tuple[str, str]


def parts(text: Text) -> tuple[str, ...]:
    """The one text, or the two."""
    return (text,) if isinstance(text, str) else text


def as_columns(texts: Iterable[Text]) -> dict[str, list[str]]:
    """N texts, or the first and the second of N pairs, under their names in PARTS."""
    return dict(zip(PARTS, map(list, zip(*map(parts, texts), strict=True)), strict=False))


def from_columns(columns: Mapping[str, Sequence[str]]) -> list[Text]:
    """What `as_columns` was made of."""
    first, second = PARTS
    if second in columns:
        return list(zip(columns[first], columns[second], strict=True))
    return list(columns[first])


@dataclass(frozen=True)
class Rows:
    """The texts of one split, in the order of their ids.

    Attributes:
        ids: int64 [N], position in the split of the source that the row came from, counted from 0; it stays
            the same however other rows are dropped.
        texts: N texts, or pairs of them.
        labels: int64 [N], index into the data set's label names, or UNLABELLED.
    """

    ids: NDArray[np.int64]
    texts: Sequence[Text]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def followed_by(self, others: "Rows") -> "Rows":
        """These rows, and then those."""
        ids, labels = (np.concatenate([getattr(self, name), getattr(others, name)]) for name in ("ids", "labels"))
        return Rows(ids, [*self.texts, *others.texts], labels)

    def take(self, positions: NDArray[np.int64]) -> "Rows":
        """The rows at these positions (not ids), in this order."""
        return Rows(self.ids[positions], [self.texts[i] for i in positions], self.labels[positions])


@dataclass(frozen=True)
class Dataset:
    """A data set, split for training, model selection and the final test.

    Attributes:
        name: as the user gave it.
        train: rows to learn from.
        validation: rows to choose the epoch by.
        test: rows that are judged once, at the end.
        label_names: C names; the labels of all splits are indices into it.
        unlabelled: rows without labels, for the teacher to label; None where none were given.
        fingerprint: SHA-256 in hex over the label names and every split's ids, labels and texts.
        source: kind (hub, packaged, file or folder), location, revision (the hub's commit, the package's
            version or the SHA-256 of the bytes), and terms of use where they are known.
        unlabelled_source: the same of the rows without labels.
        notes: sentences on what was done to the rows.
        carved: splits that the source lacked, drawn from its train.
        is_sample: whether train lacks rows that there were, for the seed drew which are kept.
        unlabelled_is_sample: whether of the texts without labels some also stand among those rows, so that the seed
            decides which are left out.
    """

    name: str
    train: Rows
    validation: Rows
    test: Rows
    label_names: list[str]
    fingerprint: str
    source: dict[str, str]
    notes: list[str]
    unlabelled: Rows | None = None
    unlabelled_source: dict[str, str] | None = None
    carved: tuple[str, ...] = ()
    is_sample: bool = False
    unlabelled_is_sample: bool = False

    def splits(self) -> dict[str, Rows]:
        """The rows of each split that there is, by its name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return splits if self.unlabelled is None else splits | {"unlabelled": self.unlabelled}

    def drawn_by_seed(self) -> list[str]:
        """The splits of which another seed gives other rows."""
        is_carved = "validation" in self.carved  # what it takes, train lacks
        drawn = {
            "train": is_carved or self.is_sample,
            "validation": is_carved,
            "unlabelled": self.unlabelled_is_sample,
        }
        return [split for split, is_drawn in drawn.items() if is_drawn]
