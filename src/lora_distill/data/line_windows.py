"""CSV, TSV, JSON lines and plain lines, read a window at a time."""

import codecs
import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from lora_distill.data.files import (
    HALF_A_PAIR,
    RowError,
    check_separator,
    find_columns,
    is_unicode,
    json_object,
    quotes_fault,
)
from lora_distill.data.lines import MOST_BYTES, Lines, Place, TooLongError
from lora_distill.data.rows import JsonRows, Rows, TextRows, as_texts
from lora_distill.data.types import Text
from lora_distill.data.windows import SHOWN, WINDOW_BYTES, WINDOW_ROWS, Source, State, Window, checked_text
from lora_distill.data.wording import listing
from lora_distill.errors import UserError

GZIP = b"\x1f\x8b"  # what its files begin with
Taken = TypeVar("Taken")


class LinesReader(ABC):
    """What the formats that are made of lines have in common."""

    def __init__(self, source: Source, state: State | None) -> None:
        self._source = source
        file, self.whole = _open(source)
        self._lines = Lines(file)
        self.columns: list[str] | None = None
        if not state:
            self._begin()
        elif self._lines.skip_to(Place(**state["place"])):
            self.columns = state["columns"]
        else:
            raise source.changed()
        self.done = self._lines.place.bytes

    def windows(self) -> Iterator[Window]:
        """Window after window, to the end."""
        begin, more = self.done, True
        while more:
            found: list[Any] = []
            texts: list[Text] = []
            bad: list[dict[str, Any]] = []
            while more and len(texts) + len(bad) < WINDOW_ROWS and self._lines.bytes - begin < WINDOW_BYTES:
                try:
                    if taken := self._take_checked():
                        found.append(taken[0])
                        texts.append(taken[1])
                except RowError as error:
                    bad.append({"line": self._lines.number, "reason": str(error), "content": self._shown()})
                except StopIteration:
                    more = False
                self._lines.done()
            place = self._lines.place
            if texts or bad:
                rows = self._rows(found)
                state = {"place": asdict(place), "columns": self.columns}
                yield Window(rows, texts, bad, place.bytes - begin, state)
            begin = place.bytes

    @abstractmethod
    def _begin(self) -> None:
        """Read what comes before the rows."""

    @abstractmethod
    def _take(self) -> tuple[Any, Sequence[object]] | None:
        """The next row and its values that are read; None where a line holds none. Raises RowError, StopIteration."""

    @abstractmethod
    def _rows(self, found: list[Any]) -> Rows:
        """What `_take` gave of each row."""

    def _take_checked(self) -> tuple[Any, Text] | None:
        taken = self._bounded(self._take)
        if taken is None:
            return None
        row, values = taken
        self._check_bytes()
        return row, checked_text(values)

    def _bounded(self, take: Callable[[], Taken]) -> Taken:
        """What is taken. Raises RowError where that is longer than a row may be."""
        try:
            return take()
        except TooLongError:
            self._lines.give_back()
            raise RowError(f"a row that begins here is longer than {MOST_BYTES:,} bytes") from None

    def _check_bytes(self) -> None:
        """Raises RowError where what was taken is not UTF-8."""
        try:
            self._lines.taken.decode()
        except UnicodeDecodeError as error:
            raise RowError(f"byte 0x{error.object[error.start]:02x} is not UTF-8") from None

    def _shown(self) -> str:
        return self._lines.taken[:SHOWN].decode("utf-8", "replace")


