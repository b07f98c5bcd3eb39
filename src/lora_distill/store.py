"""Where things lie on disk: content-addressed artefacts and run folders, each file whole or not there.

What a killed process left half-written is removed by the next that writes the same. Two that write a file at once each
have a place of their own, and the last one's file stays; those that fill a folder are kept apart by locks.
"""

import hashlib
import json
import logging
import math
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from lora_distill.errors import UserError

logger = logging.getLogger(__name__)
Contents = TypeVar("Contents")
ARTEFACTS, RECIPE = ".artefacts", "recipe.json"  # an artefact is finished when its recipe is there


def fingerprint(value: object) -> str:
    """SHA-256 of a JSON-able value; equal values give equal fingerprints."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 in hex of a file's bytes, however many."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file beside `path`, flush it to disk and put it in place: whole or not at all."""
    here = f".{path.name}.{socket.gethostname()}-"  # whether a process of another machine lives is not ours to know
    beside = path.with_name(f"{here}{os.getpid()}-{threading.get_native_id()}.part")
    with _system_errors(path, beside):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.iterdir():
            writer = re.fullmatch(rf"{re.escape(here)}(\d+)-\d+\.part", left.name)
            if writer and not _is_alive(int(writer[1])):
                left.unlink(missing_ok=True)
        try:
            write(beside)
            _flush(beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""

    def write(beside: Path) -> None:
        beside.write_bytes(content)

    write_whole(path, write)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON holds what it holds
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_if_whole(read: Callable[[Path], Contents], path: Path) -> Contents | None:
    """What a file holds on which nothing else depends; None, and a warning, where it is damaged or gone."""
    try:
        return read(path)
    except (OSError, ValueError) as error:
        logger.warning("%s is left out, for it cannot be read: %s", path, error)
        return None


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to fill; put in place, over what was there, when the block ends without an error.

    For one at a time, by a lock or as `locked_folder`: two that fill it at once would share it.
    """
    beside = path.with_name(f".{path.name}.part")
    with _system_errors(path, beside):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(_away(path), ignore_errors=True)
        beside.mkdir()
        try:
            yield beside
            for file in beside.rglob("*"):
                if file.is_file():
                    _flush(file)
            _exchange(beside, path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def locked_folder(path: Path) -> Iterator[Path]:
    """As `whole_folder`, for what no other lock keeps apart: others that fill the same wait.

    Where `path` is a link, the folder that it leads to is put in place, and the link stays.
    """
    path = path.resolve()
    with lock(path.parent, f".{path.name}"):
        try:
            with whole_folder(path) as folder:
                yield folder
        finally:  # as long as it is held: who waits for what is gone by then asks again
            (path.parent / f".{path.name}.lock").unlink(missing_ok=True)


def _exchange(new: Path, path: Path) -> None:
    """Put a folder in the place of another, which stays there where that fails."""
    away, was_there = _away(path), path.exists()
    if was_there:
        path.replace(away)
    try:
        new.replace(path)
    except BaseException:
        if was_there:
            away.replace(path)
        raise
    if was_there:
        shutil.rmtree(away)


def check_named(folder: Path) -> None:
    """Check that a folder can be put in place whole, for which there must be a place beside it.

    Raises:
        UserError: it is `.`, `..` or `/`, or below a file.
    """
    if file := next((parent for parent in folder.parents if parent.is_file()), None):
        raise UserError(f"{folder}: {file} is a file. Give another folder.")
    if folder.name in {"", ".."}:
        raise UserError(f"{folder}: is no folder's own name. Give one, such as {folder / 'model'}.")


def remove_folder(path: Path) -> None:
    """Remove a folder, if there is one, whole or not at all: a kill leaves no half of it under its name."""
    end_removal(path)
    if path.exists():
        path.replace(_away(path))
        with suppress(FileNotFoundError):  # another process ends it, too
            shutil.rmtree(_away(path))


def end_removal(path: Path) -> None:
    """Remove what a kill left of the removal of a folder, and none that is there."""
    shutil.rmtree(_away(path), ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _away(path: Path) -> Path:
    return path.with_name(f".{path.name}.away.part")


@contextmanager
def _system_errors(path: Path, beside: Path) -> Iterator[None]:
    """What the system refused is an OSError that names `path`: shutil and what is written in Rust say it in words.

    The place `beside` it, where it is made, is nobody's to know.
    """
    try:
        yield
    except Exception as error:
        told = re.search(r"\[Errno (\d+)\]|\(os error (\d+)\)", str(error))
        number = (isinstance(error, OSError) and error.errno) or (told and int(told[1] or told[2]))
        named = error.filename if isinstance(error, OSError) else None
        if not number or (named and str(named) != str(beside)):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _flush(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


_waits: list[float] = []


def working_seconds() -> float:
    """A clock that stands still while this process waits for another's lock."""
    return time.monotonic() - sum(_waits)


@contextmanager
def lock(folder: Path, name: str) -> Iterator[None]:
    """Hold off other processes that want the same; the system lets go if this one dies."""
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / f"{name}.lock")
    try:
        held.acquire(timeout=0)
    except Timeout:
        started = time.monotonic()
        logger.warning("waiting for another process that works on %s in %s", name, folder)
        held.acquire()
        _waits.append(time.monotonic() - started)
    try:
        yield
    finally:
        held.release()


def is_locked(folder: Path, name: str) -> bool:
    """Whether somebody works on it now."""
    if not (folder / f"{name}.lock").exists():  # which asking would make
        return False
    try:
        with FileLock(folder / f"{name}.lock", timeout=0):
            return False
    except Timeout:
        return True


class Artefact:
    """One entry of the store, named by the hash of all that makes it.

    Attributes:
        folder: what it holds, complete once `finished`.
        work: where its checkpoints lie until then; outlives a kill.
    """

    def __init__(self, output_dir: Path, kind: str, recipe: Mapping[str, Any]) -> None:
        self.recipe = dict(recipe)
        self.key = f"{kind}-{fingerprint(self.recipe)[:16]}"
        self.folder = output_dir / ARTEFACTS / self.key
        self.work = self.folder.with_name(f"{self.key}.unfinished")

    @property
    def finished(self) -> bool:
        """Whether everything is there."""
        return (self.folder / RECIPE).is_file()

    def finished_since(self, moment: float) -> bool:
        """Whether everything is there, and was not before that moment, in seconds since the epoch."""
        return self.finished and (self.folder / RECIPE).stat().st_mtime >= moment

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold off other processes that want the same artefact."""
        with lock(self.folder.parent, self.key):
            if self.finished:  # killed after the last rename, before its checkpoints were removed
                self.forget_checkpoints(before=(self.folder / RECIPE).stat().st_mtime)
            yield

    @contextmanager
    def fill(self) -> Iterator[Path]:
        """The folder to fill; finished when the block ends without an error, its checkpoints then removed."""
        with whole_folder(self.folder) as folder:
            yield folder
            write_json(folder / RECIPE, self.recipe)
        self.forget_checkpoints()

    def forget_checkpoints(self, before: float = math.inf) -> None:
        """Let it be trained from its beginning. What is finished stays for others until the new takes its place.

        Args:
            before: leave those that were written since that moment, in seconds since the epoch.
        """
        if not self.work.exists() or self.work.stat().st_mtime < before:
            remove_folder(self.work)
