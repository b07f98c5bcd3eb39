import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from lora_distill.data.files import Columns
from lora_distill.data.tables import read_table
from lora_distill.errors import UserError
from tests.data.conftest import COLUMNS, SUFFIXES, write

# Every character but half surrogate pairs, which UTF-8 cannot write, and NUL.
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
texts = any_text.filter(str.strip)
rows_of_text = st.lists(st.tuples(texts, st.sampled_from(["ham", "spam", "日本", "größe"])), min_size=1)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(rows=rows_of_text)
def test_any_text_comes_back_as_it_was_written(suffix: str, rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = read_table(write(Path(folder) / f"x.{suffix}", rows), COLUMNS)
    assert list(zip(table.texts, table.labels, strict=True)) == rows


@given(rows=rows_of_text)
def test_json_with_its_characters_unescaped_comes_back(rows: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        path.write_bytes("\n".join(lines).encode())
        assert read_table(path, COLUMNS).texts == [text for text, _ in rows]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_table(tmp_path: Path, suffix: str) -> None:
    rows = [('He said "no",\nthen left', "b"), ("\t tabs\tand spaces ", "a"), ("שלום, 世界 🎈", "b")]
    table = read_table(write(tmp_path / f"x.{suffix}", rows), COLUMNS)
    assert table.texts == [text for text, _ in rows]
    assert table.labels == ["b", "a", "b"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_text_of_a_million_characters_is_read(tmp_path: Path, suffix: str) -> None:
    long = "word, " * 170_000
    assert read_table(write(tmp_path / f"x.{suffix}", [(long, "a"), ("b", "b")]), COLUMNS).texts[0] == long


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("x.csv", ["text,label", "", "né,1", "", " ", '"two, parts",2', ""]),
        ("x.tsv", ["text\tlabel", "né\t1", "", "two, parts\t2", ""]),
        ("x.jsonl", ['{"text": "né", "label": 1}', "", '{"text": "two, parts", "label": 2}', ""]),
    ],
)
def test_byte_order_mark_line_endings_and_empty_lines(
    tmp_path: Path, mark: bytes, ending: str, name: str, lines: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(mark + ending.join(lines).encode())
    table = read_table(path, COLUMNS)
    assert table.texts == ["né", "two, parts"]
    assert table.labels == ["1", "2"]


def test_other_columns_and_a_suffix_in_capitals(tmp_path: Path) -> None:
    path = tmp_path / "x.CSV"
    path.write_text("id, class ,body\n7,a,one\n8,b,two\n")
    table = read_table(path, Columns("body", "class"))
    assert (table.texts, table.labels) == (["one", "two"], ["a", "b"])


def test_the_revision_is_that_of_the_bytes(tmp_path: Path) -> None:
    first = read_table(write(tmp_path / "x.csv", [("a", "1")]), COLUMNS)
    same = read_table(write(tmp_path / "y.csv", [("a", "1")]), COLUMNS)
    other = read_table(write(tmp_path / "x.csv", [("a", "2")]), COLUMNS)
    assert first.revision == same.revision != other.revision


def test_dictionary_columns_and_names_with_dots(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table({"a.b": pa.array(["x", "y", "x"]).dictionary_encode(), "a": [[1], [2], [3]], "l": [1, 2, 1]})
    parquet.write_table(table, path)
    assert read_table(path, Columns("a.b", "l")).texts == ["x", "y", "x"]


def test_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"none\.csv: no such file\.$"):
        read_table(tmp_path / "none.csv", COLUMNS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"^none\.csv: no such file in {tmp_path}\.$"):
        read_table(Path("none.csv"), COLUMNS)


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"x\.csv: cannot be read: Permission denied"):
        read_table(tmp_path / "x.csv", COLUMNS)


def test_unknown_suffix(refusal: Callable[..., str]) -> None:
    message = refusal("x.xlsx", b"PK")
    assert "'.xlsx'" in message
    assert ".csv, .tsv, .jsonl, .parquet" in message
    assert "Decompress it first: gunzip" in refusal("x.csv.gz", b"\x1f\x8b")


def test_plain_lines_are_texts_where_nothing_else_is_read(tmp_path: Path, refusal: Callable[..., str]) -> None:
    (tmp_path / "x.txt").write_bytes("\ufeffa, b\r\n\n c\u2028d\n  \nlast".encode())
    table = read_table(tmp_path / "x.txt", Columns("text", None))
    assert (table.texts, table.labels) == (["a, b", " c\u2028d", "last"], [])
    for columns in (Columns("text", "label"), Columns("text", None, "second")):
        assert "the suffix '.txt' is not known" in refusal("x.txt", "a\n", columns)


def test_a_json_array_and_the_way_out(refusal: Callable[..., str], tmp_path: Path) -> None:
    message = refusal("my rows.json", '[{"text": "é", "label": 1},\n {"text": "b", "label": 2}]')
    assert "'.json'" in message
    command = message.partition("converted so: ")[2].replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert read_table(tmp_path / "my rows.jsonl", COLUMNS).texts == ["é", "b"]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.parquet"])
@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_empty_file(refusal: Callable[..., str], name: str, content: bytes) -> None:
    assert f"{name}: the file is empty" in refusal(name, content)


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("x.csv", "\nbody,class\na,b\n", "x.csv, line 2"),
        ("x.tsv", "body\tclass\na\tb\n", "x.tsv, line 1"),
        ("x.jsonl", '{"body": "a", "class": 1}', "x.jsonl, line 1"),
    ],
)
def test_no_such_column(refusal: Callable[..., str], name: str, content: str, where: str) -> None:
    message = refusal(name, content)
    assert message.splitlines() == [
        f"{where}: no columns 'text' and 'label'; the columns are 'body', 'class'.",
        "Name the right ones with --text_column and --label_column.",
    ]
    assert "no column 'label'" in refusal(name, content, Columns("body", "label"))
    assert "Name the right one with --label_column." in refusal(name, content, Columns("body", "label"))


