"""How the runs of a suite stand, as a table that stays in place: their logs say it, whoever trains them."""

import re
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lora_distill.config import ROLES
from lora_distill.progress import terminal
from lora_distill.run_folder import LOG, RunFolder
from lora_distill.running import SuiteResult
from lora_distill.suite import Suite

_TAIL = 4096  # bytes of a log
# What a training logs, but not what is said of a role before it begins.
_STAGE = rf": ({'|'.join(ROLES)}): (?:epoch (\d+) of (\d+):|\w+: frozen layers)"
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
        outcome: says which run now, which failed, and what came of those that are done.
    """

    def __init__(self, suite: Suite, outcome: SuiteResult) -> None:
        self._runs, self._outcome, self._started = suite.runs, outcome, time.monotonic()
        self._trained, self._end = 0, 0.0

    def draw(self, height: int) -> Table:
        """As it stands now, in so many lines of a terminal at most; runs that have to wait are left out first."""
        results = {each["exp_name"]: each for each in self._outcome.results}
        done = {name: results[run.exp_name] for name, run in self._runs.items() if run.exp_name in results}
        kinds = {name: self._kind(name, done) for name in self._runs}
        shown = sorted(kinds, key=lambda name: _ORDER.index(kinds[name]))[: max(1, height - _LINES_AROUND)]
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, caption=self._caption(list(kinds.values())))
        roles = [role for role in ROLES if any(role in run.roles for run in self._runs.values())]
        for title in ("Run", "State", *(role.capitalize() for role in roles)):
            table.add_column(title)
        for name in (name for name in self._runs if name in shown):
            state = self._progress(name) if kinds[name] == "running" else kinds[name]
            of = done.get(name, {})
            accuracies = [f"{of[role]['test']['accuracy']:.2%}" if role in of else "" for role in roles]
            style = {"running": "bold", "failed": "red", "waiting": "dim"}.get(kinds[name], "")
            table.add_row(*map(Text, (name, state, *accuracies)), style=style)
        return table

    def _kind(self, name: str, done: Container[str]) -> str:
        if name in self._outcome.failures:
            return "failed"
        if name in self._outcome.running:
            return "running"
        return "done" if name in done else "waiting"

    def _progress(self, name: str) -> str:
        """`student, 2 of 3 epochs`, by the last that its log says of a role."""
        config = self._runs[name]
        run = RunFolder.of(config)
        found = re.findall(_STAGE, _tail(run.path / LOG, run.outdated_since))
        if not found:
            return "begins"
        role, epoch, epochs = found[-1]
        return f"{role}, {epoch or 0} of {epochs or config.own('num_epochs', role)} epochs"

    def _caption(self, kinds: list[str]) -> str:
        told, now, trained = f"{kinds.count('done')} of {len(kinds)} done", time.monotonic(), len(self._outcome.trained)
        if trained != self._trained:  # only then is known how long one takes
            left = kinds.count("waiting") + kinds.count("running")
            self._trained, self._end = trained, now + (now - self._started) / trained * left
        if trained:
            told += f", about {timedelta(seconds=round(max(0.0, self._end - now)))} left"
        return told


def _tail(path: Path, since: float) -> str:
    """The end of a log; of one that nothing was written into since then, which will be replaced, nothing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read().decode(errors="replace") if path.stat().st_mtime >= since else ""
    except OSError:  # not begun, or just overwritten
        return ""
