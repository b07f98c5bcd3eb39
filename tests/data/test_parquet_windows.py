"""Parquet in windows: the bad rows apart, and every type told or left as it was."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from lora_distill.data.windows import Source, open_reader
from lora_distill.errors import UserError
from tests.data.test_windows import (
    _small_windows,  # noqa: F401 - windows are small here, too
    assert_goes_on_from_anywhere,
    bad,
    read,
    source_of,
    values,
)


def test_bad_rows_of_parquet_and_types_that_stay(tmp_path: Path) -> None:
    texts = pa.array([b"one", None, b"\xff", b" ", b"five"]).view(pa.string())
    table = pa.table({"text": texts, "n": [1, 2, 3, 4, 5], "many": pa.array([[1.5], None, [], [2], [3]])})
    parquet.write_table(table, tmp_path / "rows.parquet")
    windows = read(source_of(tmp_path / "rows.parquet"))
    assert bad(windows) == [(2, "no text"), (3, "byte 0xff is not UTF-8"), (4, "no text")]
    assert pa.concat_tables(window.rows.table() for window in windows).equals(table.take([0, 4]))
    assert values(windows) == [["one", "1", "[1.5]"], ["five", "5", "[3.0]"]]


def test_strings_of_parquet_that_are_not_utf_8_have_no_place_in_text(tmp_path: Path) -> None:
    whole = pa.array([b"a", b"b", b"\xff", b"d", b"e", b"f"]).view(pa.string())
    items = pa.array([b"a", b"b", b"c", b"d", b"\xfe", b"f"]).view(pa.string())
    lists = pa.ListArray.from_arrays([0, 1, 2, 3, 4, 5, 6], items)
    times = pa.array(range(6), pa.timestamp("ns"))
    table = pa.table({"text": list("abcdef"), "whole": whole, "lists": lists, "times": times})
    parquet.write_table(table, tmp_path / "rows.parquet")
    source = source_of(tmp_path / "rows.parquet")
    windows = read(source)
    assert bad(windows) == [
        (3, "byte 0xff in the column 'whole' is not UTF-8"),
        (5, "byte 0xfe in the column 'lists' is not UTF-8"),
    ]
    assert [row[1] for row in values(windows)] == ["a", "b", "d", "f"]
    assert [json.loads(row)["lists"] for window in windows for row in window.rows.objects()] == [[x] for x in "abdf"]
    assert_goes_on_from_anywhere(source)

    kept = read(replace(source, as_text=False))
    assert bad(kept) == []
    assert pa.concat_tables(window.rows.table() for window in kept).column("whole").equals(pa.chunked_array([whole]))


def test_times_within_whatever_parquet_holds_are_told(tmp_path: Path) -> None:
    far, times = 3 * 10**11, pa.timestamp("s")  # for which Python has no object
    told = "11476-08-15 05:20:00.000"
    columns = {
        "large": pa.array([[far]], pa.large_list(times)),
        "fixed": pa.array([[far, far]], pa.list_(times, 2)),
        "map": pa.array([[("a", far)]], pa.map_(pa.string(), times)),
        "deep": pa.array([[{"a": [far]}]], pa.large_list(pa.struct([("a", pa.list_(times))]))),
    }
    parquet.write_table(pa.table({"text": ["a"], **columns}), tmp_path / "rows.parquet")
    (window,) = read(source_of(tmp_path / "rows.parquet"))
    assert [json.loads(value) for value in values([window])[0][1:]] == [
        [told],
        [told, told],
        [["a", told]],
        [{"a": [told]}],
    ]


def test_parquet_from_standard_input_or_without_strings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="standard input: Parquet cannot"):
        open_reader(Source(None, "parquet", "text"), None)
    parquet.write_table(pa.table({"text": [1]}), tmp_path / "n.parquet")
    with pytest.raises(UserError, match="holds int64, not strings"):
        open_reader(source_of(tmp_path / "n.parquet"), None)


def test_a_bad_row_beside_columns_that_arrow_cannot_filter(tmp_path: Path) -> None:
    nested = pa.array([[text] for text in ("a", "b", "c", "d")], pa.list_(pa.string_view()))
    texts = pa.array([None, "two", None, "four"], pa.string_view())
    parquet.write_table(pa.table({"text": texts, "views": nested}), tmp_path / "rows.parquet")
    windows = read(source_of(tmp_path / "rows.parquet"))
    assert bad(windows) == [(1, "no text"), (3, "no text")]
    assert values(windows) == [["two", '["b"]'], ["four", '["d"]']]
