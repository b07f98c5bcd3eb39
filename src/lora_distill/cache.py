"""What only saves time: arrays by the content that they were made from, shared by all runs of a user.

A run computes the same with the cache, without it, and with any part of it; on a GPU within rounding. So whatever is
wrong with an entry, or with the disk, is said and then lived with: the entry is made again, or the run goes on without.
"""

import hashlib
import io
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from lora_distill.home import expanded
from lora_distill.store import file_sha256, fingerprint, is_locked, lock, read_json, whole_folder, write_json

logger = logging.getLogger(__name__)

MOST = 20 * 2**30  # bytes that the cache takes where no limit is given, if half of the free disk is more
SPARED = 2**30  # bytes of the disk, for what runs write
ABOUT = "entry.json"
PROCESSORS = "processors.json"  # what was measured on this machine
# A recipe's name, and an entry's folder. Whatever else lies here is somebody's.
_RECIPE = r"[a-z]+-[0-9a-f]{16}"
_OURS = rf"{_RECIPE}-\w+"
_HALF_WRITTEN, _LOCK = re.compile(rf"\.({_RECIPE})-\w+(\.away)?\.part"), re.compile(rf"({_RECIPE})\.lock")


@dataclass(frozen=True)
class Stream:
    """An array that is written piece by piece, because it may be larger than memory.

    Attributes:
        shape: of the whole.
        dtype: of the whole.
        pieces: of it, in order, along the first axis.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: Iterable[NDArray[Any]]

    @classmethod
    def of(cls, array: NDArray[Any]) -> "Stream":
        """An array that is there already."""
        return cls(array.shape, array.dtype, [array])


@dataclass(frozen=True)
class Entry:
    """A folder with arrays, each a .npy file, and what they are.

    Attributes:
        folder: where they lie.
        about: kind, title, recipe, seconds that making it took, and SHA-256 and size of each file.
    """

    folder: Path
    about: dict[str, Any]

    def array(self, name: str) -> NDArray[Any]:
        """One of them, mapped into memory, read only."""
        array: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return array

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(int(file["size"]) for file in self.about["files"].values())

    @property
    def title(self) -> str:
        """What it is, for people."""
        return str(self.about.get("title", self.about["kind"]))

    @property
    def name(self) -> str:
        """Of its recipe; see `entry_name`."""
        return self.folder.name.rpartition("-")[0]

    @property
    def last_used(self) -> float:
        """In seconds since 1970."""
        return _last_used(self.folder / ABOUT)


def cache_folder() -> Path:
    """`$LORA_DISTILL_CACHE`, else a folder of the user's cache."""
    given = os.environ.get("LORA_DISTILL_CACHE")
    return expanded(given, f"$LORA_DISTILL_CACHE {given}") if given else user_cache_path("lora_distill")


_READ: set[tuple[str, int, int, int]] = set()  # files that this process has found to be as they were written


