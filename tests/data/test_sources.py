import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_distill.data.labels import map_labels
from lora_distill.data.sources import load_dataset, read_labelled
from lora_distill.data.types import Dataset, Rows
from lora_distill.errors import UserError
from lora_distill.hub import HubDataset

Row = tuple[str, Any]


def load(
    name: str | Path,
    seed: int = 0,
    test_fraction: float = 0.2,
    max_train_rows: int | None = None,
    labels_per_class: int | None = None,
    unlabelled: str | Path | None = None,
) -> Dataset:
    return load_dataset(
        str(name),
        text_column="text",
        label_column="label",
        seed=seed,
        validation_fraction=0.1,
        test_fraction=test_fraction,
        max_train_rows=max_train_rows,
        labels_per_class=labels_per_class,
        unlabelled=None if unlabelled is None else str(unlabelled),
    )


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return path


def numbered(count: int, labels: tuple[Any, ...] = ("ham", "spam"), prefix: str = "text") -> list[Row]:
    return [(f"{prefix} {i}", labels[i % len(labels)]) for i in range(count)]


def collapsed(rows: Rows) -> set[str]:
    return {" ".join(str(text).split()) for text in rows.texts}


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """The message with which these files are refused, their folder cut away."""

    def read(files: dict[str, list[Row]], max_train_rows: int | None = None) -> str:
        for name, rows in files.items():
            write(tmp_path / name, rows)
        with pytest.raises(UserError) as error:
            load(tmp_path, max_train_rows=max_train_rows)
        message = str(error.value)
        assert 1 <= len(message.splitlines()) <= 3
        return message.replace(f"{tmp_path}/", "")

    return read


def test_one_file_is_split_in_three(tmp_path: Path) -> None:
    data = load(write(tmp_path / "x.jsonl", numbered(200)))
    assert (len(data.train), len(data.validation), len(data.test)) == (144, 16, 40)
    for rows in (data.train, data.validation, data.test):
        assert np.bincount(rows.labels).tolist() == [len(rows) // 2] * 2
        assert rows.ids.dtype == rows.labels.dtype == np.int64
        assert np.all(np.diff(rows.ids) > 0)
        assert rows.texts == [f"text {i}" for i in rows.ids]
        assert [data.label_names[label] for label in rows.labels] == [("ham", "spam")[i % 2] for i in rows.ids]
    assert data.name == str(tmp_path / "x.jsonl")
    assert data.source["kind"] == "file"
    assert data.notes == [
        "test: 40 of 200 rows, drawn stratified with a fixed seed, for the data has no test split of its own",
        "validation: 16 of 160 rows of train, drawn stratified by the seed",
    ]


def test_own_splits_are_kept_whole(tmp_path: Path) -> None:
    for name, count in (("train", 30), ("dev", 8), ("test", 6)):
        write(tmp_path / f"{name}.jsonl", numbered(count, prefix=name))
    data = load(tmp_path, max_train_rows=10)
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 8, 6)
    assert data.validation.texts == [f"dev {i}" for i in range(8)]
    assert data.test.ids.tolist() == list(range(6))
    assert data.notes == ["train: 10 of 30 rows, drawn stratified by the seed"]


def test_the_test_rows_are_the_same_for_every_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", numbered(200))
    zero, again, one = load(path), load(path), load(path, seed=1)
    assert zero.fingerprint == again.fingerprint != one.fingerprint
    assert zero.test.ids.tolist() == one.test.ids.tolist()
    assert zero.validation.ids.tolist() == again.validation.ids.tolist() != one.validation.ids.tolist()
    limited = load(path, max_train_rows=20)
    assert limited.test.ids.tolist() == zero.test.ids.tolist()
    assert set(limited.train.ids.tolist()) < set(zero.train.ids.tolist())