def test_a_column_that_is_read_already_is_not_what_another_should_be_called(refusal: Callable[..., str]) -> None:
    message = refusal("pairs.csv", "text,hypothesis,label\na,b,0\n", Columns("text", "label", "text_pair"))
    assert message.splitlines()[1] == "Name the right one with --text_pair_column."


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Text,Label", "Did you mean --text_column Text --label_column Label?"),
        ("text,Label", "Did you mean --label_column Label?"),
        ("My text,labels", "Did you mean --text_column 'My text' --label_column labels?"),
        ("Text,class", "Name the right one with --label_column."),
    ],
)
def test_columns_that_are_called_almost_so(refusal: Callable[..., str], header: str, said: str) -> None:
    text = "Text" if "class" in header else "text"
    assert refusal("x.csv", f"{header}\na,b\n", Columns(text, "label")).splitlines()[1:] == [said]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", " text;label\nGrüße, alle;1\n", "semicolons, not by commas"),
        ("x.csv", '"text";"label"\n"Grüße";"1"\n', "semicolons, not by commas"),
        ("x.csv", "text\tlabel\nGrüße\t1\n", "tabs, not by commas"),
        ("x.tsv", "text,label\nGrüße,1\n", "commas, not by tabs"),
        ("x.csv", '"Id, nr";text;label\n"1, a";Grüße;1\n', "semicolons, not by commas"),
        ("x.csv", "text|label\nGrüße, alle|1\n", "vertical bars, not by commas"),
    ],
)
def test_another_separator(refusal: Callable[..., str], name: str, content: str, said: str, encoding: str) -> None:
    message = refusal(name, content.encode(encoding))
    assert message.startswith(f"{name}: the columns are separated by {said}.")
    assert "as UTF-8, with commas as .csv or with tabs as .tsv" in message


@pytest.mark.parametrize("line", ["sep=,", '"SEP=;"', "\ufeffsep=\t"])
def test_a_line_for_excel(refusal: Callable[..., str], line: str) -> None:
    message = refusal("x.csv", f"{line}\r\ntext,label\na,b\n")
    assert message.lower().startswith("x.csv, line 1: 'sep=")
    assert message.endswith("is for Excel, not the names of the columns. Delete this line.")


def test_other_separators_in_a_name_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,label;old\na,b\n")
    assert read_table(tmp_path / "x.csv", Columns("text", "label;old")).labels == ["b"]
    (tmp_path / "x.csv").write_text('"text;new","label"\na,b\n')
    assert read_table(tmp_path / "x.csv", Columns("text;new", "label")).labels == ["b"]


