"""Rows in windows: every row once, in order, the bad ones apart, and from any window on the same."""

import csv
import gzip
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from lora_distill.data import line_windows, lines, parquet_windows
from lora_distill.data.windows import Source, Window, open_reader
from lora_distill.errors import UserError


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (line_windows, parquet_windows):
        monkeypatch.setattr(module, "WINDOW_ROWS", 3)
    monkeypatch.setattr(parquet_windows, "PIECE_ROWS", 2)


def source_of(path: Path, data: bytes | str = "", **settings: Any) -> Source:  # noqa: ANN401 - any of Source's
    if data:
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return Source(path, path.suffix[1:], "text", **settings)


def read(source: Source, state: dict[str, Any] | None = None) -> list[Window]:
    return list(open_reader(source, json.loads(json.dumps(state))).windows())


def values(windows: list[Window]) -> list[list[str]]:
    return [list(row) for window in windows for row in window.rows.values()]


def bad(windows: list[Window]) -> list[tuple[int, str]]:
    return [(each["line" if "line" in each else "row"], each["reason"]) for window in windows for each in window.bad]


def assert_goes_on_from_anywhere(source: Source) -> None:
    windows = read(source)
    for number, window in enumerate(windows, start=1):
        rest = read(source, window.state)
        assert values(rest) == values(windows[number:])
        assert bad(rest) == bad(windows[number:])
        assert [each.state for each in rest] == [each.state for each in windows[number:]]


ROWS = [f"text {number}" for number in range(10)]


def write(path: Path) -> Source:
    match path.suffix:
        case ".parquet":
            table = pa.table({"id": list(map(str, range(10))), "text": ROWS})
            parquet.write_table(table, path, row_group_size=5)
            return source_of(path)
        case ".jsonl":
            return source_of(path, "".join(f'{{"id": "{n}", "text": "{t}"}}\n' for n, t in enumerate(ROWS)))
        case ".txt":
            return source_of(path, "\n".join(ROWS))
        case _:
            mark = "\t" if path.suffix == ".tsv" else ","
            return source_of(path, f"id{mark}text\n" + "".join(f"{n}{mark}{t}\n" for n, t in enumerate(ROWS)))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_pairs(suffix: str, tmp_path: Path) -> None:
    firsts = ["a", "b", "", "d", "e"]
    columns: dict[str, list[Any]] = {"why": ["g", "h", "i", " ", "k"], "id": list("12345"), "text": firsts}
    path, rows = tmp_path / f"rows.{suffix}", list(zip(*columns.values(), strict=True))
    if suffix == "parquet":
        parquet.write_table(pa.table(columns), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    else:
        mark = "\t" if suffix == "tsv" else ","
        path.write_text("".join(mark.join(row) + "\n" for row in [tuple(columns), *rows]))
    source = source_of(path, text_pair_column="why")
    windows = read(source)
    assert [pair for window in windows for pair in window.texts] == [("a", "g"), ("b", "h"), ("e", "k")]
    assert values(windows) == [list(rows[place]) for place in (0, 1, 4)]
    assert [reason for _, reason in bad(windows)] == ["no text", "no second text"]
    assert_goes_on_from_anywhere(source)
    if suffix == "jsonl":
        (whole,) = {reason for _, reason in bad(read(source_of(path, text_pair_column="who")))}
        assert whole == "no column 'who'; the columns are 'why', 'id', 'text'"
    else:
        with pytest.raises(UserError, match=r"no column 'who'; .*\n.*--text_pair_column"):
            read(source_of(path, text_pair_column="who"))


def test_pairs_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows.txt: a plain line is a single text, and the model reads pairs"):
        read(source_of(tmp_path / "rows.txt", "a\n", text_pair_column="b"))
    parquet.write_table(pa.table({"text": ["a"], "b": [1]}), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"'b' holds int64, not strings.\nName the right one with --text_pair_column"):
        read(source_of(tmp_path / "rows.parquet", text_pair_column="b"))
    (window,) = read(source_of(tmp_path / "rows.jsonl", '{"text": "a", "b": 1}\n', text_pair_column="b"))
    assert bad([window]) == [(1, "the second text is '1' (int), not a string")]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "txt"])
def test_every_row_once_in_its_order(suffix: str, tmp_path: Path) -> None:
    source = write(tmp_path / f"rows.{suffix}")
    windows = read(source)
    assert [text for window in windows for text in window.texts] == ROWS
    assert len(windows) == (3 if suffix == "parquet" else 4)  # pieces of 2, 2 and 1 in each of its row groups
    whole = [[text] if suffix == "txt" else [str(number), text] for number, text in enumerate(ROWS)]
    assert values(windows) == whole
    assert [list(row.values()) for window in windows for row in window.rows.table().to_pylist()] == whole
    assert [list(json.loads(row).values()) for window in windows for row in window.rows.objects()] == whole
    reader = open_reader(source, None)
    assert reader.done + sum(window.size for window in windows) == reader.whole
    assert_goes_on_from_anywhere(source)


