import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lora_distill.data.splits import (
    carve_test,
    carve_validation,
    count_repeats,
    draw_folds,
    draw_stratified,
    drop_shared,
    limit_each_class,
    limit_train,
    limit_validation,
    require_rows,
)
from lora_distill.data.types import Rows
from lora_distill.errors import UserError
from lora_distill.seeding import generator

class_sizes = st.lists(st.integers(3, 40), min_size=1, max_size=8)


def shuffled_labels(sizes: list[int]) -> NDArray[np.int64]:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(0).permutation(labels)


def numbered(labels: NDArray[np.int64]) -> Rows:
    return Rows(np.arange(len(labels)), [f"text {i}" for i in range(len(labels))], labels)


@given(sizes=class_sizes, fraction=st.floats(0.01, 0.99), leave=st.integers(0, 2))
def test_a_draw_keeps_the_shares_of_the_classes(sizes: list[int], fraction: float, leave: int) -> None:
    labels = shuffled_labels(sizes)
    size = round(fraction * len(labels))
    drawn = draw_stratified(labels, size, generator(0, "x"), leave=leave)
    assert np.all(np.diff(drawn) > 0)
    counts, all_counts = np.bincount(labels[drawn], minlength=len(sizes)), np.array(sizes)
    assert np.all(counts >= 1)
    assert np.all(counts <= all_counts - leave)
    assert len(drawn) == min(max(size, len(sizes)), sum(sizes) - leave * len(sizes))
    share = all_counts * len(drawn) / len(labels)
    free = (share >= 1) & (share <= all_counts - leave)
    if np.all(free):
        assert np.all(np.abs(counts - share) < 1)


@given(sizes=class_sizes)
def test_a_draw_of_all_rows_is_all_rows(sizes: list[int]) -> None:
    labels = shuffled_labels(sizes)
    assert draw_stratified(labels, len(labels), generator(0, "x")).tolist() == list(range(len(labels)))


def test_a_rare_class_is_drawn_though_its_share_is_less_than_a_row() -> None:
    labels = shuffled_labels([1000, 1000, 2, 1])
    assert np.bincount(labels[draw_stratified(labels, 10, generator(0, "x"))]).tolist() == [4, 4, 1, 1]


def test_a_class_without_rows_is_left_out_of_a_draw() -> None:
    labels = np.array([0, 2, 0, 2, 0, 2])
    assert np.bincount(labels[draw_stratified(labels, 4, generator(0, "x"))]).tolist() == [2, 0, 2]


def test_a_draw_is_random_in_every_class() -> None:
    labels = shuffled_labels([50, 50])
    often = np.zeros(100)
    for seed in range(400):
        often[draw_stratified(labels, 20, generator(seed, "x"))] += 1
    # 80 expected, standard deviation 8: five of them either way.
    assert often.min() > 40
    assert often.max() < 120


@given(sizes=class_sizes, seed=st.integers(0, 1000), fraction=st.floats(0.05, 0.9))
def test_carving_parts_the_rows(sizes: list[int], seed: int, fraction: float) -> None:
    rows = numbered(shuffled_labels(sizes))
    rest, test = carve_test(rows, fraction, leave=2)
    train, validation = carve_validation(rest, fraction, seed)
    ids = np.concatenate([train.ids, validation.ids, test.ids])
    assert sorted(ids.tolist()) == rows.ids.tolist()
    for split in (train, validation, test):
        assert np.all(np.diff(split.ids) > 0)
        assert set(split.labels.tolist()) == set(range(len(sizes)))
        assert split.texts == [rows.texts[i] for i in split.ids]
        assert split.labels.tolist() == rows.labels[split.ids].tolist()


