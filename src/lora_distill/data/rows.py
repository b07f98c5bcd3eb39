"""Rows as they were read, whatever their format, ready to be written in any."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa


class Rows(Protocol):
    """N rows with their columns."""

    def values(self) -> Iterable[Sequence[str]]:
        """As texts, by column."""

    def objects(self) -> Iterable[str]:
        """As JSON objects."""

    def table(self) -> "pa.Table":
        """As an Arrow table; of formats that know no types, all columns are strings."""


@dataclass(frozen=True)
class TextRows:
    """Rows of CSV, TSV or plain lines."""

    columns: list[str]
    rows: list[list[str]]

    def values(self) -> list[list[str]]:
        """As they are."""
        return self.rows

    def objects(self) -> Iterable[str]:
        """All values are strings."""
        return (json.dumps(dict(zip(self.columns, row, strict=True)), ensure_ascii=False) for row in self.rows)

    def table(self) -> "pa.Table":
        """All columns are strings."""
        import pyarrow as pa

        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.columns)
        return pa.table([pa.array(each, pa.string()) for each in columns], self.columns)


@dataclass(frozen=True)
class JsonRows:
    """Rows of JSON lines.

    Attributes:
        columns: the keys that become columns.
        lines: each an object, as it was written.
        read: the same, read.
    """

    columns: list[str]
    lines: list[str]
    read: list[dict[str, object]]

    def values(self) -> Iterable[list[str]]:
        """What is missing or null is empty; what is no string is written as JSON."""
        return ([_as_text(row.get(name)) for name in self.columns] for row in self.read)

    def objects(self) -> list[str]:
        """As they were written, so that no number loses a digit."""
        return self.lines

    def table(self) -> "pa.Table":
        """What is missing is null; what is no string is written as JSON."""
        import pyarrow as pa

        def column(name: str) -> "pa.Array":
            found = (row.get(name) for row in self.read)
            return pa.array([None if value is None else _as_text(value) for value in found], pa.string())

        return pa.table([column(name) for name in self.columns], self.columns)


@dataclass(frozen=True)
class ArrowRows:
    """Rows of Parquet."""

    found: "pa.Table"

    def values(self) -> Iterable[list[str]]:
        """Null is empty; numbers, lists and the like are written as JSON, times as in ISO 8601."""
        columns = [column.to_pylist() for column in self.found.columns]
        return ([_as_text(value) for value in row] for row in zip(*columns, strict=True))

    def objects(self) -> Iterable[str]:
        """What JSON has no type for is a string."""
        return (json.dumps(row, ensure_ascii=False, default=str) for row in self.found.to_pylist())

    def table(self) -> "pa.Table":
        """As it is."""
        return self.found


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    is_json = isinstance(value, bool | int | float | list | dict)
    return json.dumps(value, ensure_ascii=False, default=str) if is_json else str(value)
