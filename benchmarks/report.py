"""A benchmark's table on the terminal and its JSON: the figures, every raw round, and what they were taken on."""

import json
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine

_console = Console(width=None if sys.stdout.isatty() else 140)


class Report:
    """A table that fills row by row.

    Args:
        title: of the table.
        columns: their headings; the first is the row's name.
    """

    def __init__(self, title: str, columns: Iterable[str]) -> None:
        self._table = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            self._table.add_column(column, justify="right" if number else "left")

    def row(self, *cells: str) -> None:
        """Add a row."""
        self._table.add_row(*cells)

    def show(self) -> None:
        """Print the table."""
        _console.print(self._table)

    def finish(self, out: Path, contents: Mapping[str, Any]) -> None:
        """Print the table; write the contents and the machine as JSON."""
        self.show()
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"machine": machine.describe(), **contents}, indent=1) + "\n", encoding="utf-8")
        say(f"written to {out}")


def say(text: str) -> None:
    """A line on the terminal."""
    _console.print(text, markup=False, highlight=False)


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Median, and the least and the greatest in brackets."""
    ordered = sorted(values)
    middle, low, high = (f"{v:,.{digits}f}" for v in (statistics.median(ordered), ordered[0], ordered[-1]))
    return f"{middle} [{low} – {high}]"


def times(ours: float, theirs: float) -> str:
    """How many times ours is theirs."""
    return f"{ours / theirs:.2f}x"
