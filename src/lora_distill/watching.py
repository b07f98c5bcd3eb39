"""How the runs of a suite stand, as a table that stays in place: read from their folders, whoever trains them."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lora_distill.config import ROLES
from lora_distill.errors import UserError
from lora_distill.progress import terminal
from lora_distill.run_folder import LOG, RunFolder
from lora_distill.running import SuiteResult
from lora_distill.suite import Suite

_TAIL = 4096  # bytes of a log
_LINES_AROUND = 7  # of a terminal: the table's frame, and what is logged above it
_ORDER = ("running", "failed", "done", "waiting")  # which runs are shown where not all have room


@contextmanager
def watched(suite: Suite, outcome: SuiteResult) -> Iterator[None]:
    """Show the table while the suite runs, where there is a terminal to show it on.

    Args:
        suite: whose runs.
        outcome: is filled meanwhile.
    """
    console, table = terminal(), SuiteTable(suite, outcome)
    if console is None:
        yield
        return
    with Live(console=console, get_renderable=lambda: table.draw(console.height), refresh_per_second=2, transient=True):
        yield


class SuiteTable:
    """The runs of a suite with their states, and the time left.

    Args:
        suite: whose runs.
        outcome: says which run now, and which failed.
    """

    def __init__(self, suite: Suite, outcome: SuiteResult) -> None:
        self._runs = {name: RunFolder.of(config) for name, config in suite.runs.items()}
        self._epochs = {name: config.num_epochs for name, config in suite.runs.items()}
        self._outcome, self._started = outcome, time.monotonic()
        self._accuracies: dict[str, list[str]] = {}
        self._trained, self._end = 0, 0.0

    def draw(self, height: int) -> Table:
        """As it stands now, in so many lines of a terminal at most; runs that have to wait are left out first."""
        kinds = {name: self._kind(name) for name in self._runs}
        shown = sorted(kinds, key=lambda name: _ORDER.index(kinds[name]))[: max(1, height - _LINES_AROUND)]
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, caption=self._caption(list(kinds.values())))
        for title in ("Run", "State", *(role.capitalize() for role in ROLES)):
            table.add_column(title)
        for name in (name for name in self._runs if name in shown):
            state = self._progress(name) if kinds[name] == "running" else kinds[name]
            accuracies = self._read(name) if kinds[name] == "done" else []
            style = {"running": "bold", "failed": "red", "waiting": "dim"}.get(kinds[name], "")
            table.add_row(*map(Text, (name, state, *accuracies)), style=style)
        return table

    def _kind(self, name: str) -> str:
        if name in self._outcome.failures:
            return "failed"
        if name in self._outcome.running:
            return "running"
        return "done" if name in self._accuracies or self._runs[name].finished else "waiting"

    def _progress(self, name: str) -> str:
        """`student, 2 of 3 epochs`, by the last that its log says of a role."""
        found = re.findall(r": (teacher|student|control): (?:epoch (\d+):)?", _tail(self._runs[name].path / LOG))
        if not found:
            return "begins"
        role, epoch = found[-1]
        return f"{role}, {epoch or 0} of {self._epochs[name]} epochs"

    def _read(self, name: str) -> list[str]:
        if name not in self._accuracies:
            try:
                results = self._runs[name].results()
                self._accuracies[name] = [
                    f"{results[role]['test']['accuracy']:.2%}" if role in results else "" for role in ROLES
                ]
            except UserError:  # told when the suite comes to it
                return []
        return self._accuracies[name]

    def _caption(self, kinds: list[str]) -> str:
        told, now, trained = f"{kinds.count('done')} of {len(kinds)} done", time.monotonic(), len(self._outcome.trained)
        if trained != self._trained:  # only then is known how long one takes
            left = kinds.count("waiting") + kinds.count("running")
            self._trained, self._end = trained, now + (now - self._started) / trained * left
        if trained:
            told += f", about {timedelta(seconds=round(max(0.0, self._end - now)))} left"
        return told


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:  # not begun, or just overwritten
        return ""