def test_validation_depends_on_the_seed_and_on_nothing_else() -> None:
    rows = numbered(shuffled_labels([60, 40]))
    drawn = [carve_validation(rows, 0.2, seed)[1].ids.tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 20


def test_too_few_rows_of_a_class() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    require_rows(labels, ["train", "validation"], ["ham", "spam"], "x.csv")
    with pytest.raises(UserError) as error:
        require_rows(labels, ["train", "validation", "test"], ["ham", "spam"], "x.csv")
    assert "x.csv: too few rows of class 'spam': 2 where 3 are needed" in str(error.value)
    assert "train, validation, test" in str(error.value)
    assert str(error.value).endswith("\nAdd rows of this class or leave it out.")


def test_too_few_rows_of_a_class_that_is_another_one_written_otherwise() -> None:
    with pytest.raises(UserError, match=r"class 'sports': 1 where 2 ") as error:
        require_rows(np.array([0, 0, 1]), ["train", "validation"], ["Sports", "sports"], "x.csv")
    assert str(error.value).splitlines()[1:] == [
        "'Sports' differs from it by case only. If they are one class, write it one way in all rows."
    ]


def test_shared_texts_are_dropped_whatever_their_white_space_and_label() -> None:
    rows = Rows(np.array([3, 5, 8]), ["a  b\n", "A b", "c"], np.array([0, 1, 0]))
    fresh, dropped = drop_shared(rows, Rows(np.array([0]), [" a b"], np.array([1])))
    assert dropped == 1
    assert (fresh.ids.tolist(), fresh.texts, fresh.labels.tolist()) == ([5, 8], ["A b", "c"], [1, 0])


def test_of_pairs_both_texts_are_shared_or_none() -> None:
    pairs = [("a", "b"), ("b", "a"), ("a", "c"), (" a", "b\n")]
    rows = Rows(np.arange(4), pairs, np.array([0, 1, 0, 1]))
    fresh, dropped = drop_shared(rows, Rows(np.array([0]), [("a ", "b")], np.array([0])))
    assert (fresh.ids.tolist(), fresh.texts, dropped) == ([1, 2], pairs[1:3], 2)
    assert drop_shared(rows, Rows(np.array([0]), ["a", "b", "a b"], np.array([0])))[1] == 0
    assert count_repeats(rows) == (1, 1)


def test_every_row_may_be_dropped() -> None:
    rows = numbered(np.array([0, 1]))
    fresh, dropped = drop_shared(rows, rows)
    assert (len(fresh), dropped) == (0, 2)
    assert fresh.ids.dtype == fresh.labels.dtype == np.int64


def test_the_training_rows_that_are_kept_depend_on_the_seed() -> None:
    rows = numbered(shuffled_labels([60, 40]))
    drawn = [limit_train(rows, 10, seed).ids.tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert np.bincount(rows.labels[drawn[0]]).tolist() == [6, 4]


@pytest.mark.parametrize(("train_rows", "expected"), [(900, 100), (100, 50), (10_000, 300)])
def test_validation_is_limited_in_proportion(train_rows: int, expected: int) -> None:
    validation = numbered(shuffled_labels([200, 100]))
    assert len(limit_validation(validation, train_rows, 0.1, seed=0)) == expected


def test_repeats_are_counted() -> None:
    texts = ["a", " a ", "a", "b", "b", "c"]
    rows = Rows(np.arange(6), texts, np.array([0, 1, 2, 1, 1, 0]))
    assert count_repeats(rows) == (3, 1)


@given(sizes=class_sizes, data=st.data(), seed=st.integers(0, 9))
def test_so_many_of_each_class(sizes: list[int], data: st.DataObject, seed: int) -> None:
    rows = numbered(shuffled_labels(sizes))
    size = data.draw(st.integers(1, min(sizes)))
    drawn = limit_each_class(rows, size, seed)
    assert np.bincount(drawn.labels).tolist() == [size] * len(sizes)
    assert np.all(np.diff(drawn.ids) > 0)


@given(sizes=st.lists(st.integers(6, 30), min_size=1, max_size=5), folds=st.integers(2, 6), seed=st.integers(0, 9))
def test_folds_part_the_rows_and_keep_the_shares_of_the_classes(sizes: list[int], folds: int, seed: int) -> None:
    rows = numbered(shuffled_labels(sizes))
    parts = draw_folds(rows, folds, seed, [str(label) for label in range(len(sizes))])
    assert np.sort(np.concatenate(parts)).tolist() == list(range(len(rows)))
    assert np.ptp([len(part) for part in parts]) <= 1
    counts = [np.bincount(rows.labels[part], minlength=len(sizes)) for part in parts]
    assert np.ptp(counts, axis=0).max() <= 1
    again = draw_folds(rows, folds, seed, [str(label) for label in range(len(sizes))])
    assert all(one.tolist() == other.tolist() for one, other in zip(parts, again, strict=True))


def test_rows_of_one_text_are_in_one_fold() -> None:
    texts = [f"text  {number % 9}" if number % 2 else f" text {number % 9}" for number in range(36)]
    parts = draw_folds(Rows(np.arange(36), texts, np.arange(36) % 3), 3, 0, ["a", "b", "c"])
    in_fold = [{" ".join(texts[row].split()) for row in part} for part in parts]
    assert sum(map(len, in_fold)) == len(set.union(*in_fold)) == 9


def test_seeds_draw_other_folds() -> None:
    rows = numbered(shuffled_labels([20, 20]))
    first = [draw_folds(rows, 2, seed, ["a", "b"])[0].tolist() for seed in range(3)]
    assert len({tuple(each) for each in first}) == 3


def test_folds_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match=r"--teacher_folds 5: there are 4 different training texts\. Ask for fewer"):
        draw_folds(numbered(shuffled_labels([2, 2])), 5, 0, ["a", "b"])
    with pytest.raises(UserError, match=r"one fold holds all rows of 'b', and its teacher would not know it"):
        draw_folds(numbered(shuffled_labels([9, 1])), 2, 0, ["a", "b"])