class Cache:
    """The entries of one folder.

    Processes that write at once see the same room; what they pass the limit by goes when next room is made.

    Args:
        folder: need not exist.
        limit: of all entries together, in bytes; None: half of the free disk, at most MOST.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder, self._limit = folder, limit
        self._in_use: set[Path] = set()

    def entries(self) -> list[Entry]:
        """All of them, the one that was used longest ago first. A damaged one is removed."""
        abouts = [path for path in self.folder.glob(f"*/{ABOUT}") if re.fullmatch(_OURS, path.parent.name)]
        entries = [_read(path.parent) for path in sorted(abouts, key=_last_used)]
        return [entry for entry in entries if entry]

    def find(
        self, kind: str, recipe: Mapping[str, Any], is_wanted: Callable[[Entry], bool] = lambda _: True
    ) -> list[Entry]:
        """The entries that were made by this recipe. They count as used now; damaged ones are removed.

        Args:
            kind: of entry.
            recipe: all that the arrays depend on.
            is_wanted: asked of each before it is read whole, and so before it is known to be undamaged; what is not
                wanted is left as it is, and may be removed to make room.
        """
        found: list[Entry] = []
        if self._limit == 0:
            return found
        for folder in self.folder.glob(f"{entry_name(kind, recipe)}-*"):
            entry = _read(folder)
            if entry and is_wanted(entry) and self._is_whole(entry):
                found.append(entry)
        return sorted(found, key=lambda entry: entry.folder.name)

    def _is_whole(self, entry: Entry) -> bool:
        """Whether its files are as they were written; they are read once in a process."""
        if entry.folder not in self._in_use:
            for name, file in entry.about["files"].items():
                path = entry.folder / f"{name}.npy"
                try:
                    known = _identity(path) in _READ
                    whole = known or (path.stat().st_size == file["size"] and file_sha256(path) == file["sha256"])
                    _READ.update([_identity(path)] if whole else [])
                except FileNotFoundError:
                    whole = False
                except OSError:  # not for this user to read, or not now
                    return False
                if not whole:
                    _remove(entry.folder, f"its {path.name} is not as it was written")
                    return False
            self._in_use.add(entry.folder)
        with suppress(OSError):  # it may be another user's
            os.utime(entry.folder / ABOUT)
        return True

    def add(
        self,
        kind: str,
        recipe: Mapping[str, Any],
        part: str,
        title: str,
        arrays: Mapping[str, Stream],
        seconds: float = 0.0,
    ) -> Entry | None:
        """Write an entry, whole or not at all; None, with a warning, where the disk does not take it.

        Whoever writes holds the recipe's `lock`, by which others know that what is half written is not left over.

        Args:
            kind: of entry.
            recipe: all that the arrays depend on.
            part: tells apart what one recipe makes.
            title: what it is, for people.
            arrays: by name.
            seconds: that making took before the arrays' pieces are asked for.
        """
        started = time.monotonic()
        folder = self.folder / f"{entry_name(kind, recipe)}-{part}"
        try:
            with whole_folder(folder) as beside:
                files = {name: _write(beside / f"{name}.npy", array) for name, array in arrays.items()}
                about = {"kind": kind, "title": title, "recipe": dict(recipe), "files": files}
                write_json(beside / ABOUT, about | {"seconds": seconds + time.monotonic() - started})
            _READ.update(_identity(folder / f"{name}.npy") for name in arrays)
        except BrokenPipeError:  # of the progress that is told while the pieces are made
            raise
        except OSError as error:
            reason = error.strerror or error
            logger.warning("the cache %s takes no more (%s): going on without", self.folder, reason)
            return None
        self._in_use.add(folder)
        return _read(folder)

    @property
    def limit(self) -> int:
        """Bytes that all entries together may take."""
        return self._room()[1]

    def room(self) -> int:
        """Bytes that may still be written."""
        return self._room()[0]

    def _room(self) -> tuple[int, int]:
        """What may still be written, and what may lie here in all."""
        if self._limit == 0:
            return 0, 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_left()
            there, free = sum(entry.size for entry in self.entries()), shutil.disk_usage(self.folder).free
        except OSError as error:
            logger.warning("no cache in %s: %s", self.folder, error.strerror)
            return 0, 0
        limit = min((free + there) // 2, MOST) if self._limit is None else self._limit
        return max(0, min(limit - there, free - SPARED)), limit

    def make_room(self, size: int) -> int:
        """Remove what was used longest ago until `size` bytes may be written; the bytes that may.

        Nothing is removed for what would not fit into an empty cache either.
        """
        (room, limit), freed = self._room(), 0
        for entry in self.entries() if size <= limit else ():
            if room + freed >= size:
                # Less is there than was freed where the limit had been passed. All entries are read for it.
                room, freed = self.room(), 0
            if room >= size:
                break
            if entry.folder not in self._in_use:  # what this process uses stays
                _remove(entry.folder, "used longest ago, and there must be room")
                freed += entry.size
        return self.room() if freed else room

    @contextmanager
    def lock(self, kind: str, recipe: Mapping[str, Any]) -> Iterator[None]:
        """Let one process make what others wait for; where nothing can be locked nobody waits."""
        with ExitStack() as stack:
            try:
                if self._limit != 0:  # else nothing is made
                    stack.enter_context(lock(self.folder, entry_name(kind, recipe)))
            except OSError:
                logger.debug("no lock in %s", self.folder)
            yield

    def clear(self) -> int:
        """Remove every entry, and nothing that is not the cache's own; the bytes that they took."""
        entries = self.entries()
        for entry in entries:
            shutil.rmtree(entry.folder, ignore_errors=True)
        self._remove_left()
        for path in self._unlocked("*.lock", _LOCK):
            path.unlink(missing_ok=True)
        (self.folder / PROCESSORS).unlink(missing_ok=True)
        return sum(entry.size for entry in entries)

    def _remove_left(self) -> None:
        """Remove what processes that were killed left half written."""
        for folder in self._unlocked(".*.part", _HALF_WRITTEN):
            shutil.rmtree(folder, ignore_errors=True)

    def _unlocked(self, names: str, ours: re.Pattern[str]) -> list[Path]:
        """What is the cache's own among these, and of a recipe on which nobody works now."""
        found = [(path, ours.fullmatch(path.name)) for path in self.folder.glob(names)]
        return [path for path, known in found if known and not is_locked(self.folder, known[1])]


def entry_name(kind: str, recipe: Mapping[str, Any]) -> str:
    """Of a recipe's entries, before the part that tells them apart."""
    return f"{kind}-{fingerprint(dict(recipe))[:16]}"


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has just removed it
        return 0.0


def _read(folder: Path) -> Entry | None:
    try:
        entry = Entry(folder, read_json(folder / ABOUT))
        whole = entry.size >= 0 and folder.name.startswith(entry_name(entry.about["kind"], entry.about["recipe"]))
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        whole = False
    except OSError:  # not for this user to read, or not now
        return None
    if whole:
        return entry
    if folder.is_dir():
        _remove(folder, f"its {ABOUT} is not as it was written")
    return None


def _remove(folder: Path, reason: str) -> None:
    logger.info("cache: %s removed: %s", folder.name, reason)
    shutil.rmtree(folder, ignore_errors=True)


def _identity(path: Path) -> tuple[str, int, int, int]:
    """What changes where a file is changed or replaced."""
    found = path.stat()
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns


def _write(path: Path, array: Stream) -> dict[str, Any]:
    header = io.BytesIO()
    layout = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(header, layout)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        file.write(header.getbuffer())
        digest.update(header.getbuffer())
        size = header.tell()
        for piece in array.pieces:
            data = piece.tobytes()
            digest.update(data)
            size += file.write(data)
    return {"size": size, "sha256": digest.hexdigest()}
