"""A teacher that is a file: what a language model, an API or an annotator answered, by text."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from lora_distill.data.files import Columns, Raw, read_raw
from lora_distill.data.labels import map_labels
from lora_distill.data.splits import collapse
from lora_distill.data.tables import check_table
from lora_distill.data.types import JUDGED, LEARNED, Dataset, Text
from lora_distill.data.wording import counted, listing
from lora_distill.errors import UserError
from lora_distill.home import expanded

LABEL_CONFIDENCE = 0.9  # of an answer that is a label only: as labels are smoothed by a tenth
LEAST_PROBABILITY = 1e-6  # of a class that was answered with 0: a divergence from that would have no end
SUM_TOLERANCE = 0.02  # for probabilities that were rounded to two digits
# What stands before a label in a column's name, and says what its numbers are. `predict` writes probabilities, and what
# its --prefix is before that.
SAYING = {"probability_": "probabilities", "logit_": "logits"}
LABEL_COLUMN = "prediction"  # looked for before the data's own


@dataclass(frozen=True)
class Answers:
    """A file's answers to the rows of a data set.

    Attributes:
        location: as the user gave it.
        revision: SHA-256 of the file's bytes.
        logits: float32 [N, C] of each split in the rows' order: of train and unlabelled always, of validation where all
            its rows have answers, of test where those of both have.
        notes: sentences on how the file was read.
    """

    location: str
    revision: str
    logits: dict[str, NDArray[np.float32]]
    notes: list[str]

    @property
    def fingerprint(self) -> str:
        """Of the answers, in whatever order and format they were given."""
        digest = hashlib.sha256()
        for split, logits in sorted(self.logits.items()):
            digest.update(f"{split} {logits.shape}".encode() + logits.tobytes())
        return digest.hexdigest()


def read_answers(
    location: str,
    dataset: Dataset,
    *,
    text_column: str,
    label_column: str,
    label_map: Mapping[str, str],
    text_pair_column: str | None = None,
) -> Answers:
    """Read a file of answers and find those to a data set's rows, by text; white space does not count.

    It has a column of texts, and either a column for each label, named as the label (or `probability_` or `logit_` and
    the label, after any prefix) and holding its probability or its logit, or a column `prediction` (else one named as
    the data's labels are) of labels.

    Args:
        location: a CSV, TSV, JSONL or Parquet file.
        dataset: whose rows it answers; other rows of the file are of no account.
        text_column: column of the texts.
        label_column: column of the labels.
        label_map: the file's names of labels for the data's, where they differ.
        text_pair_column: column of the second texts, if the rows are pairs.

    Raises:
        UserError: it cannot be read, answers a row of train or unlabelled not at all or a text in two ways, or holds
            numbers that are neither probabilities nor logits.
    """
    names = dataset.label_names
    if unknown := [name for name in label_map.values() if name not in names]:
        raise UserError(f"--teacher_label_map: {listing(unknown)} is no label of the data. Those are {listing(names)}.")
    raw = read_raw(expanded(location, f"--teacher_predictions {location}"), None)
    texts = _texts(location, raw, Columns(text_column, None, text_pair_column))
    if columns := _class_columns(location, raw, names, label_map):
        kind, logits = _numbers_to_logits(location, raw, *columns)
    else:
        column = _label_column(location, raw, label_column)
        values = Raw({"text": raw.values[text_column], "label": raw.values[column]}, raw.places, raw.unit)
        labels = check_table(location, values, Columns(text_column, column)).labels
        given = map_labels([label_map.get(label, label) for label in labels], names, location)
        kind = f"labels in column {column!r}, each taken to be {LABEL_CONFIDENCE:.0%} sure"
        logits = _labels_to_logits(given, len(names))
    rows = _rows_by_text(location, raw, texts, logits)
    found, notes = _fit(location, rows, dataset)
    fitted = {split: np.ascontiguousarray(logits[places], dtype=np.float32) for split, places in found.items()}
    if not columns and (fitted["train"].argmax(axis=1) == dataset.train.labels).all():
        notes.append(f"what {location} answers are the data's own labels, all of them: a teacher that adds nothing")
    return Answers(location, raw.revision, fitted, [f"answers: {location} holds {kind}", *notes])


def _texts(where: str, raw: Raw, columns: Columns) -> Sequence[Text]:
    for kind, column in columns.wanted().items():
        if column not in raw.values:
            raise UserError(
                f"{where}: no column {column!r}; the columns are {listing(raw.values)}.\n"
                f"Call the column of the texts as it is called in the data: see --{kind}_column."
            )
    values = {kind: raw.values[column] for kind, column in columns.wanted().items()}
    return check_table(where, Raw(values, raw.places, raw.unit), columns).texts


def _class_columns(
    where: str, raw: Raw, label_names: list[str], label_map: Mapping[str, str]
) -> tuple[str, list[str]] | None:
    """What the numbers are said to be, if it is said, and the column of each label, in their order; None without any.

    Raises:
        UserError: some labels have one, others not, or labels that the data do not have have one.
    """
    ways: tuple[Callable[[str], str], ...] = (str, str.casefold)
    some: dict[str, str] = {}
    for (prefix, kind), fold in itertools.product(_prefixes(raw.values), ways):
        theirs = {name.removeprefix(prefix): name for name in raw.values if name.startswith(prefix)}
        named = {fold(label_map.get(label, label)): name for label, name in theirs.items()}
        found = {label: named[fold(label)] for label in label_names if fold(label) in named}
        if len(set(found.values())) == len(label_names):
            if prefix and (unknown := [name for name in named.values() if name not in found.values()]):
                raise UserError(
                    f"{where}: columns for labels that the data do not have: {listing(unknown)}. Those of the data are"
                    f" {listing(label_names)}.\nLeave these columns out, and where they hold probabilities let the"
                    " others sum to 1; or say with --teacher_label_map theirs=ours,… which label each stands for."
                )
            return kind, [found[label] for label in label_names]
        some = some or found
    if some and LABEL_COLUMN not in raw.values:
        missing = [label for label in label_names if label not in some]
        raise UserError(
            f"{where}: has columns for the labels {listing(some)}, but none for {listing(missing)}.\n"
            "Add them, or say with --teacher_label_map theirs=ours,… how they are called there."
        )
    return None


def _prefixes(columns: Iterable[str]) -> list[tuple[str, str]]:
    """What may stand before labels in the names of columns, and what it says of their numbers; the shortest first."""
    found = {
        name[: name.index(saying) + len(saying)]: kind
        for saying, kind in SAYING.items()
        for name in columns
        if saying in name
    }
    return [*sorted(found.items(), key=lambda each: len(each[0])), ("", "")]


def _label_column(where: str, raw: Raw, label_column: str) -> str:
    column = next((name for name in (LABEL_COLUMN, label_column) if name in raw.values), None)
    if column is None:
        raise UserError(
            f"{where}: holds no answers: the columns are {listing(raw.values)}.\nGive it a column for each label, named"
            f" as the label, with probabilities or logits; or one called {LABEL_COLUMN!r} with labels."
        )
    return column


def _numbers_to_logits(where: str, raw: Raw, said: str, columns: list[str]) -> tuple[str, NDArray[np.float64]]:
    """What the numbers are, and the logits that they give, float64 [M, C].

    Where it is not said, they are probabilities if those of most rows could be: then those of all must be.
    """
    numbers = np.stack([_column(where, raw, name) for name in columns], axis=1)
    _refuse(
        where, raw, np.asarray(~np.isfinite(numbers).all(axis=1)), "with numbers that are not finite (NaN or infinity)"
    )
    sums, is_share = numbers.sum(axis=1), ((numbers >= 0) & (numbers <= 1)).all(axis=1)
    is_probability = is_share & (np.abs(sums - 1) <= SUM_TOLERANCE)
    if said == "logits":
        return said, numbers
    if said or is_probability.mean() > 0.5 or is_share.all():
        wrong = "whose numbers are no probabilities, which lie between 0 and 1 and sum to 1"
        _refuse(where, raw, ~is_probability, wrong)
        return "probabilities", np.log(np.maximum(numbers / sums[:, None], LEAST_PROBABILITY))
    is_percentage = (numbers >= 0).all(axis=1) & (np.abs(sums - 100) <= 100 * SUM_TOLERANCE)
    if is_percentage.mean() > 0.5:
        _refuse(where, raw, is_percentage, "whose numbers sum to 100. Probabilities lie between 0 and 1: divide by 100")
    return "logits", numbers


def _column(where: str, raw: Raw, name: str) -> NDArray[np.float64]:
    numbers = []
    for value, place in zip(raw.values[name], raw.places, strict=True):
        try:
            if isinstance(value, bool) or not isinstance(value, str | float | int | Decimal):
                raise ValueError
            numbers.append(float(value))
        except (ValueError, OverflowError):
            raise UserError(
                f"{where}, {raw.unit} {place}: {str(value)[:40]!r} in column {name!r} is no number.\nThe columns that"
                " are named as labels hold probabilities or logits."
            ) from None
    return np.array(numbers)


def _refuse(where: str, raw: Raw, is_wrong: NDArray[np.bool_], what: str) -> None:
    places = [str(raw.places[row]) for row in np.flatnonzero(is_wrong).tolist()]
    if places:
        lines = ", ".join(places[:5]) + (f" and {len(places) - 5} more" if len(places) > 5 else "")
        raise UserError(f"{where}: {counted(len(places), 'row')} {what}: {raw.unit} {lines}.")


def _labels_to_logits(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Float64 [M, C]: the label as sure as LABEL_CONFIDENCE, the rest alike."""
    others = (1 - LABEL_CONFIDENCE) / (classes - 1)
    smoothed: NDArray[np.float64] = np.log(np.where(np.eye(classes)[labels] > 0, LABEL_CONFIDENCE, others))
    return smoothed


def _rows_by_text(
    where: str, raw: Raw, texts: Sequence[Text], logits: NDArray[np.float64]
) -> dict[tuple[str, ...], int]:
    """The row of each text, the first where it comes again with the same answer."""
    rows: dict[tuple[str, ...], int] = {}
    contradicts = np.zeros(len(texts), dtype=np.bool_)
    for row, text in enumerate(map(collapse, texts)):
        first = rows.setdefault(text, row)
        contradicts[row] = first != row and not np.allclose(logits[first], logits[row], rtol=0, atol=1e-6)
    _refuse(where, raw, contradicts, "with the text of an earlier row and another answer")
    return rows


def _fit(
    where: str, rows: dict[tuple[str, ...], int], dataset: Dataset
) -> tuple[dict[str, NDArray[np.int64]], list[str]]:
    """The file's row for each row of each split that it answers, and what is to be said of the others."""
    splits = dataset.splits()
    missing = {split: [text for text in each.texts if collapse(text) not in rows] for split, each in splits.items()}
    learned = [split for split in LEARNED if split in splits]
    lacking = [split for split in learned if missing[split]]
    if lacking:
        said = " and ".join(f"{len(missing[split]):,} of {len(splits[split]):,} rows of {split}" for split in lacking)
        raise UserError(
            f"{where}: has no answer to {said}, such as {listing([' / '.join(collapse(missing[lacking[0]][0]))])}.\n"
            "Add them: each text that a student learns from needs one."
        )
    # Without validation nothing can be said of a temperature, and so of a teacher.
    judged = [split for split in JUDGED if not any(missing[each] for each in ("validation", split))]
    notes = []
    if len(judged) < 2:
        said = " and ".join(
            f"{len(splits[split]) - len(missing[split]):,} of {len(splits[split]):,} rows of {split}"
            for split in JUDGED
        )
        notes.append(f"answers: to {said}; a teacher that has not answered all of both is not judged")
    taken = {
        split: np.array([rows[collapse(text)] for text in splits[split].texts], dtype=np.int64)
        for split in [*learned, *judged]
    }
    return taken, notes
