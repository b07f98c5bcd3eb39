"""Rows of any number, read a window at a time; the rows alone say where a window ends, so that one can go on there."""

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from lora_distill.data.files import HALF_A_PAIR, Columns, RowError, check_different, is_unicode
from lora_distill.data.rows import Rows
from lora_distill.data.types import Text
from lora_distill.errors import UserError

# Whichever comes first. What a kill takes is done again, so a window is small: with 1,024 rows of AG News in place of
# 4,096, padding is 0.6% of what is computed, not 0.2%.
WINDOW_ROWS, WINDOW_BYTES = 1024, 2**25
SHOWN = 1000  # characters of a bad row
NAMES = ("text", "second text")  # as reasons have it

State = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """What is read.

    Attributes:
        path: of a file; None is standard input.
        format: one of `formats.INPUT_FORMATS`.
        text_column: name of the column of the texts.
        added: names that no column may have.
        fixed: whether there are no columns but those of the first window.
        text_pair_column: name of the column of second texts; None: texts are single.
        as_text: whether rows are written as text, which has no place for bytes that are not UTF-8.
    """

    path: Path | None
    format: str
    text_column: str
    added: tuple[str, ...] = ()
    fixed: bool = True
    text_pair_column: str | None = None
    as_text: bool = True

    def __str__(self) -> str:
        """As messages name it."""
        return str(self.path or "standard input")

    @property
    def columns(self) -> Columns:
        """Those that are read."""
        return Columns(self.text_column, None, self.text_pair_column)

    def open(self) -> io.BufferedReader:
        """Its bytes.

        Raises:
            UserError: they cannot be read.
        """
        if not self.path and sys.stdin is None:
            raise UserError("standard input: is closed. Give a file, or open it.")
        try:
            return self.path.open("rb") if self.path else cast("io.BufferedReader", sys.stdin.buffer)
        except (FileNotFoundError, ValueError):
            raise UserError(f"{self}: no such file.") from None
        except OSError as error:
            raise UserError(f"{self}: cannot be read: {error.strerror}.") from None

    def changed(self) -> UserError:
        """The refusal to go on with other rows."""
        return UserError(f"{self}: has changed since its first rows were labelled. --overwrite labels it anew.")

    def check_names(self, names: list[str]) -> None:
        """Check that no column has a name of those that are added.

        Raises:
            RowError: one has.
        """
        if taken := [name for name in self.added if name in names]:
            raise RowError(f"there is a column {taken[0]!r} already; --prefix gives what is added other names")

    def refuse_names(self, names: list[str]) -> None:
        """The same, where all rows have these columns.

        Raises:
            UserError: one has.
        """
        try:
            self.check_names(names)
        except RowError as error:
            raise UserError(f"{self}: {error}, such as --prefix predicted_.") from None


@dataclass
class Window:
    """Rows in a run.

    Attributes:
        rows: those that could be read.
        texts: of these, or the pairs of them.
        bad: of the others the place, the reason, and how they begin.
        size: bytes (Parquet: rows) that all of it took.
        state: with which reading goes on behind it; JSON.
    """

    rows: Rows
    texts: list[Text]
    bad: list[dict[str, Any]]
    size: int
    state: State


class Reader(Protocol):
    """Reads a source, from its beginning or from where a window ended.

    Attributes:
        columns: that the rows have; None where each row has its own and none was read yet.
        whole: bytes (Parquet: rows) in all; None for standard input.
        done: of these before the first window.
    """

    columns: list[str] | None
    whole: int | None
    done: int

    def windows(self) -> Iterator[Window]:
        """Window after window, to the end."""


def open_reader(source: Source, state: State | None) -> Reader:
    """Begin to read.

    Args:
        source: what is read.
        state: of the last window that was dealt with; None for the beginning.

    Raises:
        UserError: it cannot be read, has no such column, or one for two purposes, or has changed since.
    """
    check_different(source.columns.wanted())
    if source.format == "parquet":
        from lora_distill.data.parquet_windows import ParquetReader

        return ParquetReader(source, state)
    from lora_distill.data.line_windows import LINE_READERS

    return LINE_READERS[source.format](source, state)


def checked_text(values: Sequence[object]) -> Text:
    """The text of a row, or the pair.

    Args:
        values: of the columns that are read.

    Raises:
        RowError: one is no text.
    """
    first, *second = (_checked(value, name) for value, name in zip(values, NAMES, strict=False))
    return (first, second[0]) if second else first


def _checked(text: object, name: str) -> str:
    if text is not None and not isinstance(text, str):
        raise RowError(f"the {name} is {str(text)[:40]!r} ({type(text).__name__}), not a string")
    if not text or not text.strip():
        raise RowError(f"no {name}")
    if not is_unicode(text):
        raise RowError(HALF_A_PAIR)
    return text
