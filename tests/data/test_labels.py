import numpy as np
import pytest

from lora_distill.data.files import Table
from lora_distill.data.labels import map_labels, name_labels
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


def test_unknown_labels_are_listed() -> None:
    with pytest.raises(UserError) as error:
        map_labels(["a", "c", "d", "c"], ["b", "a"], "x.csv")
    assert str(error.value).splitlines() == [
        "x.csv: 3 rows with labels that were not trained on: 'c', 'd'.",
        "Known labels: 'b', 'a'.",
    ]