def test_a_window_ends_where_its_bytes_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_windows, "WINDOW_BYTES", 15)
    assert [len(window.texts) for window in read(write(tmp_path / "rows.csv"))] == [2] * 5


def test_bad_rows_of_csv_stand_alone(tmp_path: Path) -> None:
    source = source_of(
        tmp_path / "rows.csv",
        b"\xef\xbb\xbfid, text \r\n"
        b'1,"two lines,\r\nand ""quotes"""\r\n'
        b"\r\n"
        b"3\r\n"
        b"4,  \r\n"
        b'5,"broken" quotes\r\n'
        b"6,caf\xe9\r\n"
        b'7,"opened\r\n'
        b'8,"good"\r\n'
        b"9,last",
    )
    windows = read(source)
    assert values(windows) == [["1", 'two lines,\r\nand "quotes"'], ["8", "good"], ["9", "last"]]
    assert bad(windows) == [
        (5, "1 columns found, 2 expected"),
        (6, "no text"),
        (7, "broken quotes in the row that begins here: ',' expected after '\"' (in line 7)"),
        (8, "byte 0xe9 is not UTF-8"),
        (9, "broken quotes in the row that begins here: ',' expected after '\"' (in line 10)"),
    ]
    assert windows[0].bad[0] == {"line": 5, "reason": "1 columns found, 2 expected", "content": "3\r\n"}
    assert_goes_on_from_anywhere(source)


def test_a_text_of_an_only_column_may_be_empty(tmp_path: Path) -> None:
    source = source_of(tmp_path / "rows.csv", '\n""\n'.join(["\ntext", "a", "", "  ", "b"]))
    windows = read(source)
    assert values(windows) == [["a"], ["b"]]
    assert bad(windows) == [(number, "no text") for number in (3, 5, 7, 9)]


def test_a_quote_that_is_never_closed_takes_no_other_row_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(tmp_path / "rows.csv", 'text\n"opened\n' + "row\n" * 5)
    assert values(read(source)) == [["row"]] * 5
    assert bad(read(source)) == [(2, "a quote is opened in the row that begins here and never closed")]
    for module in (lines, line_windows):
        monkeypatch.setattr(module, "MOST_BYTES", 16)
    assert values(read(source)) == [["row"]] * 5
    assert bad(read(source)) == [(2, "a row that begins here is longer than 16 bytes")]
    assert_goes_on_from_anywhere(source)


def test_bad_rows_of_json_lines(tmp_path: Path) -> None:
    rows = [
        b'{"text": "one", "n": 1.50}',
        b"{",
        b"[1]",
        b'{"n": 1}',
        b'{"text": 5}',
        b'{"text": null}',
        b'{"text": "\\ud800"}',
        b'{"text": "a", "n": "\\uDC00"}',
        b'{"text": "caf\xe9"}',
        b'{"text": "a", "label": "b"}',
        b'{"text": "two", "more": [1]}',
        b"",
        b'{"text": "three"}',
    ]
    free = source_of(tmp_path / "rows.jsonl", b"\n".join(rows), added=("label",), fixed=False)
    windows = read(free)
    assert [row for window in windows for row in window.rows.objects()] == [rows[each].decode() for each in (0, 10, 12)]
    half = "half of a surrogate pair (\\ud800 to \\udfff) stands alone"
    reasons = [
        (2, "not JSON: Expecting property name enclosed in double quotes (column 2)"),
        (3, "a JSON object is expected, with the keys 'text'; found list"),
        (4, "no column 'text'; the columns are 'n'"),
        (5, "the text is '5' (int), not a string"),
        (6, "no text"),
        (7, half),
        (8, half),
        (9, "byte 0xe9 is not UTF-8"),
        (10, "there is a column 'label' already; --prefix gives what is added other names"),
    ]
    assert bad(windows) == reasons
    assert_goes_on_from_anywhere(free)

    fixed = read(Source(free.path, "jsonl", "text", ("label",), fixed=True))
    assert values(fixed) == [["one", "1.5"], ["three", ""]]
    assert fixed[-1].rows.table().to_pylist() == [{"text": "three", "n": None}]
    assert bad(fixed)[-1][0] == 11
    told = "a column 'more' that none of the first rows has, for which this format has no place; --output FILE.jsonl "
    assert bad(fixed)[-1][1] == f"{told}keeps it"