@settings(max_examples=50)
@given(
    picks=st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["", " ", "\n\t"])), max_size=80),
    seed=st.integers(0, 5),
    limit=st.none() | st.integers(2, 60),
)
def test_no_text_stands_in_two_splits(
    tmp_path_factory: pytest.TempPathFactory, picks: list[tuple[int, str]], seed: int, limit: int | None
) -> None:
    rows = numbered(120) + [(f"text {space} {i}", "ham") for i, space in picks]
    path = write(tmp_path_factory.mktemp("data") / "x.jsonl", rows)
    data = load(path, seed=seed, max_train_rows=limit)
    train, validation, test = map(collapsed, (data.train, data.validation, data.test))
    assert train.isdisjoint(test)
    assert train.isdisjoint(validation)
    assert validation.isdisjoint(test)
    assert set(data.train.labels.tolist()) == {0, 1}
    if limit is None:
        assert train | validation | test == {f"text {i}" for i in range(120)}


def test_texts_in_two_splits_are_dropped_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [("t  0", "a"), ("t 1", "b")])
    write(tmp_path / "validation.jsonl", [("t 0", "a"), ("v 0", "a"), ("v 1", "b")])
    write(tmp_path / "train.jsonl", [("t 0\n", "b"), ("v 1", "b"), ("x", "a"), ("T 1", "b"), ("t 1", "b")])
    data = load(tmp_path)
    assert data.test.texts == ["t  0", "t 1"]
    assert (data.validation.texts, data.validation.ids.tolist()) == (["v 0", "v 1"], [1, 2])
    assert (data.train.texts, data.train.ids.tolist()) == (["x", "T 1"], [2, 3])
    assert data.notes == [
        "validation: 1 row dropped whose text also stands in test",
        "train: 2 rows dropped whose text also stands in test",
        "train: 1 row dropped whose text also stands in validation",
    ]


def test_repeats_in_train_are_kept_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [*numbered(10), ("text 0", "ham"), ("text 1", "ham")])
    for name in ("validation", "test"):
        write(tmp_path / f"{name}.jsonl", numbered(4, prefix=name))
    data = load(tmp_path)
    assert len(data.train) == 12
    assert data.notes == [
        "train: 2 rows with the text of another row, kept",
        "train: 1 text with more than one label, kept",
    ]


def test_the_fingerprint_covers_labels_names_texts_and_ids(tmp_path: Path) -> None:
    rows = numbered(20)
    variants = [
        rows,
        [*rows[:-1], ("other", "spam")],
        [*rows[:-1], (rows[-1][0], "ham")],
        [(text, {"ham": "a", "spam": "b"}[label]) for text, label in rows],
        [rows[2], rows[1], rows[0], *rows[3:]],
    ]
    prints: list[str] = []
    for variant in variants:
        folder = tmp_path / str(len(prints))
        folder.mkdir()
        labels = sorted({label for _, label in variant})
        for name in ("validation", "test"):
            write(folder / f"{name}.jsonl", numbered(2, tuple(labels), prefix=name))
        write(folder / "train.jsonl", variant)
        prints.append(load(folder).fingerprint)
    assert len(set(prints)) == len(variants)


def test_integers_are_sorted_as_numbers(tmp_path: Path) -> None:
    data = load(write(tmp_path / "x.jsonl", numbered(60, (10, 9, 100))))
    assert data.label_names == ["9", "10", "100"]


def test_labels_agree_across_formats(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", numbered(20, (0, 1)))
    (tmp_path / "test.csv").write_text("text,label\nx,1\ny,0.0\n")
    assert load(tmp_path).test.labels.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["validation", "test"])
def test_labels_that_train_does_not_have(refusal: Callable[..., str], name: str) -> None:
    message = refusal({"train.jsonl": numbered(20), f"{name}.jsonl": [("x", "ham"), ("y", "eggs")]})
    assert message.startswith(f"{name}.jsonl: 1 row with labels that were not trained on: 'eggs'")
    assert "'ham', 'spam'" in message


