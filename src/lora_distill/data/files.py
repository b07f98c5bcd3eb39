"""One CSV, TSV, JSONL or Parquet file, read so that every fault names its place."""

import csv
import difflib
import hashlib
import io
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lora_distill.data.wording import listing
from lora_distill.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
PLAIN = ".txt"

_SEPARATORS = {b",": "commas", b"\t": "tabs", b";": "semicolons", b"|": "vertical bars"}
HALF_A_PAIR = "half of a surrogate pair (\\ud800 to \\udfff) stands alone"


class RowError(Exception):
    """A row cannot be read; the message says why."""


class Columns(NamedTuple):
    """Names of the columns that are read; each is given as `--text_column`, `--label_column`…; None: is not read."""

    text: str
    label: str | None
    text_pair: str | None = None

    def wanted(self) -> dict[str, str]:
        """Those that are read, by what they hold."""
        return {kind: name for kind, name in self._asdict().items() if name is not None}


@dataclass(frozen=True)
class Raw:
    """Values of each column that is read, as a format gives them, and the line or row of each, counted from 1."""

    values: Mapping[str, Sequence[object]]
    places: Sequence[int]
    unit: str
    revision: str = ""


def read_raw(path: Path, columns: Columns | None) -> Raw:
    """Read a file; the suffix says which format it is in.

    Where texts alone are read, each line of a .txt file is one. Empty lines are skipped. Text files are UTF-8, with or
    without a byte order mark.

    Args:
        path: of the file.
        columns: what is read, by what it holds; None: every column, by its name.

    Raises:
        UserError: with the file's name, and the line (Parquet: the row) where there is one.
    """
    suffix = path.suffix.lower()
    is_plain = suffix == PLAIN and columns is not None and [*columns.wanted()] == ["text"]
    if suffix not in SUFFIXES and not is_plain and path.exists():
        convert = "import json, sys; [print(json.dumps(row)) for row in json.load(sys.stdin)]"
        fault = f"{path}: the suffix {path.suffix!r} is not known. Allowed: {', '.join(SUFFIXES)}."
        if suffix == ".json":
            name = shlex.quote(str(path))
            fault += f"\nAn array of objects is converted so: python -c '{convert}' < {name} > {name}l"
        if suffix == ".gz":
            fault += f"\nDecompress it first: gunzip {shlex.quote(str(path))}"
        raise UserError(fault)
    data = read_bytes(path)
    if not data.strip():
        raise UserError(f"{path}: the file is empty.")
    if is_plain:
        raw = _read_plain(_decode(path, data))
    elif suffix == ".parquet":
        raw = _read_parquet(path, data, columns)
    elif suffix == ".jsonl":
        raw = _read_jsonl(path, _decode(path, data), columns)
    else:
        separator = b"\t" if suffix == ".tsv" else b","
        check_separator(path, data, separator)
        raw = _read_delimited(path, _decode(path, data), columns, separator.decode())
    return replace(raw, revision=hashlib.sha256(data).hexdigest())


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; a UserError where it cannot be read."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ValueError):  # a name with NUL in it can be no file's
        looked_in = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise UserError(f"{path}: no such file{looked_in}.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None


def check_separator(path: Path, data: bytes, separator: bytes) -> None:
    """Refuse another separator. Before the bytes are decoded: a spreadsheet's file may be wrong in both."""
    header = data.partition(b"\n")[0]
    if mark := re.fullmatch(rb'(?:\xef\xbb\xbf)?"?(sep=.)"?\s*', header, re.IGNORECASE):
        raise UserError(
            f"{path}, line 1: {mark[1].decode('ascii', 'replace')!r} is for Excel, not the names of the columns."
            " Delete this line."
        )
    bare = re.sub(rb'"[^"]*"', b"", header)  # a name may hold any of them
    found = [name for other, name in _SEPARATORS.items() if other in bare]
    if found and separator not in bare:
        raise UserError(
            f"{path}: the columns are separated by {found[0]}, not by {_SEPARATORS[separator]}.\n"
            "Save it, as UTF-8, with commas as .csv or with tabs as .tsv."
        )


def _decode(path: Path, data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: byte 0 is not UTF-8 but the mark of UTF-16. Save the file as UTF-8.")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        likely = "no text at all" if b"\0" in data else "Latin-1 or Windows-1252"
        raise UserError(
            f"{path}, line {line}: byte {error.start} of the file (0x{data[error.start]:02x}) is not UTF-8; "
            f"it may be {likely}.\nSave the file as UTF-8."
        ) from None


def _read_delimited(path: Path, text: str, columns: Columns | None, delimiter: str) -> Raw:
    csv.field_size_limit(2**31 - 1)  # as much as every platform takes; the default, 131,072, refuses long texts
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    values: dict[str, list[object]] = {}
    lines: list[int] = []
    first_line = 1
    try:
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):  # else the line is empty
                if not header:
                    header = [name.strip() for name in row]
                    positions = find_columns(f"{path}, line {first_line}", header, columns)
                    values = {kind: [] for kind in positions}
                elif len(row) != len(header):
                    raise UserError(
                        f"{path}, line {first_line}: {len(row)} columns found, {len(header)} expected.\n"
                        "A text with the separator or a line break in it needs quotes around it."
                    )
                else:
                    for kind, position in positions.items():
                        values[kind].append(row[position])
                    lines.append(first_line)
            first_line = reader.line_num + 1
    except csv.Error as error:
        reason = quotes_fault(error, reader.line_num)
        raise UserError(f"{path}, line {first_line}: {reason}.\nWrite a quote inside a quoted text twice.") from None
    return Raw(values, lines, "line")


def quotes_fault(error: csv.Error, line: int) -> str:
    """What is wrong with a row that csv refuses, having read to this line."""
    if "unexpected end" in str(error):
        return "a quote is opened in the row that begins here and never closed"
    return f"broken quotes in the row that begins here: {error} (in line {line})"


def find_columns(where: str, found: list[str], columns: Columns | None) -> dict[str, int]:
    """The position of each column that is read."""
    repeated = sorted({name for name in found if found.count(name) > 1})
    if repeated:
        raise UserError(f"{where}: columns with the same name: {listing(repeated)}. Rename one of each.")
    wanted = columns.wanted() if columns else {}
    check_different(wanted)
    if missing := {kind: name for kind, name in wanted.items() if name not in found}:
        names = " and ".join(map(repr, missing.values()))
        raise UserError(
            f"{where}: no column{'s' if len(missing) > 1 else ''} {names}; the columns are {listing(found)}.\n"
            f"{_right_columns(missing, [name for name in found if name not in wanted.values()])}"
        )
    return {kind: found.index(name) for kind, name in (wanted or dict(zip(found, found, strict=True))).items()}


def check_different(wanted: Mapping[str, str]) -> None:
    """Refuse one column for two purposes, given the columns that are read by what they hold."""
    for name in wanted.values():
        alike = [f"--{other}_column" for other in wanted if wanted[other] == name]
        if len(alike) > 1:
            raise UserError(f"{' and '.join(alike)} are both {name!r}; they must differ.")


def _right_columns(missing: dict[str, str], found: list[str]) -> str:
    """What to call the columns that are not there, by what they hold, among those that are not read already."""
    folded = {name.casefold(): name for name in found}
    nearest = {kind: difflib.get_close_matches(name.casefold(), folded, n=1) for kind, name in missing.items()}
    if all(nearest.values()):
        flags = [f"--{kind}_column {shlex.quote(folded[near])}" for kind, (near,) in nearest.items()]
        return f"Did you mean {' '.join(flags)}?"
    flags = [f"--{kind}_column" for kind in missing]
    return f"Name the right one{'s' if len(missing) > 1 else ''} with {' and '.join(flags)}."


def _read_plain(text: str) -> Raw:
    lines = enumerate(io.StringIO(text, newline=""), start=1)
    texts = {number: line.rstrip("\r\n") for number, line in lines if line.strip()}
    return Raw({"text": [*texts.values()]}, [*texts], "line")


def _read_jsonl(path: Path, text: str, columns: Columns | None) -> Raw:
    wanted = columns.wanted() if columns else {}
    values: dict[str, list[object]] = {}
    lines: list[int] = []
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json_object(line, columns)
        except RowError as error:
            raise UserError(f"{where}: {error}.") from None
        wanted = wanted or {name: name for name in row}
        if not wanted:
            raise UserError(f"{where}: an object without keys.")
        if missing := [name for name in wanted.values() if name not in row]:
            find_columns(where, list(row), columns)
            raise UserError(f"{where}: no key {missing[0]!r}, which the first object has.")
        if not all(is_unicode(row[name]) for name in wanted.values()):
            raise UserError(f"{where}: {HALF_A_PAIR}.")
        for kind, name in wanted.items():
            values.setdefault(kind, []).append(row[name])
        lines.append(number)
    return Raw(values, lines, "line")


def json_object(line: str, columns: Columns | None) -> dict[str, object]:
    """The JSON object of a line.

    Raises:
        RowError: there is none.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RowError(f"not JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise RowError(f"not JSON that can be read: {error}") from None
    if not isinstance(row, dict):
        keys = f", with the keys {listing(columns.wanted().values())}" if columns else ""
        raise RowError(f"a JSON object is expected{keys}; found {type(row).__name__}")
    return row


def is_unicode(value: object) -> bool:
    """Whether it holds no half of a surrogate pair, as escapes in JSON can."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    return True


def _read_parquet(path: Path, data: bytes, columns: Columns | None) -> Raw:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        find_columns(str(path), file.schema_arrow.names, columns)
        table = file.read(columns=list(columns.wanted().values()) if columns else None)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a Parquet file that can be read: {reason}") from None
    return arrow_values(str(path), table, columns)


def arrow_values(where: str, table: "pa.Table", columns: Columns | None) -> Raw:
    """The values of an Arrow table; the arguments as in `read_raw`."""
    positions = find_columns(where, table.column_names, columns)
    try:
        values = {kind: table.column(position).to_pylist() for kind, position in positions.items()}
    except UnicodeDecodeError:
        raise UserError(f"{where}: a text or label is not UTF-8. Write the data anew as UTF-8.") from None
    return Raw(values, range(1, table.num_rows + 1), "row")
