"""Stratified, seeded draws, and what keeps a text from standing in two splits."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lora_distill.data.labels import alike
from lora_distill.data.types import Rows, Text, parts
from lora_distill.data.wording import listing
from lora_distill.errors import UserError
from lora_distill.seeding import generator

# Seeds are compared on one test split, so the draw of its rows must not depend on the run's seed.
_TEST_SEED = 0

# With fewer rows, validation can hardly tell one epoch from the next.
_FEWEST_VALIDATION_ROWS = 50


def draw_stratified(
    labels: NDArray[np.int64], size: int, rng: np.random.Generator, *, leave: int = 0
) -> NDArray[np.int64]:
    """Draw rows so that the classes keep their shares, as nearly as whole rows allow.

    Unlike scikit-learn's splitter this takes at least one row of every class, however rare.

    Args:
        labels: int64 [N].
        size: rows to draw; raised to the number of classes and lowered to what `leave` allows.
        rng: what draws.
        leave: rows of every class that are not drawn; every class needs more of them.

    Returns:
        int64 [size], positions in rising order.
    """
    counts = np.bincount(labels)
    most = np.maximum(counts - leave, 0)
    size = min(max(size, int(np.count_nonzero(counts))), int(most.sum()))
    share = counts * (size / len(labels))
    taken = np.clip(np.floor(share).astype(np.int64), np.minimum(1, most), most)
    while (missing := size - int(taken.sum())) > 0:
        taken[np.argmax(np.where(taken < most, share - taken, -np.inf))] += 1
    for _ in range(-missing):
        taken[np.argmin(np.where(taken > 1, share - taken, np.inf))] -= 1
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rank_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[rank_in_class < np.repeat(taken, counts)])


def carve_test(rows: Rows, fraction: float, *, leave: int) -> tuple[Rows, Rows]:
    """Training and test rows; the test rows are the same whatever the run's seed."""
    return _carve(rows, fraction, generator(_TEST_SEED, "test split"), leave)


def carve_validation(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Training and validation rows."""
    return _carve(rows, fraction, generator(seed, "validation split"), leave=1)


def _carve(rows: Rows, fraction: float, rng: np.random.Generator, leave: int) -> tuple[Rows, Rows]:
    drawn = draw_stratified(rows.labels, round(len(rows) * fraction), rng, leave=leave)
    return rows.take(np.setdiff1d(np.arange(len(rows)), drawn)), rows.take(drawn)


def require_rows(labels: NDArray[np.int64], splits: list[str], label_names: list[str], where: str) -> None:
    """Raise a UserError where a class has fewer rows than there are splits to be made of them."""
    counts = np.bincount(labels, minlength=len(label_names))
    rarest = int(np.argmin(counts))
    if counts[rarest] < len(splits):
        ways = "Add rows of this class or leave it out."
        if others := alike(label_names[rarest], label_names):
            ways = (
                f"{listing(others)} differs from it by case only. If they are one class, write it one way in all rows."
            )
        raise UserError(
            f"{where}: too few rows of class {label_names[rarest]!r}: {counts[rarest]} where {len(splits)} are "
            f"needed, one each for {', '.join(splits)}.\n{ways}"
        )


def drop_shared(rows: Rows, *kept: Rows) -> tuple[Rows, int]:
    """The rows whose text stands in no split of `kept`, and how many do; white space does not count."""
    fresh = np.flatnonzero(~stand_in(rows.texts, *kept))
    return rows.take(fresh), len(rows) - len(fresh)


def stand_in(texts: Sequence[Text], *splits: Rows) -> NDArray[np.bool_]:
    """Whether each text stands in one of the splits, bool [N]; white space does not count."""
    taken = {collapse(text) for rows in splits for text in rows.texts}
    return np.array([collapse(text) in taken for text in texts], dtype=np.bool_)


def limit_each_class(train: Rows, size: int, seed: int) -> Rows:
    """A draw of so many training rows of each class, which must have them."""
    shuffled = generator(seed, "train rows").permutation(len(train))
    drawn = [shuffled[train.labels[shuffled] == label][:size] for label in np.unique(train.labels)]
    return train.take(np.sort(np.concatenate(drawn)))


def limit_train(train: Rows, size: int, seed: int) -> Rows:
    """A stratified draw of the training rows."""
    return train.take(draw_stratified(train.labels, size, generator(seed, "train rows")))


def limit_validation(validation: Rows, train_rows: int, fraction: float, seed: int) -> Rows:
    """A stratified draw that keeps a carved validation split in proportion to fewer training rows.

    Args:
        validation: the split as it was carved.
        train_rows: training rows that are left.
        fraction: validation's share of train and validation together.
        seed: the run's.
    """
    size = max(_FEWEST_VALIDATION_ROWS, round(train_rows * fraction / (1 - fraction)))
    if size >= len(validation):
        return validation
    return validation.take(draw_stratified(validation.labels, size, generator(seed, "validation rows")))


def draw_folds(train: Rows, folds: int, seed: int, label_names: list[str]) -> list[NDArray[np.int64]]:
    """Parts of the training rows, stratified, and rows of one text in one of them; white space does not count.

    Args:
        train: the rows.
        folds: how many.
        seed: the run's.
        label_names: for messages.

    Returns:
        Positions of each part, int64, in rising order; each position is in one part.

    Raises:
        UserError: there are fewer texts than folds, or without a part there is no row of some class.
    """
    numbers: dict[tuple[str, ...], int] = {}
    text = np.array([numbers.setdefault(collapse(each), len(numbers)) for each in train.texts])
    if len(numbers) < folds:
        raise UserError(f"--teacher_folds {folds}: there are {len(numbers)} different training texts. Ask for fewer.")
    label_of_text = train.labels[np.unique(text, return_index=True)[1]]
    shuffled = generator(seed, "teacher folds").permutation(len(numbers))
    dealt = np.empty(len(numbers), dtype=np.int64)
    dealt[shuffled[np.argsort(label_of_text[shuffled], kind="stable")]] = np.arange(len(numbers)) % folds
    dealt_rows = [np.flatnonzero(dealt[text] == fold) for fold in range(folds)]
    for part in dealt_rows:
        left = np.bincount(np.delete(train.labels, part), minlength=len(label_names))
        if not left.all():
            lost = label_names[int(left.argmin())]
            raise UserError(
                f"--teacher_fit crossfit: one fold holds all rows of {lost!r}, and its teacher would not know it."
                "\nAdd rows of this class, or leave it at whole."
            )
    return dealt_rows


def count_repeats(rows: Rows) -> tuple[int, int]:
    """How many rows repeat an earlier text, and how many texts stand with different labels."""
    texts = list(map(collapse, rows.texts))
    labels_of_text = Counter(text for text, _ in set(zip(texts, rows.labels.tolist(), strict=True)))
    return len(texts) - len(labels_of_text), sum(count > 1 for count in labels_of_text.values())


def collapse(text: Text) -> tuple[str, ...]:
    """A text as it is compared with others: of each part its words, a space between two."""
    return tuple(" ".join(part.split()) for part in parts(text))