@pytest.mark.parametrize(("own", "needed"), [([], 3), (["test"], 2), (["validation"], 2), (["test", "validation"], 1)])
def test_a_class_needs_a_row_for_each_split_that_is_carved(tmp_path: Path, own: list[str], needed: int) -> None:
    for name in own:
        write(tmp_path / f"{name}.jsonl", numbered(4, prefix=name))
    rare = [(f"rare {i}", "rare") for i in range(needed)]
    write(tmp_path / "train.jsonl", numbered(40) + rare)
    assert 1 in np.bincount(load(tmp_path).train.labels)
    if needed > 1:
        write(tmp_path / "train.jsonl", numbered(40) + rare[1:])
        with pytest.raises(UserError, match=f"class 'rare': {needed - 1} where {needed} are needed"):
            load(tmp_path)


def test_one_class_only(refusal: Callable[..., str]) -> None:
    assert "train.jsonl: every row has the label 'ham'" in refusal({"train.jsonl": numbered(9, ("ham",))})


def test_classes_that_differ_by_case_only_are_noted(tmp_path: Path) -> None:
    data = load(write(tmp_path / "x.jsonl", numbered(60, ("food", "Food", "sport"))))
    assert data.notes[0] == "labels: 'Food', 'food' differ by case only and are different classes"
    assert data.label_names == ["Food", "food", "sport"]


def test_one_text_again_and_again_leaves_nothing_to_validate_with(refusal: Callable[..., str]) -> None:
    message = refusal({"train.jsonl": [("same", "ab"[i % 2]) for i in range(40)]})
    assert "Take repeated texts out, or add others." in message


def test_a_test_split_of_one_row(refusal: Callable[..., str]) -> None:
    message = refusal({"train.jsonl": numbered(20), "test.jsonl": [("t", "ham")]})
    assert message == "test.jsonl: a single row. Models are compared on two or more: add some."


def test_validation_that_is_a_copy_of_test(refusal: Callable[..., str]) -> None:
    files = {"train": numbered(20), "validation": numbered(4, prefix="t"), "test": numbered(4, prefix="t")}
    message = refusal({f"{name}.jsonl": rows for name, rows in files.items()})
    assert message.startswith("train.jsonl: every text of the validation split also stands in test")


def test_a_class_whose_every_text_stands_in_test(refusal: Callable[..., str]) -> None:
    rows = [*numbered(20, ("a", "b")), ("c", "c"), ("c", "c")]
    message = refusal({"train.jsonl": rows, "test.jsonl": [("c", "c"), ("d", "a")]})
    assert "no training row of class 'c' is left" in message


def test_a_folder_without_train(refusal: Callable[..., str]) -> None:
    assert "found: 'test.jsonl'" in refusal({"test.jsonl": numbered(4)})


def test_the_packaged_news_is_split() -> None:
    data = load("bbc_news")
    assert data.label_names == ["business", "entertainment", "politics", "sports", "tech"]
    assert len(data.test) == 445
    assert np.bincount(data.test.labels).tolist() == [102, 77, 84, 102, 80]
    assert not collapsed(data.train) & collapsed(data.test)
    assert any("rows dropped" in note for note in data.notes)


AG_NEWS = Path(__file__).parents[3] / "shared" / "data" / "ag_news"


@pytest.mark.skipif(not AG_NEWS.is_dir(), reason="the rows of AG News are not beside the repository")
def test_ag_news_from_a_folder() -> None:
    data = load(AG_NEWS, max_train_rows=500)
    assert data.label_names == ["0", "1", "2", "3"]
    assert len(data.train) == 500
    assert np.bincount(data.train.labels).min() > 100
    assert collapsed(data.train).isdisjoint(collapsed(data.test))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, datasets.Dataset]:
    """The splits of the one data set that the hub has."""
    splits: dict[str, datasets.Dataset] = {}
    monkeypatch.setattr(
        "lora_distill.hub.fetch_dataset", lambda name: HubDataset(splits=splits, revision="c0ffee", name=name)
    )
    return splits


def hub_split(rows: list[Row], names: list[str]) -> datasets.Dataset:
    values = datasets.Dataset.from_dict({"text": [t for t, _ in rows], "label": [y for _, y in rows]})
    return values.cast_column("label", datasets.ClassLabel(names=names))


