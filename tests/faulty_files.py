"""Files with many faults, and whether each was told with its line."""

from collections.abc import Iterable
from pathlib import Path

from lora_distill.errors import UserError


def write(folder: Path, text: str) -> Path:
    """A file of that text, called mine.yaml."""
    file = folder / "mine.yaml"
    file.write_text(text)
    return file


def assert_each_told_once(error: UserError, faults: Iterable[tuple[int, str]]) -> None:
    """For each line of the file and some words, one line of the message has both."""
    told = str(error).splitlines()
    for line, words in faults:
        assert sum(f"line {line}: " in each and words in each for each in told) == 1, (line, told)
