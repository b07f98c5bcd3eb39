"""Fewer rows of a data set than there are, and texts without labels beside them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_distill.data.types import UNLABELLED, Dataset
from lora_distill.errors import UserError
from tests.data.test_sources import load, numbered, write


def test_max_train_rows_limits_a_carved_validation_too(tmp_path: Path) -> None:
    data = load(write(tmp_path / "x.jsonl", numbered(2000)), max_train_rows=540)
    assert (len(data.train), len(data.validation), len(data.test)) == (540, 60, 400)
    assert np.bincount(data.train.labels).tolist() == [270, 270]
    assert "train: 540 of 1,440 rows, drawn stratified by the seed" in data.notes
    assert data.notes[-1].startswith("validation: 60 of 160 rows, drawn stratified by the seed")


@pytest.mark.parametrize("limit", [144, 145, 10_000])
def test_max_train_rows_above_the_rows_there_are_changes_nothing(tmp_path: Path, limit: int) -> None:
    path = write(tmp_path / "x.jsonl", numbered(200))
    limited, whole = load(path, max_train_rows=limit), load(path)
    assert limited.notes == whole.notes
    assert limited.fingerprint == whole.fingerprint


def test_max_train_rows_below_the_number_of_classes(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", numbered(60, ("a", "b", "c")))
    with pytest.raises(UserError, match="--max_train_rows 2 is less than the number of classes, 3"):
        load(rows, max_train_rows=2)


def test_so_many_rows_of_each_class_are_drawn_by_the_seed(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", numbered(300, ("ham", "ham", "spam")))
    data = load(file, labels_per_class=7)
    assert np.bincount(data.train.labels).tolist() == [7, 7]
    assert "train: 14 of 216 rows, 7 of each class, drawn by the seed" in data.notes
    assert data.train.texts == load(file, labels_per_class=7).train.texts
    assert data.train.texts != load(file, seed=1, labels_per_class=7).train.texts


@pytest.mark.parametrize(
    ("limits", "parts"),
    [
        ({"labels_per_class": 73}, ["--labels_per_class 73", "72 training rows", "'spam'"]),
        ({"labels_per_class": 5, "max_train_rows": 9}, ["--max_train_rows and --labels_per_class", "one of them"]),
    ],
)
def test_more_of_a_class_than_there_is_or_two_limits(tmp_path: Path, limits: dict[str, Any], parts: list[str]) -> None:
    file = write(tmp_path / "x.jsonl", numbered(300, ("ham", "ham", "spam")))
    with pytest.raises(UserError) as error:
        load(file, **limits)
    assert all(part in str(error.value) for part in parts)


def test_texts_without_labels_stand_in_no_other_split(tmp_path: Path) -> None:
    for name, count in (("train", 30), ("validation", 8), ("test", 6)):
        write(tmp_path / f"{name}.jsonl", numbered(count, prefix=name))
    texts = [f"new {number}" for number in range(5)] + ["test  1", "validation 2", " train 3", "train 4"]
    others = tmp_path / "others.txt.jsonl"
    others.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = load(tmp_path, unlabelled=others)
    assert data.unlabelled is not None
    assert data.unlabelled.texts == texts[:5]
    assert data.unlabelled.labels.tolist() == [UNLABELLED] * 5
    assert list(data.splits()) == ["train", "validation", "test", "unlabelled"]
    assert data.notes[-3:] == [
        f"unlabelled: 5 texts of {others}",
        "unlabelled: 2 texts dropped that also stand in validation or test",
        "unlabelled: 2 texts dropped that also stand in train",
    ]
    assert data.unlabelled_source is not None
    assert data.unlabelled_source["location"] == str(others)
    assert data.fingerprint != load(tmp_path).fingerprint


def test_what_training_leaves_out_may_be_read_without_its_labels(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in (("train", 100), ("validation", 20), ("test", 20)):
        write(folder / f"{name}.jsonl", numbered(count, prefix=name))
    data = load(folder, labels_per_class=5, unlabelled=folder)
    assert data.unlabelled is not None
    assert sorted(map(str, [*data.train.texts, *data.unlabelled.texts])) == sorted(f"train {i}" for i in range(100))


def test_texts_without_labels_that_are_all_known_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", numbered(50))
    with pytest.raises(UserError, match=r"--unlabelled .*: every text of it also stands in train.*\nGive other texts"):
        load(file, unlabelled=file)


def write_splits(folder: Path, own_validation: bool) -> Path:
    folder.mkdir()
    for split in ("train", "test", *(["validation"] if own_validation else [])):
        write(folder / f"{split}.jsonl", numbered(400, prefix=split))
    return folder


def changed_by_seed(one: Dataset, other: Dataset) -> list[str]:
    return [name for name, rows in one.splits().items() if list(rows.texts) != list(other.splits()[name].texts)]


@pytest.mark.parametrize("own_validation", [False, True])
@pytest.mark.parametrize("fewer", [{}, {"max_train_rows": 30}, {"labels_per_class": 10}, {"max_train_rows": 400}])
def test_the_splits_that_a_seed_draws_are_those_that_another_changes(
    tmp_path: Path, own_validation: bool, fewer: dict[str, Any]
) -> None:
    folder = write_splits(tmp_path / "data", own_validation)
    one, other = (load(folder, seed=seed, **fewer) for seed in (0, 1))
    assert one.drawn_by_seed() == changed_by_seed(one, other)


@pytest.mark.parametrize("own_validation", [False, True])
@pytest.mark.parametrize("fewer", [{}, {"labels_per_class": 10}])
@pytest.mark.parametrize("same", [False, True])
def test_texts_without_labels_are_drawn_where_those_with_labels_are_drawn_from_them(
    tmp_path: Path, own_validation: bool, fewer: dict[str, Any], same: bool
) -> None:
    folder = write_splits(tmp_path / "data", own_validation)
    also = numbered(400, prefix="train") if same else []
    others = write(tmp_path / "others.jsonl", [*numbered(400, prefix="others"), *also])
    one, other = (load(folder, seed=seed, unlabelled=others, **fewer) for seed in (0, 1))
    assert ("unlabelled" in one.drawn_by_seed()) == (same and bool(fewer))
    assert one.drawn_by_seed() == changed_by_seed(one, other)
