"""What is wrong with the texts and labels of a file, whatever its format."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from lora_distill.data.files import Columns
from lora_distill.data.tables import read_arrow, read_table
from lora_distill.errors import UserError
from tests.data.conftest import COLUMNS, SUFFIXES, write


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


def test_a_header_without_rows(refusal: Callable[..., str]) -> None:
    assert "x.csv: no rows" in refusal("x.csv", "text,label\n\n")


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


def test_a_parquet_file_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())}), path)
    with pytest.raises(UserError, match=r"x\.parquet: no rows"):
        read_table(path, COLUMNS)


def test_arrow_text_that_is_no_utf_8() -> None:
    invalid = pa.array([b"\xff"]).view(pa.string())
    with pytest.raises(UserError, match="hub split train: a text or label is not UTF-8"):
        read_arrow("hub split train", pa.table({"text": invalid, "label": [1]}), COLUMNS)