def test_hub_labels_keep_their_order_and_names_without_rows_are_left_out(
    hub: dict[str, datasets.Dataset],
) -> None:
    names = ["World", "Nowhere", "Business"]
    hub["train"] = hub_split(numbered(40, (0, 2)), names)
    hub["test"] = hub_split([("t", -1)], names)
    data = load("ag_news")
    assert (data.name, data.label_names) == ("ag_news", ["World", "Business"])
    assert data.source["revision"] == "c0ffee"
    assert len(data.test) == 8
    assert data.notes[0] == "test: the data's own split has no labels and was left out"


def write_pairs(path: Path, pairs: list[tuple[str, str, str]]) -> Path:
    path.write_text("".join(json.dumps(dict(zip("abl", row, strict=True))) + "\n" for row in pairs))
    return path


def test_pairs_are_split_and_shared_as_texts_are(tmp_path: Path) -> None:
    """A pair that stands elsewhere with its texts swapped, or with another second text, is another one."""
    pairs = [(f"first {number}", f"second {number}", "xy"[number % 2]) for number in range(40)]
    write_pairs(tmp_path / "train.jsonl", [*pairs, ("t", "u", "x"), ("t", "v", "x"), ("u", "t", "y")])
    write_pairs(tmp_path / "validation.jsonl", [("v", "w", "x"), ("w", "v", "y")])
    write_pairs(tmp_path / "test.jsonl", [("t", " u", "x"), ("z", "z", "y")])
    more = write_pairs(tmp_path / "more.jsonl", [("t", "u", ""), ("first 0", "second 0", ""), ("t", "w", "")])
    settings: dict[str, Any] = {"text_column": "a", "text_pair_column": "b", "label_column": "l"}
    fractions = {"seed": 0, "validation_fraction": 0.1, "test_fraction": 0.2}

    def load_pairs(**changes: str | None) -> Dataset:
        return load_dataset(str(tmp_path), **(settings | fractions | {"unlabelled": str(more)} | changes))

    data = load_pairs()
    assert data.train.texts == [*((first, second) for first, second, _ in pairs), ("t", "v"), ("u", "t")]
    assert "train: 1 row dropped whose text also stands in test" in data.notes
    assert data.unlabelled is not None
    assert data.unlabelled.texts == [("t", "w")]
    singles = load_pairs(text_pair_column=None, unlabelled=None)
    swapped = load_pairs(text_column="b", text_pair_column="a")
    assert len({data.fingerprint, singles.fingerprint, swapped.fingerprint}) == 3
    judged = read_labelled(str(tmp_path), **settings)
    assert judged.texts == [("t", " u"), ("z", "z")]


def test_all_rows_of_a_file_are_judged(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [("a", "spam"), ("a", "ham"), ("b", 3)])
    texts, labels, source = read_labelled(str(path), text_column="text", label_column="label")
    assert (texts, labels) == (["a", "a", "b"], ["spam", "ham", "3"])
    assert (source["kind"], source["rows"]) == ("file", "all rows")
    assert map_labels(labels, ["3", "ham", "spam"], "x").tolist() == [2, 1, 0]


def test_the_test_split_of_a_folder_is_judged(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", numbered(4))
    judged = read_labelled(str(tmp_path), text_column="text", label_column="label")
    assert judged.texts == [f"text {i}" for i in range(4)]
    assert judged.source["rows"] == "the test split"


def test_a_carved_test_split_is_judged_as_it_was_trained_beside(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", numbered(200))
    for fraction in (0.2, 0.3):
        data = load(tmp_path, seed=5, test_fraction=fraction)
        judged = read_labelled(str(tmp_path), text_column="text", label_column="label", test_fraction=fraction)
        assert judged.texts == data.test.texts
        assert judged.labels == [data.label_names[label] for label in data.test.labels]
        assert "fixed seed" in judged.source["rows"]
