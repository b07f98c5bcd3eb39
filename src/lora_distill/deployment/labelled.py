"""Labelled rows in each format: bytes that can be appended window by window, and what they become in the end."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lora_distill.data.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS, GROUP_BYTES = 2**16, 2**26  # of a row group of Parquet, whichever comes first

Added = Mapping[str, NDArray[Any]]  # str, float32 or bool [N], by column


class Writer(Protocol):
    """Writes rows with the columns that are added to them."""

    def header(self, columns: list[str]) -> bytes:
        """What comes before the rows."""

    def rows(self, rows: Rows, added: Added) -> bytes:
        """The rows of a window."""

    def whole(self, written: Path) -> Path:
        """The file that was asked for, made of all that was written: that itself, or another beside it."""


class DelimitedWriter:
    """CSV and TSV."""

    def __init__(self, separator: str) -> None:
        self._separator = separator

    def header(self, columns: list[str]) -> bytes:
        """The names of the columns."""
        return self._lines([columns])

    def rows(self, rows: Rows, added: Added) -> bytes:
        """A line for each row; more where texts hold line breaks."""
        columns = zip(*(_as_texts(column, str) for column in added.values()), strict=True)
        return self._lines([*row, *more] for row, more in zip(rows.values(), columns, strict=True))

    def whole(self, written: Path) -> Path:
        """It is whole already."""
        return written

    def _lines(self, rows: "Iterator[list[str]] | list[list[str]]") -> bytes:
        # Only ends of lines that hold it let csv put quotes around a text with "\r" in it.
        lines = _Lines()
        csv.writer(lines, delimiter=self._separator, lineterminator="\r\n").writerows(rows)
        return "".join(lines.all).encode()


class _Lines:
    def __init__(self) -> None:
        self.all: list[str] = []

    def write(self, line: str) -> None:
        self.all.append(line.removesuffix("\r\n") + "\n")


class JsonWriter:
    """JSON lines."""

    def header(self, columns: list[str]) -> bytes:  # noqa: ARG002 - as Writer says
        """There is none."""
        return b""

    def rows(self, rows: Rows, added: Added) -> bytes:
        """An object for each row."""
        names = [json.dumps(name, ensure_ascii=False) for name in added]
        columns = zip(*(_as_texts(column, _json) for column in added.values()), strict=True)
        lines = []
        for row, values in zip(rows.objects(), columns, strict=True):
            more = ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
            lines.append(f"{row[:-1].rstrip()}, {more}}}\n")
        return "".join(lines).encode()

    def whole(self, written: Path) -> Path:
        """It is whole already."""
        return written


class ParquetWriter:
    """Parquet, which cannot grow: until it is whole, rows lie in Arrow streams, one behind the other."""

    def header(self, columns: list[str]) -> bytes:  # noqa: ARG002 - as Writer says
        """Each stream has its own."""
        return b""

    def rows(self, rows: Rows, added: Added) -> bytes:
        """A stream of a window."""
        import pyarrow as pa

        table = rows.table()
        for name, column in added.items():
            table = table.append_column(name, pa.array(column))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        written: bytes = sink.getvalue().to_pybytes()
        return written

    def whole(self, written: Path) -> Path:
        """Read the streams again, and write them as row groups."""
        from pyarrow import parquet

        whole = written.with_name(f"{written.name}.parquet")
        groups = _groups(written)
        first = next(groups)
        with parquet.ParquetWriter(whole, first.schema) as writer:
            writer.write_table(first)
            for group in groups:
                writer.write_table(group)
        return whole


def _groups(written: Path) -> "Iterator[pa.Table]":
    import pyarrow as pa

    with pa.OSFile(str(written)) as file:
        tables: list[pa.Table] = []
        while file.tell() < file.size():
            tables.append(pa.ipc.open_stream(file).read_all())
            if sum(map(len, tables)) >= GROUP_ROWS or sum(table.nbytes for table in tables) >= GROUP_BYTES:
                yield pa.concat_tables(tables)
                tables = []
        if tables:
            yield pa.concat_tables(tables)


def _as_texts(column: NDArray[Any], quote: Callable[[str], str]) -> list[str]:
    """A float32 has as many digits as tell it from its neighbours."""
    if column.dtype == np.bool_:
        return ["true" if value else "false" for value in column]
    if column.dtype.kind == "f":
        return list(column.astype(np.str_))
    return [quote(value) for value in column.tolist()]


def _json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


WRITERS: dict[str, Writer] = {
    "csv": DelimitedWriter(","),
    "tsv": DelimitedWriter("\t"),
    "jsonl": JsonWriter(),
    "parquet": ParquetWriter(),
}
