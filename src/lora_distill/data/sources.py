"""A data set by its name: read, split without a text in two splits, and described."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lora_distill.data.catalogue import Source, Split, open_source
from lora_distill.data.files import Columns
from lora_distill.data.labels import alike_labels, map_labels, name_labels
from lora_distill.data.splits import (
    carve_test,
    carve_validation,
    count_repeats,
    drop_shared,
    limit_each_class,
    limit_train,
    limit_validation,
    require_rows,
    stand_in,
)
from lora_distill.data.tables import Table
from lora_distill.data.types import JUDGED, UNLABELLED, Dataset, Rows, Text
from lora_distill.data.wording import counted
from lora_distill.errors import UserError, about
from lora_distill.remembering import once


def load_dataset(
    name: str,
    *,
    text_column: str,
    label_column: str,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
    max_train_rows: int | None = None,
    labels_per_class: int | None = None,
    unlabelled: str | None = None,
    text_pair_column: str | None = None,
) -> Dataset:
    """Read a data set and split it.

    Splits that the source lacks are carved from train: the test rows by a fixed seed, so that runs with other
    seeds are judged on the same rows, the validation rows by this one. Then a text that stands in test is
    dropped from train and validation, and one that stands in validation from train; from the unlabelled texts one that
    stands in any of the three.

    Args:
        name: `bbc_news`, `ag_news`, a file, a folder with train.* in it, or a hub name.
        text_column: column of the texts.
        label_column: column of the labels.
        seed: of the validation split and of the training rows that are kept.
        validation_fraction: share of train for validation, where the source has none.
        test_fraction: share of all rows for the test, where the source has none.
        max_train_rows: keep this many training rows, drawn stratified, and of a carved validation split a part
            in proportion.
        labels_per_class: keep this many training rows of each class, and of validation as above; instead of
            `max_train_rows`.
        unlabelled: texts without labels, named as the data are; of a source with splits its train.
        text_pair_column: column of a second text; what is said here of texts then holds for pairs of them.

    Raises:
        UserError: the data cannot be read, or cannot be split.
    """
    columns = Columns(text_column, label_column, text_pair_column)
    with about("dataset"):
        source = once(("source", name, *columns), lambda: open_source(name, columns))
        label_names = _label_names(source)
        splits: dict[str, Rows] = {split: _index(table, label_names) for split, table in source.tables.items()}
        carved = tuple(split for split in JUDGED if split not in splits)
        where = source.train().where
        notes = source.notes + alike_labels(label_names) + _carve_test(splits, test_fraction, label_names, where)
        if len(splits["test"]) < 2:  # one that is carved has a row of each class
            where = source.tables["test"].where
            raise UserError(f"{where}: a single row. Models are compared on two or more: add some.")
        if "validation" in carved:
            notes += _carve_validation(splits, validation_fraction, seed)
        notes += _drop_shared(splits, label_names, where)
    drawn_from = [splits[split] for split in ("train", *carved) if split != "test"]
    available = len(splits["train"])
    notes += _limit(splits, max_train_rows, labels_per_class, seed, label_names)
    is_sample = len(splits["train"]) < available
    if "validation" in carved and is_sample:
        notes += _limit_validation(splits, validation_fraction, seed)
    notes += _describe_repeats(splits["train"])
    unlabelled_source, unlabelled_is_sample = None, False
    if unlabelled is not None:
        with about("unlabelled"):
            unlabelled_source, texts, found = _add_unlabelled(splits, unlabelled, columns._replace(label=None))
        notes += found
        unlabelled_is_sample = is_sample and bool(stand_in(texts, *drawn_from).any())
    return Dataset(
        name=name,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        label_names=label_names,
        fingerprint=_fingerprint(label_names, splits),
        source=source.origin,
        notes=notes,
        unlabelled=splits.get("unlabelled"),
        unlabelled_source=unlabelled_source,
        carved=carved,
        is_sample=is_sample,
        unlabelled_is_sample=unlabelled_is_sample,
    )


class Labelled(NamedTuple):
    """Labelled texts to judge a finished model on.

    Attributes:
        texts: N texts, or pairs of them.
        labels: N labels as strings, in the data's own names; `labels.map_labels` turns them into indices.
        source: as in Dataset, and under `rows` which rows they are.
    """

    texts: Sequence[Text]
    labels: list[str]
    source: dict[str, str]


def read_labelled(
    name: str,
    *,
    text_column: str,
    label_column: str,
    test_fraction: float = 0.2,
    text_pair_column: str | None = None,
) -> Labelled:
    """All rows of one file; of any other source the test split, the very one that `load_dataset` gives.

    Args:
        name: as in `load_dataset`.
        text_column: column of the texts.
        label_column: column of the labels.
        test_fraction: share of all rows for the test, where the source has none.
        text_pair_column: column of a second text.

    Raises:
        UserError: the data cannot be read, or no test split be carved.
    """
    source = open_source(name, Columns(text_column, label_column, text_pair_column))
    if source.origin["kind"] == "file":
        table, rows = source.train(), "all rows"
    elif "test" in source.tables:
        table, rows = source.tables["test"], "the test split"
    else:
        label_names = _label_names(source)
        splits: dict[str, Rows] = {split: _index(table, label_names) for split, table in source.tables.items()}
        (rows,) = _carve_test(splits, test_fraction, label_names, source.where)
        test = splits["test"]
        names = [label_names[label] for label in test.labels]
        return Labelled(test.texts, names, source.origin | {"rows": rows})
    return Labelled(table.texts, table.labels, source.origin | {"rows": rows})


def _label_names(source: Source) -> list[str]:
    names = name_labels(source.train())
    return [name for name in source.label_order if name in names] if source.label_order else names


def _index(table: Table, label_names: list[str]) -> Rows:
    labels = map_labels(table.labels, label_names, table.where)
    return Rows(np.arange(len(table.texts), dtype=np.int64), table.texts, labels)


def _carve_test(splits: dict[str, Rows], fraction: float, label_names: list[str], where: str) -> list[str]:
    missing = [split for split in JUDGED if split not in splits]
    require_rows(splits["train"].labels, ["train", *missing], label_names, where)
    if "test" in splits:
        return []
    total = len(splits["train"])
    splits["train"], splits["test"] = carve_test(splits["train"], fraction, leave=len(missing))
    return [
        f"test: {len(splits['test']):,} of {total:,} rows, drawn stratified with a fixed seed, for the data has "
        "no test split of its own"
    ]


def _carve_validation(splits: dict[str, Rows], fraction: float, seed: int) -> list[str]:
    total = len(splits["train"])
    splits["train"], splits["validation"] = carve_validation(splits["train"], fraction, seed)
    return [f"validation: {len(splits['validation']):,} of {total:,} rows of train, drawn stratified by the seed"]


def _drop_shared(splits: dict[str, Rows], label_names: list[str], where: str) -> list[str]:
    notes: list[str] = []
    pairs: list[tuple[Split, Split]] = [("validation", "test"), ("train", "test"), ("train", "validation")]
    for losing, keeping in pairs:
        splits[losing], dropped = drop_shared(splits[losing], splits[keeping])
        if dropped:
            notes.append(f"{losing}: {counted(dropped, 'row')} dropped whose text also stands in {keeping}")
    if not splits["validation"]:
        raise UserError(
            f"{where}: every text of the validation split also stands in test.\nTake repeated texts out, or add others."
        )
    lost = np.flatnonzero(np.bincount(splits["train"].labels, minlength=len(label_names)) == 0)
    if lost.size:
        raise UserError(
            f"{where}: no training row of class {label_names[lost[0]]!r} is left, for every text of it also "
            "stands in validation or test.\nTake the repeated rows out."
        )
    return notes


def _limit(
    splits: dict[str, Rows], size: int | None, of_each_class: int | None, seed: int, label_names: list[str]
) -> list[str]:
    """Keep some of the training rows."""
    train = splits["train"]
    if size is not None and of_each_class is not None:
        raise UserError("--max_train_rows and --labels_per_class both say how many rows to train on. Give one of them.")
    if of_each_class is not None:
        counts = np.bincount(train.labels, minlength=len(label_names))
        if counts.min() < of_each_class:
            rarest = label_names[int(counts.argmin())]
            raise UserError(
                f"--labels_per_class {of_each_class}: there are {counted(int(counts.min()), 'training row')} of class"
                f" {rarest!r}. Ask for no more than that."
            )
        splits["train"] = limit_each_class(train, of_each_class, seed)
        how = f"{of_each_class:,} of each class, drawn by the seed"
    elif size is not None and size < len(train):
        if size < len(label_names):
            raise UserError(
                f"--max_train_rows {size} is less than the number of classes, {len(label_names)}; each needs a row or"
                " more."
            )
        splits["train"] = limit_train(train, size, seed)
        how = "drawn stratified by the seed"
    else:
        return []
    return [f"train: {len(splits['train']):,} of {len(train):,} rows, {how}"]


def _limit_validation(splits: dict[str, Rows], fraction: float, seed: int) -> list[str]:
    """Keep a carved validation split in proportion to fewer training rows."""
    validation = splits["validation"]
    splits["validation"] = limit_validation(validation, len(splits["train"]), fraction, seed)
    if len(splits["validation"]) == len(validation):
        return []
    return [
        f"validation: {len(splits['validation']):,} of {len(validation):,} rows, drawn stratified by the seed, in"
        " proportion to train"
    ]


def _add_unlabelled(
    splits: dict[str, Rows], name: str, columns: Columns
) -> tuple[dict[str, str], Sequence[Text], list[str]]:
    """Texts without labels that stand in no other split; their origin, all that there were, and what was left out."""
    source = once(("source", name, *columns), lambda: open_source(name, columns))
    texts = source.train().texts
    rows = Rows(np.arange(len(texts), dtype=np.int64), texts, np.full(len(texts), UNLABELLED, dtype=np.int64))
    rows, judging = drop_shared(rows, splits["validation"], splits["test"])
    rows, labelled = drop_shared(rows, splits["train"])
    if not rows:
        raise UserError(
            f"--unlabelled {name}: every text of it also stands in train, validation or test.\nGive other texts."
        )
    notes = [f"unlabelled: {counted(len(rows), 'text')} of {source.where}"]
    dropped = {"validation or test": judging, "train": labelled}
    notes += [
        f"unlabelled: {counted(number, 'text')} dropped that also stand in {where}"
        for where, number in dropped.items()
        if number
    ]
    splits["unlabelled"] = rows
    return source.origin, texts, notes


def _describe_repeats(train: Rows) -> list[str]:
    repeated, ambiguous = count_repeats(train)
    notes = []
    if repeated:
        notes.append(f"train: {counted(repeated, 'row')} with the text of another row, kept")
    if ambiguous:
        notes.append(f"train: {counted(ambiguous, 'text')} with more than one label, kept")
    return notes


def _fingerprint(label_names: list[str], splits: dict[str, Rows]) -> str:
    digest = hashlib.sha256(json.dumps(label_names).encode())
    for name in ("train", "validation", "test", "unlabelled"):
        if rows := splits.get(name):
            digest.update(json.dumps([name, rows.ids.tolist(), rows.labels.tolist(), rows.texts]).encode())
    return digest.hexdigest()