def test_one_column_for_both(tmp_path: Path) -> None:
    write(tmp_path / "x.csv", [("a", "b")])
    with pytest.raises(UserError, match="must differ"):
        read_table(tmp_path / "x.csv", Columns("text", "text"))
    with pytest.raises(UserError, match="--text_column and --text_pair_column are both 'text'; they must differ"):
        read_table(tmp_path / "x.csv", Columns("text", "label", "text"))


def test_columns_with_the_same_name(refusal: Callable[..., str]) -> None:
    assert "line 1: columns with the same name: 'text'" in refusal("x.csv", "text,text,label\na,b,c\n")


@pytest.mark.parametrize(("row", "found"), [("a,b,c", 3), ("a", 1)])
def test_ragged_row(refusal: Callable[..., str], row: str, found: int) -> None:
    message = refusal("x.csv", f'text,label\n"two\nlines",1\n\n{row}\n')
    assert message.startswith(f"x.csv, line 5: {found} columns found, 2 expected")
    assert "quotes" in message


def test_unclosed_quote(refusal: Callable[..., str]) -> None:
    message = refusal("x.csv", 'text,label\na,1\n"never closed,2\nb,1\n')
    assert message.startswith("x.csv, line 3:")
    assert "never closed" in message


def test_text_after_a_closing_quote(refusal: Callable[..., str]) -> None:
    message = refusal("x.csv", 'text,label\n"a "b" c",1\n')
    assert message.startswith("x.csv, line 2: broken quotes")
    assert "twice" in message


def test_latin_1(refusal: Callable[..., str]) -> None:
    message = refusal("x.csv", "text,label\na,1\né,2\n".encode("latin-1"))
    assert message.startswith("x.csv, line 3: byte 15 of the file (0xe9) is not UTF-8")
    assert "Latin-1" in message
    assert "Save the file as UTF-8" in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16(refusal: Callable[..., str], encoding: str) -> None:
    mark = b"" if encoding == "utf-16" else b"\xfe\xff"
    message = refusal("x.csv", mark + "text,label\na,1\n".encode(encoding))
    assert "byte 0" in message
    assert "UTF-16" in message
    assert "Save the file as UTF-8" in message


def test_binary_file(refusal: Callable[..., str]) -> None:
    assert "no text at all" in refusal("x.csv", b"\x1f\x8b\x08\x00")


@pytest.mark.parametrize("broken", ['{"text": "b", "label"', "[" * 100_000, '{"text": ' + "1" * 5000 + "}"])
def test_broken_json(refusal: Callable[..., str], broken: str) -> None:
    message = refusal("x.jsonl", '{"text": "a", "label": 1}\n\n' + broken)
    assert message.startswith("x.jsonl, line 3: not JSON")


def test_json_that_is_no_object(refusal: Callable[..., str]) -> None:
    message = refusal("x.jsonl", '[{"text": "a", "label": 1}]')
    assert "x.jsonl, line 1: a JSON object is expected" in message
    assert "'text', 'label'" in message


def test_json_row_without_the_key(refusal: Callable[..., str]) -> None:
    message = refusal("x.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "lable": 2}')
    assert message.startswith("x.jsonl, line 2: no column 'label'; the columns are 'text', 'lable'")


@pytest.mark.parametrize("row", [r'{"text": "\ud800", "label": 1}', r'{"text": "a", "label": "\udc00"}'])
def test_half_of_a_surrogate_pair(refusal: Callable[..., str], row: str) -> None:
    assert "x.jsonl, line 2: half of a surrogate" in refusal("x.jsonl", '{"text": "a", "label": 1}\n' + row)


def test_parquet_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [("a", 1)])
    with pytest.raises(UserError, match=r"x\.parquet: no column 'body'; the columns are 'text', 'label'"):
        read_table(path, Columns("body", "label"))
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([1])], ["text", "text", "label"])
    parquet.write_table(twice, path)
    with pytest.raises(UserError, match="same name: 'text'"):
        read_table(path, COLUMNS)


def test_no_parquet_file(refusal: Callable[..., str], tmp_path: Path) -> None:
    assert refusal("x.parquet", "text,label\na,1\n").startswith("x.parquet: not a Parquet file")
    whole = write(tmp_path / "whole.parquet", [("a", 1)]).read_bytes()
    assert refusal("cut.parquet", whole[:-20]).startswith("cut.parquet: not a Parquet file")
