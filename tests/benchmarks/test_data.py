from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.data import draw, layers_of_roles, lengthen, read_rows, student_shape, token_lengths, write_rows
from benchmarks.flops import Shape


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    write_rows(folder / "train.csv", [(f"text, {n}\n", str(n % 2)) for n in range(40)])
    write_rows(folder / "test.csv", [(f"text, {n}", str(n % 2)) for n in range(35, 60)])
    return folder


def test_drawn_rows_are_as_many_as_asked_and_stand_in_one_split(source: Path, tmp_path: Path) -> None:
    drawn = draw(source, tmp_path / "drawn", train=35, validation=10, test=15)
    splits = [read_rows(drawn / f"{name}.csv") for name in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [35, 10, 15]
    assert len({text.strip() for split in splits for text, _ in split}) == 60


def test_what_training_leaves_is_judged_on_where_test_has_too_few(source: Path, tmp_path: Path) -> None:
    write_rows(source / "train.csv", [(f"text, {n // 2}\n", str(n % 4 // 2)) for n in range(80)])  # each text twice
    drawn = draw(source, tmp_path / "drawn", train=20, validation=10, test=30)
    train, validation, test = (read_rows(drawn / f"{name}.csv") for name in ("train", "validation", "test"))
    assert len({text.strip() for text, _ in train + validation + test}) == 60
    assert sum(text.endswith("\n") for text, _ in test) == 15


def test_the_same_seed_draws_the_same_and_another_does_not(source: Path, tmp_path: Path) -> None:
    first, again, other = (
        read_rows(draw(source, tmp_path / str(n), train=20, validation=5, test=5, seed=seed) / "train.csv")
        for n, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert first != other


def test_too_few_rows_are_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="36 training"):
        draw(source, tmp_path / "drawn", train=36, validation=5, test=5)


def test_lengthened_texts_keep_their_label_and_begin_as_before(rows: Path, tmp_path: Path) -> None:
    long = read_rows(lengthen(rows, tmp_path / "long", words=40) / "train.csv")
    before = read_rows(rows / "train.csv")
    assert [label for _, label in long] == [label for _, label in before]
    assert all(len(now.split()) >= 40 and now.startswith(was) for (now, _), (was, _) in zip(long, before, strict=True))


def test_lengths_are_the_tokenizers_cut(encoder: Path, rows: Path) -> None:
    lengths = token_lengths(encoder, rows / "train.csv", 8)
    assert len(lengths) == 48
    assert max(lengths) == 8


def test_shape_and_layers_come_from_the_encoder(tiny: Callable[[str], Path], rows: Path) -> None:
    assert student_shape(tiny("bert"), rows, layers=2, rank=4) == Shape(32, 64, 2, 4, 2)
    assert layers_of_roles(tiny("bert")) == (2, 1)