def test_keys_of_json_lines_may_be_optional_in_all_rows_of_the_first_window(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"bad": 1},
        {"text": "one"},
        {"id": 1, "text": "two", "more": None},
        {"more": "m", "text": "three"},
        {"text": "four", "late": 1},
        {"id": 5, "text": "five"},
    ]
    source = source_of(tmp_path / "rows.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    windows = read(source)
    assert [window.state["columns"] for window in windows] == [["text", "id", "more"]] * 2
    assert values(windows) == [["one", "", ""], ["two", "1", ""], ["three", "", "m"], ["five", "5", ""]]
    assert windows[0].rows.table().to_pylist()[0] == {"text": "one", "id": None, "more": None}
    assert [line for line, _ in bad(windows)] == [1, 5]
    assert_goes_on_from_anywhere(source)


def test_deep_json_is_a_bad_row_where_it_would_be_written_anew(tmp_path: Path) -> None:
    deep = '{"text": "b", "n": ' + "[" * 600 + "]" * 600 + "}"
    path = tmp_path / "rows.jsonl"
    source = source_of(path, f'{{"text": "a"}}\n{deep}\n{{"text": "c"}}\n')
    windows = read(source)
    assert values(windows) == [["a"], ["c"]]
    assert bad(windows) == [(2, "its lists and objects lie too deep in each other")]
    kept = read(replace(source, fixed=False))
    assert [row for window in kept for row in window.rows.objects()][1] == deep
    half = deep.replace('"b"', '"\\ud800"').replace("[", "[" * 1000).replace("]", "]" * 1000)
    assert len(bad(read(source_of(path, f'{{"text": "a"}}\n{half}\n', fixed=False)))) == 1


def test_standard_input_goes_on_where_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def feed(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))

    source = Source(None, "txt", "text")
    feed(b"a\nb\nc\nd\n")
    first, _ = read(source)
    assert open_reader(source, None).whole is None
    feed(b"a\nb\nc\ne\n")
    assert values(read(source, first.state)) == [["e"]]
    feed(b"a\nb\nC\nd\n")
    with pytest.raises(UserError, match="standard input: has changed"):
        read(source, first.state)


def test_rows_that_changed_are_not_gone_on_with(tmp_path: Path) -> None:
    for suffix in ("csv", "parquet"):
        source = write(tmp_path / f"rows.{suffix}")
        state = read(source)[0].state
        assert source.path is not None
        source.path.write_bytes(source.path.read_bytes().replace(b"text 0", b"text x"))
        with pytest.raises(UserError, match="has changed since its first rows were labelled"):
            read(source, state)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.csv", None, "no such file"),
        ("a.parquet", None, "no such file"),
        ("a.csv", "\n\n", "the file is empty"),
        ("a.csv", "words,id\n", "line 1: no column 'text'"),
        ("a.csv", "text;id\n", "separated by semicolons"),
        ("a.csv", '"id, nr";text\n', "separated by semicolons"),
        ("a.csv", "text,text\n", "columns with the same name"),
        ("a.csv", "text,label\n", "there is a column 'label' already"),
        (
            "a.csv",
            "catégorie,text\n1,a\n".encode("latin-1"),
            "line 1: byte 0xe9 is not UTF-8. Save the file",
        ),
        ("a.csv", "\ncatégorie;text\n".encode("latin-1"), "separated by semicolons"),
        ("a.csv", '"text\n', "never closed"),
        ("a.csv", "text\n".encode("utf-16"), "is UTF-16"),
        ("a.csv", gzip.compress(b"text\n", mtime=0), "is compressed. Decompress it"),
        ("a.parquet", "PAR1", "not a Parquet file"),
    ],
)
def test_what_cannot_be_begun(name: str, data: bytes | str | None, told: str, tmp_path: Path) -> None:
    source = source_of(tmp_path / name, data or "", added=("label",))
    with pytest.raises(UserError, match=told) as error:
        open_reader(source, None)
    assert len(str(error.value).splitlines()) <= 3


def test_a_header_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lines, line_windows):
        monkeypatch.setattr(module, "MOST_BYTES", 16)
    for header in ("text," * 9, '"' + "text\n" * 9):
        with pytest.raises(UserError, match=r"a.csv, line 1: a row that begins here is longer than 16 bytes\.$"):
            open_reader(source_of(tmp_path / "a.csv", header), None)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "txt"])
def test_a_folder_and_one_column_for_two_purposes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    path.mkdir()
    with pytest.raises(UserError, match=rf"rows.{suffix}: cannot be read: Is a directory\.$"):
        open_reader(source_of(path), None)
    path.rmdir()
    source = replace(write(path), text_pair_column="text")
    with pytest.raises(UserError, match=r"^--text_column and --text_pair_column are both 'text'; they must differ"):
        open_reader(source, None)


def test_a_column_of_plain_lines_has_a_name_that_may_be_taken(tmp_path: Path) -> None:
    source = replace(write(tmp_path / "rows.txt"), text_column="label", added=("label",))
    with pytest.raises(UserError, match=r"rows.txt: there is a column 'label' already; --prefix .*--prefix predicted_"):
        open_reader(source, None)


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2), max_size=9))
def test_whatever_csv_writes_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    written = io.StringIO(newline="")
    csv.writer(written).writerows([["text", "other"], *rows])
    source = source_of(tmp_path_factory.mktemp("any") / "rows.csv", written.getvalue())
    windows = read(source)
    assert values(windows) == [row for row in rows if row[0].strip()]
    assert len(bad(windows)) == sum(not row[0].strip() for row in rows)


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="standard input: is closed"):
        open_reader(Source(None, "csv", "text"), None)
