"""What a person sees while it runs: one line a stage with rate and time left, and a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from lora_distill.errors import UserError

logger = logging.getLogger(__name__)
PLAIN_LINE_SECONDS = 10.0
_console = Console(stderr=True, soft_wrap=True, highlight=False)


def terminal() -> Console | None:
    """Standard error, if something that moves is welcome there: on a terminal, and where nobody asked for quiet."""
    return _console if _console.is_terminal and not _is_quiet() else None


@contextmanager
def track(stage: str, total: int, what: str = "rows") -> Iterator[Callable[[int], None]]:
    """Show how far a stage of `total` rows, or what else it does, is; yields the function that takes those just done.

    On a terminal a line that moves; else a plain line now and then. Nothing for an empty `stage`, nor where
    `log_to_terminal` was told to be quiet or was not called at all.
    """
    if not stage or _is_quiet():
        yield lambda _rows: None
    elif console := terminal():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(stage, total=total, rate="")

            def advance(rows: int) -> None:
                speed = bar.tasks[0].speed
                bar.update(task, advance=rows, rate=f"{_rate(speed)} {what}/s" if speed else "")

            yield advance
    else:
        yield _plain_lines(stage, total, what)


def _plain_lines(stage: str, total: int, what: str) -> Callable[[int], None]:
    started = last = time.monotonic()
    done = 0

    def advance(rows: int) -> None:
        nonlocal done, last
        done += rows
        now = time.monotonic()
        if now - last >= PLAIN_LINE_SECONDS and done < total:
            last, rate = now, done / (now - started)
            left = (total - done) / rate
            shown = f"{done:,} of {total:,} {what}, {_rate(rate)} {what}/s"
            logger.info("%s: %s, %.0f s left", stage, shown, left)

    return advance


def _rate(rate: float) -> str:
    """`1,200`, `0.04`: of what takes long, two digits."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


@contextmanager
def track_source(
    source: str, whole: int | None, done: int, rows_before: int = 0
) -> Iterator[Callable[[int, int], None]]:
    """As `track`, where nobody has counted the rows: yields the function that takes the rows just done, and their size.

    Args:
        source: what the rows are read from.
        whole: its size, in bytes or whatever the rows' is in; None where it has no end that is known.
        done: of that size, before.
        rows_before: that this were.
    """
    started = last = time.monotonic()
    rows = read = 0

    def pace(more: int, size: int) -> str:
        nonlocal rows, read
        rows, read = rows + more, read + size
        return f"{rows_before + rows:,} rows, {rows / (time.monotonic() - started):,.0f} rows/s"

    def plain_lines(more: int, size: int) -> None:
        nonlocal last
        told, now = pace(more, size), time.monotonic()
        if now - last >= PLAIN_LINE_SECONDS and (whole is None or done + read < whole):
            last = now
            if whole is not None and read:
                left = (whole - done - read) * (now - started) / read
                told += f", {(done + read) / whole:.0%} done, {left:.0f} s left"
            logger.info("%s: %s", source, told)

    if _is_quiet():
        yield lambda _rows, _size: None
    elif console := terminal():
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("" if whole is None else "{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[pace]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(source, total=whole, completed=done, pace="")
            yield lambda more, size: bar.update(task, advance=size, pace=pace(more, size))
    else:
        yield plain_lines


ONCE = {"once": True}  # `extra` of a message that the experiments of a suite share


class _TerminalHandler(logging.Handler):
    """Prints through the progress line's console, so that a message never breaks a moving line."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message; warnings stand out."""
        message = record.getMessage()
        if hasattr(record, "once"):
            if message in self._printed:
                return
            self._printed.add(message)
        is_warning = record.levelno >= logging.WARNING
        _console.print(Text(("WARNING: " if is_warning else "") + message), style="yellow" if is_warning else "")


def log_to_terminal(*, quiet: bool) -> None:
    """Send this package's messages to standard error: all of them, or warnings and errors only."""
    package = logging.getLogger("lora_distill")
    package.setLevel(logging.DEBUG)
    package.propagate = False
    handler = _TerminalHandler(logging.WARNING if quiet else logging.INFO)
    package.handlers = [handler]


def _terminals() -> list[_TerminalHandler]:
    return [each for each in logging.getLogger("lora_distill").handlers if isinstance(each, _TerminalHandler)]


def _is_quiet() -> bool:
    return not any(each.level <= logging.INFO for each in _terminals())


@contextmanager
def warnings_only() -> Iterator[None]:
    """Show warnings and errors only until the block ends."""
    before = {each: each.level for each in _terminals()}
    for each in before:
        each.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for each, level in before.items():
            each.setLevel(level)


class _LogFile(logging.FileHandler):
    """A full disk costs lines of the log here; the run stops, with a message, where its results are written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own
        """Say nothing."""

    def close(self) -> None:
        """Close the file, with what could be written of it."""
        with suppress(OSError):
            super().close()


@contextmanager
def run_log() -> Iterator[Callable[[Path], None]]:
    """Keep every message, other libraries' warnings too; yields the function that says which file they go to.

    Messages from before the file is known are kept in memory, for a run's folder appears only when all is checked.
    The log is the same whether or not anybody asked to see the messages.
    """
    buffer = MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1)
    package = logging.getLogger("lora_distill")
    loggers, level = [package, logging.getLogger("py.warnings")], package.level
    package.setLevel(logging.DEBUG)
    logging.captureWarnings(capture=True)
    for each in loggers:
        each.addHandler(buffer)

    def into(path: Path) -> None:
        buffer.setTarget(_LogFile(path))
        buffer.capacity = 1

    try:
        yield into
    except BaseException as error:
        is_ours = isinstance(error, Exception) and not isinstance(error, UserError)
        trace = sys.exc_info() if is_ours else None
        buffer.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, "stopped: %r", (error,), trace))
        raise
    finally:
        package.setLevel(level)
        logging.captureWarnings(capture=False)
        for each in loggers:
            each.removeHandler(buffer)
        target = buffer.target
        buffer.close()
        if target is not None:
            target.close()
