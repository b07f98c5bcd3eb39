"""A file that grows in many steps: under another name until it is whole, and from its last step on after a kill."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lora_distill.errors import UserError
from lora_distill.store import end_removal, fingerprint, read_json, remove_folder, write_json

Journal = dict[str, Any]


class Unfinished:
    """The folder beside a file in which that grows: its rows, those that could not be read, and a journal.

    What a killed process wrote after its last whole step is cut off before another goes on.

    Attributes:
        target: the file that is to be.
        bad: the file for rows that could not be read; not there if there are none.
        journal: of the last step; None before the first.
    """

    def __init__(self, target: Path) -> None:
        self.target, self.bad = target, target.with_name(f"{target.name}.bad.jsonl")
        self._folder = target.with_name(f"{target.name}.unfinished")
        self._rows, self._bad, self._journal = (self._folder / name for name in ("rows", "bad.jsonl", "journal.json"))
        self.journal: Journal | None = None
        self._in_place = False

    @property
    def begun(self) -> bool:
        """Whether there is a step to go on after."""
        return self._journal.exists()

    @contextmanager
    def open(self, *, overwrite: bool) -> Iterator[None]:
        """Begin, or go on, and hold off other processes. Where no step is done in the end, nothing is left.

        Args:
            overwrite: replace the file that is there, and what was begun.

        Raises:
            UserError: the file is there, cannot be written, another process writes it, or what was begun is damaged.
        """
        end_removal(self._folder)
        if not self.begun:
            self._refuse_what_is_there(overwrite=overwrite)
        lock = FileLock(self._folder / "lock")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{self.target}: another process is writing it.") from None
        except OSError as error:
            raise UserError(f"{self.target}: cannot be written: {error.strerror}. Give another --output.") from None
        try:
            if overwrite:
                self._journal.unlink(missing_ok=True)
            self.journal = self._read_journal() if self.begun else None
            if not self.journal:  # another process may have finished meanwhile
                self._refuse_what_is_there(overwrite=overwrite)
            self._cut()
            yield
        finally:
            if self._in_place or not self.begun:
                remove_folder(self._folder)
            lock.release()  # not before: another process might have begun in what is removed

    def append(self, rows: bytes, bad: bytes, journal: Journal) -> None:
        """Do a step, wholly or not at all.

        Args:
            rows: that are added to the file.
            bad: that are added to that of the rows that could not be read.
            journal: what there is to know for the next step; `finished` in it where there is none.
        """
        journal = journal | {"bytes": [_append(self._rows, rows), _append(self._bad, bad)]}
        write_json(self._journal, journal | {"fingerprint": fingerprint(journal)})
        self.journal = journal

    def finish(self, make_whole: Callable[[Path], Path]) -> None:
        """Put the file in place, after the last step, which may have been another process's.

        Args:
            make_whole: given all rows, where the file that was asked for lies now.
        """
        if self._rows.exists():  # else it was put in place before a kill
            whole = make_whole(self._rows)
            with whole.open("rb") as file:
                os.fsync(file.fileno())
            if not self._sizes[1]:
                self.bad.unlink(missing_ok=True)
            elif self._bad.exists():
                self._bad.replace(self.bad)
            whole.replace(self.target)
        self._in_place = True

    def _read_journal(self) -> Journal:
        try:
            journal: Journal = read_json(self._journal)
            is_whole = journal.pop("fingerprint") == fingerprint(journal)
        except (ValueError, LookupError, TypeError, AttributeError):
            is_whole = False
        if not is_whole:
            raise UserError(f"{self._journal}: is damaged. --overwrite labels all rows anew.")
        return journal

    def _refuse_what_is_there(self, *, overwrite: bool) -> None:
        for path in (self.target, self.bad):
            if path.is_dir() or (path.exists() and not overwrite):
                way_out = "" if path.is_dir() else ", or replace it with --overwrite"
                raise UserError(f"{path}: exists. Give another --output{way_out}.")

    def _cut(self) -> None:
        """Let the files be as they were after the last whole step."""
        for path, size in zip((self._rows, self._bad), self._sizes, strict=True):
            there = path.stat().st_size if path.exists() else 0
            if there < size and not (self.journal or {}).get("finished"):  # when it is, they may be in place
                raise UserError(f"{path}: is shorter than it was. --overwrite labels all rows anew.")
            if there > size:
                os.truncate(path, size)

    @property
    def _sizes(self) -> list[int]:
        """Bytes of rows and of bad rows after the last whole step."""
        sizes: list[int] = self.journal["bytes"] if self.journal else [0, 0]
        return sizes


def _append(path: Path, data: bytes) -> int:
    """The file's size afterwards."""
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()
