import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from lora_distill.data.files import Columns, read_arrow, read_table
from lora_distill.errors import UserError

COLUMNS = Columns("text", "label")
SUFFIXES = ["csv", "tsv", "jsonl", "parquet"]

# Every character but half surrogate pairs, which UTF-8 cannot write, and NUL.
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
texts = any_text.filter(str.strip)
rows_of_text = st.lists(st.tuples(texts, st.sampled_from(["ham", "spam", "日本", "größe"])), min_size=1)


def write(path: Path, rows: list[tuple[Any, Any]]) -> Path:
    """Write rows of (text, label) as the ordinary library of each format does."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"text": [r[0] for r in rows], "label": [r[1] for r in rows]}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([("text", "label"), *rows])
    return path


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """The message with which a file of this content is refused, its folder cut away."""

    def read(name: str, content: str | bytes, columns: Columns = COLUMNS) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError) as error:
            read_table(path, columns)
        message = str(error.value)
        assert message.startswith(str(path))
        assert 1 <= len(message.splitlines()) <= 3
        return message.replace(f"{tmp_path}/", "")

    return read


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


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 0, 10], ["1", "0", "10"]),
        ([True, False, True], ["True", "False", "True"]),
        ([1.0, 2.0, -1.0], ["1", "2", "-1"]),
        ([" spam", "ham ", "spam"], ["spam", "ham", "spam"]),
        (["1.0", "2.0", "3"], ["1", "2", "3"]),
        (["v1.5", "v2.0", "01"], ["v1.5", "v2.0", "01"]),
    ],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_labels_become_strings(tmp_path: Path, suffix: str, labels: list[Any], expected: list[str]) -> None:
    rows = [(f"text {i}", label) for i, label in enumerate(labels)]
    assert read_table(write(tmp_path / f"x.{suffix}", rows), COLUMNS).labels == expected


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


def test_a_header_without_rows(refusal: Callable[..., str]) -> None:
    assert "x.csv: no rows" in refusal("x.csv", "text,label\n\n")


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
    assert message.startswith(f"{where}: no column 'text'; the columns are 'body', 'class'.")
    assert "--text_column" in message
    assert "no column 'label'" in refusal(name, content, Columns("body", "label"))
    assert "--label_column" in refusal(name, content, Columns("body", "label"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", " text;label\nGrüße, alle;1\n", "semicolons, not by commas"),
        ("x.csv", '"text";"label"\n"Grüße";"1"\n', "semicolons, not by commas"),
        ("x.csv", "text\tlabel\nGrüße\t1\n", "tabs, not by commas"),
        ("x.tsv", "text,label\nGrüße,1\n", "commas, not by tabs"),
    ],
)
def test_another_separator(refusal: Callable[..., str], name: str, content: str, said: str, encoding: str) -> None:
    message = refusal(name, content.encode(encoding))
    assert message.startswith(f"{name}: the columns are separated by {said}.")
    assert "as UTF-8, with commas as .csv or with tabs as .tsv" in message


def test_other_separators_in_a_name_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,label;old\na,b\n")
    assert read_table(tmp_path / "x.csv", Columns("text", "label;old")).labels == ["b"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_texts_without_labels(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"x.{suffix}", [("a", None), ("b", "ham")])
    table = read_table(path, Columns("text", None))
    assert (table.texts, table.labels) == (["a", "b"], [])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pairs_of_texts(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"x.{suffix}", [("a", "x "), ("b", "y")])
    assert read_table(path, Columns("text", None, "label")).texts == [("a", "x "), ("b", "y")]


@pytest.mark.parametrize(
    ("second", "parts"),
    [
        ("", ["1 row with a blank or null second text: line 1"]),
        (None, ["1 row with a blank or null second text: line 1"]),
        (
            7,
            [
                "line 1: the second text is '7' (int), not a string",
                "'other' may be the wrong one: see --text_pair_column",
            ],
        ),
    ],
)
def test_second_texts_that_are_none(tmp_path: Path, second: object, parts: list[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"text": "a", "other": second}) + "\n")
    with pytest.raises(UserError) as error:
        read_table(path, Columns("text", None, "other"))
    assert all(part in str(error.value) for part in parts)


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


@pytest.mark.parametrize("value", ["5", "true", '["a"]', "{}"])
def test_a_text_that_is_no_string(refusal: Callable[..., str], value: str) -> None:
    message = refusal("x.jsonl", '{"text": "a", "label": 1}\n{"text": ' + value + ', "label": 1}')
    assert message.startswith("x.jsonl, line 2: the text is ")
    assert "--text_column" in message


@pytest.mark.parametrize("value", ["1.5", '["a"]', "{}", "1e999"])
def test_a_label_that_is_no_label(refusal: Callable[..., str], value: str) -> None:
    message = refusal("x.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": ' + value + "}")
    assert message.startswith("x.jsonl, line 2: the label is ")
    assert "--label_column" in message


def test_labels_that_are_not_whole(refusal: Callable[..., str]) -> None:
    message = refusal("x.csv", "text,label\na,1.0\nb,0.25\n")
    assert message.startswith("x.csv: the labels in column 'label' are numbers that are not whole, such as 0.25")
    assert "--label_column" in message


@pytest.mark.parametrize("blank", ["", "  ", '"\n "'])
def test_blank_texts(refusal: Callable[..., str], blank: str) -> None:
    message = refusal("x.csv", f"text,label\na,1\n{blank},2\n{blank},1\n")
    second = 4 + blank.count("\n")
    assert message.startswith(f"x.csv: 2 rows with a blank or null text: line 3, {second}.")


def test_many_blank_texts_name_the_first(refusal: Callable[..., str]) -> None:
    message = refusal("x.csv", "text,label\n" + ",1\n" * 1200)
    assert "1,200 rows with a blank or null text: line 2, 3, 4, 5, 6, ..." in message


@pytest.mark.parametrize("value", ["null", '" "', "NaN"])
def test_blank_labels(refusal: Callable[..., str], value: str) -> None:
    message = refusal("x.jsonl", '{"text": "a", "label": "b"}\n{"text": "b", "label": ' + value + "}")
    assert message.startswith("x.jsonl: 1 row with a blank or null label: line 2.")


def test_null_text(refusal: Callable[..., str]) -> None:
    assert "1 row with a blank or null text: line 1." in refusal("x.jsonl", '{"text": null, "label": "b"}')


def test_parquet_faults_name_the_row(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write(path, [("a", 1), (None, 2), ("c", 1)])
    with pytest.raises(UserError, match=r"x\.parquet: 1 row with a blank or null text: row 2\."):
        read_table(path, COLUMNS)
    write(path, [("a", 1.0), ("b", 1.5)])
    with pytest.raises(UserError, match=r"x\.parquet, row 2: the label is '1.5' \(float\)"):
        read_table(path, COLUMNS)
    write(path, [(1, 1), (2, 2)])
    with pytest.raises(UserError, match=r"x\.parquet, row 1: the text is '1' \(int\), not a string"):
        read_table(path, COLUMNS)


def test_parquet_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [("a", 1)])
    with pytest.raises(UserError, match=r"x\.parquet: no column 'body'; the columns are 'text', 'label'"):
        read_table(path, Columns("body", "label"))
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([1])], ["text", "text", "label"])
    parquet.write_table(twice, path)
    with pytest.raises(UserError, match="same name: 'text'"):
        read_table(path, COLUMNS)


def test_a_parquet_file_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())}), path)
    with pytest.raises(UserError, match=r"x\.parquet: no rows"):
        read_table(path, COLUMNS)


def test_no_parquet_file(refusal: Callable[..., str], tmp_path: Path) -> None:
    assert refusal("x.parquet", "text,label\na,1\n").startswith("x.parquet: not a Parquet file")
    whole = write(tmp_path / "whole.parquet", [("a", 1)]).read_bytes()
    assert refusal("cut.parquet", whole[:-20]).startswith("cut.parquet: not a Parquet file")


def test_arrow_text_that_is_no_utf_8() -> None:
    invalid = pa.array([b"\xff"]).view(pa.string())
    with pytest.raises(UserError, match="hub split train: a text or label is not UTF-8"):
        read_arrow("hub split train", pa.table({"text": invalid, "label": [1]}), COLUMNS)