class DelimitedReader(LinesReader):
    """CSV and TSV. A row with broken quotes ends with its line, so that it takes no other row along."""

    def __init__(self, source: Source, state: State | None) -> None:
        csv.field_size_limit(2**31 - 1)  # Lines has a limit of its own
        self._separator = "\t" if source.format == "tsv" else ","
        super().__init__(source, state)
        # The columns are known by now.
        self._places = [(self.columns or []).index(name) for name in source.columns.wanted().values()]

    def _begin(self) -> None:
        try:
            while not (header := self._bounded(self._parse)):
                self._lines.done()
        except StopIteration:
            raise UserError(f"{self._source}: the file is empty.") from None
        except RowError as error:
            self._check_separator()
            raise UserError(f"{self._source}, line {self._lines.number}: {error}.") from None
        where = f"{self._source}, line {self._lines.number}"
        self._check_separator()
        try:
            self._check_bytes()
        except RowError as error:
            raise UserError(f"{where}: {error}. Save the file as UTF-8.") from None
        self.columns = [name.strip() for name in header]
        find_columns(where, self.columns, self._source.columns)
        self._source.refuse_names(self.columns)
        self._lines.done()

    def _check_separator(self) -> None:
        check_separator(Path(str(self._source)), self._lines.taken, self._separator.encode())

    def _parse(self) -> list[str] | None:
        reader = csv.reader(self._lines, delimiter=self._separator, strict=True)
        try:
            row = next(reader)
        except csv.Error as error:
            self._lines.give_back()
            raise RowError(quotes_fault(error, self._lines.number + reader.line_num - 1)) from None
        is_row = len(row) > 1 or (row and row[0].strip()) or b'"' in self._lines.taken  # "" is a text, if an empty one
        return row if is_row else None

    def _take(self) -> tuple[list[str], list[str]] | None:
        row = self._parse()
        expected = len(self.columns or [])
        if row and len(row) != expected:
            raise RowError(f"{len(row)} columns found, {expected} expected")
        return (row, [row[place] for place in self._places]) if row else None

    def _rows(self, found: list[list[str]]) -> Rows:
        return TextRows(self.columns or [], found)


class PlainReader(LinesReader):
    """Plain lines, each a text."""

    def _begin(self) -> None:
        if self._source.text_pair_column:
            raise UserError(
                f"{self._source}: a plain line is a single text, and the model reads pairs.\n"
                "Give a .csv, .tsv, .jsonl or .parquet file with a column of each."
            )
        self.columns = [self._source.text_column]
        self._source.refuse_names(self.columns)

    def _take(self) -> tuple[list[str], list[str]] | None:
        text = next(self._lines).rstrip("\r\n")
        return ([text], [text]) if text.strip() else None

    def _rows(self, found: list[list[str]]) -> Rows:
        return TextRows([self._source.text_column], found)


class JsonReader(LinesReader):
    """JSON lines. Keys may be optional: those of all rows of the first window that can be read are the columns."""

    def _begin(self) -> None:
        """There is nothing before the rows."""

    def _take(self) -> tuple[tuple[str, dict[str, str | None]], list[object]] | None:
        line = next(self._lines).strip()
        if not line:
            return None
        row = json_object(line, self._source.columns)
        names = list(row)
        wanted = self._source.columns.wanted().values()
        if missing := [name for name in wanted if name not in row]:
            raise RowError(f"no column {missing[0]!r}; the columns are {listing(names)}")
        self._source.check_names(names)
        try:
            is_text = "\\ud" not in line.lower() or is_unicode(json.dumps(row, ensure_ascii=False))
            told = as_texts(row) if self._source.fixed else dict.fromkeys(row)
        except RecursionError:
            raise RowError("its lists and objects lie too deep in each other") from None
        if not is_text:
            raise RowError(HALF_A_PAIR)
        known = self.columns if self._source.fixed else None
        if known is not None and (other := [name for name in names if name not in known]):
            raise RowError(
                f"a column {other[0]!r} that none of the first rows has, for which this format has no place;"
                " --output FILE.jsonl keeps it"
            )
        return (line, told), [row[name] for name in wanted]

    def _rows(self, found: list[tuple[str, dict[str, str | None]]]) -> Rows:
        if self.columns is None and found:
            self.columns = list(dict.fromkeys(name for _, row in found for name in row))
        return JsonRows(self.columns or [], [line for line, _ in found], [row for _, row in found])


LINE_READERS: dict[str, type[LinesReader]] = {
    "csv": DelimitedReader,
    "tsv": DelimitedReader,
    "jsonl": JsonReader,
    "txt": PlainReader,
}


def _open(source: Source) -> tuple[io.BufferedReader, int | None]:
    file = source.open()
    size = source.path.stat().st_size if source.path else None
    begins = file.peek(2)[:2]
    if begins in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise UserError(f"{source}: is UTF-16. Save it as UTF-8.")
    if begins == GZIP:
        raise UserError(
            f"{source}: is compressed. Decompress it first, or on the way: gunzip -c FILE | … - --format csv"
        )
    return file, size
