import numpy as np
import pytest

from lora_distill.data.labels import alike_labels, map_labels, name_labels
from lora_distill.data.tables import Table
from lora_distill.errors import UserError


def table(labels: list[str]) -> Table:
    return Table("x.csv", ["a text"] * len(labels), labels)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "-1", "9"], ["-1", "9", "10"]),
        (["10", "9", "b"], ["10", "9", "b"]),
        (["spam", "ham"], ["ham", "spam"]),
        (["1" * 5000, "2"], ["1" * 5000, "2"]),
    ],
)
def test_names_are_sorted_as_numbers_or_else_as_words(labels: list[str], names: list[str]) -> None:
    assert name_labels(table(labels)) == names


def test_one_class() -> None:
    with pytest.raises(UserError, match=r"x\.csv: every row has the label 'ham'; .* two classes or more"):
        name_labels(table(["ham"] * 9))


@pytest.mark.parametrize(("classes", "rows"), [(1001, 10_000), (21, 40), (500, 500)])
def test_too_many_classes(classes: int, rows: int) -> None:
    with pytest.raises(UserError, match=r"x\.csv: .* different labels in .* rows; .*\n.*--label_column"):
        name_labels(table([str(i % classes) for i in range(rows)]))


@pytest.mark.parametrize(("classes", "rows"), [(1000, 2000), (20, 20), (21, 42)])
def test_many_classes(classes: int, rows: int) -> None:
    assert len(name_labels(table([str(i % classes) for i in range(rows)]))) == classes


def test_labels_are_mapped_by_name() -> None:
    mapped = map_labels(["b", "a", "b"], ["b", "a"], "x.csv")
    assert mapped.dtype == np.int64
    assert mapped.tolist() == [0, 1, 0]


def test_labels_are_mapped_whatever_their_case_where_that_is_unambiguous() -> None:
    assert map_labels(["Food", "FOOD", "food", "b"], ["b", "food"], "x.csv").tolist() == [1, 1, 1, 0]
    assert map_labels(["Food", "food"], ["Food", "food"], "x.csv").tolist() == [0, 1]
    with pytest.raises(UserError, match=r"1 row .*: 'FOOD'\.\nKnown labels: 'Food', 'food'"):
        map_labels(["FOOD", "food"], ["Food", "food"], "x.csv")


def test_labels_that_differ_by_case_only_are_named() -> None:
    assert alike_labels(["FOOD", "a", "food", "B"]) == [
        "labels: 'FOOD', 'food' differ by case only and are different classes"
    ]
    assert alike_labels(["a", "b"]) == []


def test_unknown_labels_are_listed() -> None:
    with pytest.raises(UserError) as error:
        map_labels(["a", "c", "d", "c"], ["b", "a"], "x.csv")
    assert str(error.value).splitlines() == [
        "x.csv: 3 rows with labels that were not trained on: 'c', 'd'.",
        "Known labels: 'b', 'a'.",
    ]
