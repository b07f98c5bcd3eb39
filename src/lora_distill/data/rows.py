"""Rows as they were read, whatever their format, ready to be written in any."""

import json
import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
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
        told: by key, the values as `as_texts` gives them; where only lines are written, none.
    """

    columns: list[str]
    lines: list[str]
    told: list[dict[str, str | None]]

    def values(self) -> Iterable[list[str]]:
        """What is missing or null is empty; what is no string is written as JSON."""
        return ([row.get(name) or "" for name in self.columns] for row in self.told)

    def objects(self) -> list[str]:
        """As they were written, so that no number loses a digit."""
        return self.lines

    def table(self) -> "pa.Table":
        """What is missing is null; what is no string is written as JSON."""
        import pyarrow as pa

        columns = [pa.array([row.get(name) for row in self.told], pa.string()) for name in self.columns]
        return pa.table(columns, self.columns)


@dataclass(frozen=True)
class ArrowRows:
    """Rows of Parquet."""

    found: "pa.Table"

    def values(self) -> Iterable[list[str]]:
        """Null is empty; numbers, lists and the like are JSON, times as `_told` has them, bytes as base64."""
        columns = [column.to_pylist() for column in _told(self.found).columns]
        return ([_as_text(value) for value in row] for row in zip(*columns, strict=True))

    def objects(self) -> Iterable[str]:
        """What JSON has no type for is a string, as in `values`; a number that is none or infinite is null."""
        return (_json(row) for row in _told(self.found).to_pylist())

    def table(self) -> "pa.Table":
        """As it is."""
        return self.found


def _told(table: "pa.Table") -> "pa.Table":
    """The table with times as Arrow writes them, as in ISO 8601, durations as the number of their units.

    Python alone has no objects for times in nanoseconds, nor for those far from now.
    """
    import pyarrow as pa

    def told(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return pa.list_(told(kind.value_type))
        if pa.types.is_large_list(kind):
            return pa.large_list(told(kind.value_type))
        if pa.types.is_fixed_size_list(kind):
            return pa.list_(told(kind.value_type), kind.list_size)
        if pa.types.is_map(kind):
            return pa.map_(told(kind.key_type), told(kind.item_type))
        if pa.types.is_struct(kind):
            return pa.struct([(field.name, told(field.type)) for field in kind])
        return pa.string() if pa.types.is_temporal(kind) and not pa.types.is_interval(kind) else kind

    return pa.table([column.cast(told(column.type)) for column in table.columns], table.column_names)


def as_texts(row: Mapping[str, object]) -> dict[str, str | None]:
    """The values as texts: null is None, and what is no string is written as JSON."""
    return {name: None if value is None else _as_text(value) for name, value in row.items()}


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return _json(value) if isinstance(value, list | dict) else _as_string(value)


def _json(value: object) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, default=_as_string)


def _finite(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(each) for key, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
        case _:
            return value


def _as_string(value: object) -> str:
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)
