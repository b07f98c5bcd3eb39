"""A tiny encoder and a few rows for the benchmarks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.data import write_rows

WORDS = {"up": ("rise", "climb", "ascend"), "down": ("fall", "sink", "drop")}


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.csv, validation.csv and test.csv, no text twice."""
    folder = tmp_path_factory.mktemp("rows")
    for name, start, count in (("train", 0, 48), ("validation", 100, 12), ("test", 200, 12)):
        made = []
        for number in range(start, start + count):
            label = ("up", "down")[number % 2]
            made.append((" ".join([*WORDS[label][: 1 + number % 3], str(number)]), label))
        write_rows(folder / f"{name}.csv", made)
    return folder


@pytest.fixture(scope="session")
def encoder(tiny: Callable[[str], Path]) -> Path:
    return tiny("mpnet")
