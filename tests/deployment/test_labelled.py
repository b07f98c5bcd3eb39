"""Labelled rows are read back as they were, in every format."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from lora_distill.data.rows import ArrowRows, JsonRows, TextRows
from lora_distill.deployment import labelled
from lora_distill.deployment.labelled import WRITERS

TEXTS = ['plain, "quoted"', "two\r\nlines", "a\rb", "ü\t\U0001f600"]
ADDED = {
    'la"bel': np.array(["a, b", 'c"d', "é", "f"]),
    "confidence": np.array([0.1, 1.0, 1e-7, 1 / 3], np.float32),
    "review": np.array([True, False, False, True]),
}
ROWS = TextRows(["id", "text"], [[str(number), text] for number, text in enumerate(TEXTS)])


@pytest.mark.parametrize(("name", "separator"), [("csv", ","), ("tsv", "\t")])
def test_csv(name: str, separator: str) -> None:
    writer = WRITERS[name]
    written = (writer.header([*ROWS.columns, *ADDED]) + writer.rows(ROWS, ADDED)).decode()
    header, *rows = csv.reader(io.StringIO(written, newline=""), delimiter=separator, strict=True)
    assert header == ["id", "text", *ADDED]
    assert [row[:3] for row in rows] == [[*row, label] for row, label in zip(ROWS.rows, ADDED['la"bel'], strict=True)]
    assert (np.array([row[3] for row in rows], np.float32) == ADDED["confidence"]).all()
    assert [row[4] for row in rows] == ["true", "false", "false", "true"]
    assert written.count("\n") == len(rows) + 2  # the last is the one in a text


def test_json_lines_keep_an_object_as_it_was_written() -> None:
    lines = ['{"text": "x", "n": 1.50 }', '{ "text":"\\u00fc"}', '{"text": "y"}', '{"text": "z"}']
    written = WRITERS["jsonl"].rows(JsonRows(["text"], lines, [json.loads(line) for line in lines]), ADDED).decode()
    assert written.startswith('{"text": "x", "n": 1.50, "la\\"bel": "a, b", "confidence": 0.1, "review": true}')
    for line, before, *added in zip(written.splitlines(), lines, *ADDED.values(), strict=True):
        row = json.loads(line)
        assert row | {"confidence": np.float32(row["confidence"])} == {
            **json.loads(before),
            **dict(zip(ADDED, added, strict=True)),
        }


TIMES = {
    "nanoseconds": (pa.array([1], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
    "zoned": (pa.array([0], pa.timestamp("s", "Europe/Berlin")), "1970-01-01 01:00:00+0100"),
    "far": (pa.array([5_000_000], pa.date32()), "15659-07-15"),
    "of a day": (pa.array([1], pa.time64("ns")), "00:00:00.000000001"),
    "duration": (pa.array([2**62], pa.duration("ns")), str(2**62)),
    "none": (pa.array([None], pa.timestamp("ns")), None),
    "many": (pa.array([[1]], pa.list_(pa.time64("ns"))), ["00:00:00.000000001"]),
    "parts": (pa.array([{"a": 0}], pa.struct([("a", pa.timestamp("ns"))])), {"a": "1970-01-01 00:00:00.000000000"}),
}


def test_times_of_parquet_need_no_python_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)  # which has some that Python lacks
    rows = ArrowRows(pa.table({name: column for name, (column, _) in TIMES.items()}))
    (line,), (row,) = rows.objects(), rows.values()
    expected = [told for _, told in TIMES.values()]
    assert list(json.loads(line).values()) == expected
    assert row[:6] == [told or "" for told in expected[:6]]
    assert [json.loads(told) for told in row[6:]] == expected[6:]


def test_json_of_parquet_is_json() -> None:
    values = {"number": float("nan"), "bytes": b"\xff\x00", "parts": {"a": [float("inf"), 1.5], "b": b"\xfe"}}
    rows = ArrowRows(pa.table({name: [value] for name, value in values.items()}))
    (line,), (row,) = rows.objects(), rows.values()
    assert line == '{"number": null, "bytes": "/wA=", "parts": {"a": [null, 1.5], "b": "/g=="}}'
    assert row == ["NaN", "/wA=", '{"a": [null, 1.5], "b": "/g=="}']


def test_parquet_keeps_types_and_has_large_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled, "GROUP_ROWS", 6)
    table = pa.table(
        {
            "text": pa.array(["a", "b", None, "a"]).dictionary_encode(),
            "many": [[1], [], None, [2, 3]],
            "time": pa.array([0, 1, 2, 3], pa.timestamp("us", "UTC")),
        }
    )
    writer, written = WRITERS["parquet"], tmp_path / "rows"
    written.write_bytes(b"".join(writer.rows(ArrowRows(rows), ADDED) for rows in [table] * 5))
    whole = parquet.ParquetFile(writer.whole(written))
    assert [whole.metadata.row_group(group).num_rows for group in range(whole.num_row_groups)] == [8, 8, 4]
    found = whole.read()
    expected = pa.concat_tables([table] * 5)
    assert found.select(table.column_names).cast(expected.schema).equals(expected)
    assert found.schema.field("confidence").type == pa.float32()
    assert found.column("review").to_pylist()[:4] == ADDED["review"].tolist()


def test_a_window_in_which_all_rows_are_bad() -> None:
    none = {name: column[:0] for name, column in ADDED.items()}
    for writer in WRITERS.values():
        assert writer.rows(TextRows(["text"], []), none) == b"" or writer is WRITERS["parquet"]
    assert WRITERS["parquet"].rows(TextRows(["text"], []), none)
