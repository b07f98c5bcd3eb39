"""The texts and labels of one file or table, checked so that every fault names its place."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_distill.data.files import Columns, Raw, arrow_values, read_raw
from lora_distill.data.types import PARTS, Text, from_columns
from lora_distill.data.wording import counted
from lora_distill.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Table:
    """The texts of one file or split: none blank, none null.

    Attributes:
        where: the file or split, for messages.
        texts: N texts, as given.
        labels: N labels as strings, without white space around them; none where they were not read.
        revision: SHA-256 of the file's bytes in hex; empty where the rows came from no file.
    """

    where: str
    texts: Sequence[Text]
    labels: list[str]
    revision: str = ""


def read_table(path: Path, columns: Columns) -> Table:
    """The texts of a file.

    Raises:
        UserError: with the file's name, and the line (Parquet: the row) where there is one.
    """
    return check_table(str(path), read_raw(path, columns), columns)


def read_arrow(where: str, table: "pa.Table", columns: Columns) -> Table:
    """The texts of an Arrow table."""
    return check_table(where, arrow_values(where, table, columns), columns)


def check_table(where: str, raw: Raw, columns: Columns) -> Table:
    """The texts, and the labels if they are read, of values by what they hold.

    Raises:
        UserError: with the place where there is one.
    """
    if not raw.places:
        raise UserError(f"{where}: no rows: it holds column names at most.")
    texts = _texts(where, raw, columns)
    labels = _labels(where, raw, columns) if columns.label is not None else []
    return Table(where, texts, labels, raw.revision)


def _texts(where: str, raw: Raw, columns: Columns) -> list[Text]:
    wanted = {kind: column for kind, column in columns.wanted().items() if kind in PARTS}
    return from_columns({kind: _strings(where, kind, raw, column) for kind, column in wanted.items()})


def _strings(where: str, kind: str, raw: Raw, column: str) -> list[str]:
    what = "text" if kind == "text" else "second text"
    texts: list[str] = []
    for text, place in zip(raw.values[kind], raw.places, strict=True):
        if text is not None and not isinstance(text, str):
            raise UserError(
                f"{where}, {raw.unit} {place}: the {what} is {_kind(text)}, not a string.\n"
                f"Column {column!r} may be the wrong one: see --{kind}_column."
            )
        texts.append(text or "")
    _refuse_blank(where, what, [text.strip() for text in texts], raw)
    return texts


def _labels(where: str, raw: Raw, columns: Columns) -> list[str]:
    labels: list[str] = []
    for label, place in zip(raw.values["label"], raw.places, strict=True):
        name = _label_name(label)
        if name is None:
            raise UserError(
                f"{where}, {raw.unit} {place}: the label is {_kind(label)}; it must be an integer or a word.\n"
                f"Column {columns.label!r} may be the wrong one: see --label_column."
            )
        labels.append(name)
    _refuse_blank(where, "label", labels, raw)
    return _whole_numbers(where, labels, columns)


def _kind(value: object) -> str:
    return f"{str(value)[:40]!r} ({type(value).__name__})"


def _label_name(value: object) -> str | None:
    """A label as a string: empty where it is null, None where it can be no label."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None


def _refuse_blank(where: str, what: str, values: list[str], raw: Raw) -> None:
    places = [place for value, place in zip(values, raw.places, strict=True) if not value]
    if places:
        lines = ", ".join(map(str, places[:5])) + (", ..." if len(places) > 5 else "")
        raise UserError(
            f"{where}: {counted(len(places), 'row')} with a blank or null {what}: {raw.unit} {lines}.\n"
            "Fill them in or delete them."
        )


def _whole_numbers(where: str, labels: list[str], columns: Columns) -> list[str]:
    """Labels with `1.0` written as `1` where all are numbers: pandas writes integers so beside a missing one."""
    names = set(labels)
    if not all(re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", name) for name in names):
        return labels
    whole = {name: re.sub(r"\.0+$", "", name) for name in names}
    fractions = sorted(name for name in whole.values() if "." in name)
    if fractions:
        raise UserError(
            f"{where}: the labels in column {columns.label!r} are numbers that are not whole, such as "
            f"{fractions[0]}.\nLabels are integers or words: see --label_column."
        )
    return [whole[label] for label in labels]
