"""Rows for the benchmarks: drawn once into a folder of CSV files that both sides read."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from transformers import AutoConfig, AutoTokenizer

from benchmarks.flops import Shape

Row = tuple[str, str]


def draw(source: Path, target: Path, *, train: int, validation: int, test: int, seed: int = 0) -> Path:
    """Write train.csv, validation.csv and test.csv with rows drawn from a folder; no text stands in two of them.

    Args:
        source: with train.csv, and test.csv that validation and test are drawn from, and where that has too few, from
            what is left of train.csv; columns text and label.
        target: made if need be.
        train: rows; so for the others.
        validation: rows.
        test: rows.
        seed: of the draw.

    Returns:
        The target.

    Raises:
        ValueError: the source has too few rows.
    """
    held_out = _shuffled(read_rows(source / "test.csv"), seed)
    known = {" ".join(text.split()) for text, _ in held_out}
    pool = {" ".join(row[0].split()): row for row in _shuffled(read_rows(source / "train.csv"), seed)}
    rows = [row for text, row in pool.items() if text not in known]
    held_out += rows[train:]
    if len(rows) < train or len(held_out) < validation + test:
        raise ValueError(
            f"{source}: {train} training and {validation + test} other rows were asked for,"
            f" {len(rows)} are there in train.csv and {len(held_out)} beside the training rows"
        )
    target.mkdir(parents=True, exist_ok=True)
    write_rows(target / "train.csv", rows[:train])
    write_rows(target / "validation.csv", held_out[:validation])
    write_rows(target / "test.csv", held_out[validation : validation + test])
    return target


def lengthen(source: Path, target: Path, words: int) -> Path:
    """The same rows with texts of this many words or more, each continued with the texts that follow it."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.glob("*.csv")):
        rows = read_rows(file)
        write_rows(target / file.name, [(_continued(rows, at, words), label) for at, (_, label) in enumerate(rows)])
    return target


def _continued(rows: Sequence[Row], at: int, words: int) -> str:
    text: list[str] = []
    while len(text) < words:
        text += rows[at % len(rows)][0].split()
        at += 1
    return " ".join(text)


def read_rows(path: Path) -> list[Row]:
    """Texts and labels of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write texts and labels as a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def _shuffled(rows: list[Row], seed: int) -> list[Row]:
    return [rows[index] for index in np.random.default_rng(seed).permutation(len(rows))]


def token_lengths(base_model: Path, file: Path, max_length: int) -> list[int]:
    """Tokens of each row of a CSV file, special tokens included, as the model's tokenizer cuts them."""
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    texts = [text for text, _ in read_rows(file)]
    encoded = tokenizer(texts, truncation=True, max_length=max_length, return_length=True)
    return [int(length) for length in encoded["length"]]


def layers_of_roles(base_model: Path) -> tuple[int, int]:
    """Layers that teacher and student adapt: two thirds and half of the encoder's."""
    total = int(AutoConfig.from_pretrained(base_model).num_hidden_layers)
    return 2 * total // 3, total // 2


def student_shape(base_model: Path, rows: Path, *, layers: int, rank: int) -> Shape:
    """What `step_flops` needs to know of a student on this encoder and these rows."""
    config = AutoConfig.from_pretrained(base_model)
    classes = len({label for _, label in read_rows(rows / "train.csv")})
    return Shape(int(config.hidden_size), int(config.intermediate_size), layers, rank, classes)
