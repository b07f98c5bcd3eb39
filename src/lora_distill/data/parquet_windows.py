"""Parquet, read a window at a time."""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import parquet

from lora_distill.data.files import RowError, find_columns
from lora_distill.data.rows import ArrowRows
from lora_distill.data.windows import WINDOW_BYTES, WINDOW_ROWS, Source, State, Window, checked_text
from lora_distill.errors import UserError

if TYPE_CHECKING:
    from lora_distill.data.types import Text

PIECE_ROWS = 256  # that are read at once: a window ends where such a piece does


class ParquetReader:
    """As `windows.Reader` says."""

    def __init__(self, source: Source, state: State | None) -> None:
        self._source = source
        if source.path is None:
            raise UserError("standard input: Parquet cannot be read from there. Give a file.")
        with source.open() as file:
            self._sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if state and state["sha256"] != self._sha256:
            raise source.changed()
        try:
            self._file = parquet.ParquetFile(source.path, pre_buffer=False, buffer_size=2**20)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from None
        self.columns: list[str] | None = list(self._file.schema_arrow.names)
        find_columns(str(source), self.columns, source.columns)
        source.refuse_names(self.columns)
        for part, name in source.columns.wanted().items():
            kind = self._file.schema_arrow.field(name).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                raise UserError(
                    f"{source}: the column {name!r} holds {kind}, not strings."
                    f"\nName the right one with --{part}_column."
                )
        self.whole: int | None = self._file.metadata.num_rows
        self.done = int(state["rows"]) if state else 0

    def windows(self) -> Iterator[Window]:
        """Window after window, to the end."""
        pieces: list[pa.Table] = []
        done = self.done
        for piece in self._pieces():
            pieces.append(piece)
            rows = sum(map(len, pieces))
            if rows >= WINDOW_ROWS or sum(piece.nbytes for piece in pieces) >= WINDOW_BYTES:
                yield self._window(pa.concat_tables(pieces), done)
                done += rows
                pieces = []
        if pieces:
            yield self._window(pa.concat_tables(pieces), done)

    def _pieces(self) -> Iterator[pa.Table]:
        """Of each row group, so that they are the same wherever the reading begins."""
        first = 0
        try:
            for group in range(self._file.num_row_groups):
                behind = first + self._file.metadata.row_group(group).num_rows
                if behind > self.done:
                    for batch in self._file.iter_batches(PIECE_ROWS, row_groups=[group]):
                        if first >= self.done:
                            yield pa.Table.from_batches([batch])
                        first += len(batch)
                first = behind
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from None

    def _window(self, table: pa.Table, before: int) -> Window:
        texts: list[Text] = []
        bad: list[dict[str, Any]] = []
        columns = [table.column(name) for name in self._source.columns.wanted().values()]
        is_sound = not self._source.as_text or _is_sound(table)
        for place, values in enumerate(zip(*columns, strict=True), start=before + 1):
            try:
                text = checked_text([_as_string(value) for value in values])
                if not is_sound:
                    _check_told(table.slice(place - before - 1, 1))
                texts.append(text)
            except RowError as error:
                bad.append({"row": place, "reason": str(error)})
        if bad:
            table = _without(table, [each["row"] - before - 1 for each in bad])
        state = {"rows": before + len(table) + len(bad), "sha256": self._sha256}
        return Window(ArrowRows(table), texts, bad, len(table) + len(bad), state)

    def _unreadable(self, error: Exception) -> UserError:
        reason = str(error).splitlines()[0]
        return UserError(f"{self._source}: not a Parquet file that can be read: {reason}")


def _without(table: pa.Table, places: list[int]) -> pa.Table:
    """The table's other rows, in slices: Arrow has no filter for columns of views."""
    starts, ends = [0, *(place + 1 for place in places)], [*places, len(table)]
    return pa.concat_tables(table.slice(start, end - start) for start, end in zip(starts, ends, strict=True))


def _is_sound(table: pa.Table) -> bool:
    """Whether all of it is as its types say; above all, strings are UTF-8, which Parquet itself does not look at."""
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _check_told(row: pa.Table) -> None:
    """Raises RowError where a row of one cannot be written as text."""
    for name in row.column_names:
        try:
            list(ArrowRows(row.select([name])).values())
        except UnicodeDecodeError as error:
            raise RowError(f"byte 0x{error.object[error.start]:02x} in the column {name!r} is not UTF-8") from None


def _as_string(value: pa.Scalar) -> object:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        raise RowError(f"byte 0x{error.object[error.start]:02x} is not UTF-8") from None
