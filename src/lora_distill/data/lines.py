"""Lines of a stream of bytes, counted and hashed as far as they were dealt with, so that one can go on from there."""

import codecs
import hashlib
from collections import deque
from dataclasses import dataclass
from typing import BinaryIO

MOST_BYTES = 2**22  # of a record; what is longer must not fill the memory: to tokenise it takes a hundred times as much
_CHUNK = 2**20
_ENDS = (b"\n", b"\r")


@dataclass(frozen=True)
class Place:
    """How much of a stream has been dealt with.

    Attributes:
        bytes: from its beginning.
        lines: in these.
        sha256: of these, in hex.
    """

    bytes: int = 0
    lines: int = 0
    sha256: str = hashlib.sha256().hexdigest()


class TooLongError(Exception):
    """A record is longer than MOST_BYTES."""


class Lines:
    r"""Iterates over the lines of a stream with their ends, \n, \r\n or \r, and without its byte order mark.

    What was given out counts when `done` is called. Bytes that are not UTF-8 become surrogates, as in os.fsdecode.

    Attributes:
        bytes: that have been dealt with.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ahead: deque[bytes] = deque()
        self._begun = b""  # of a line whose rest is not read yet
        self._taken: list[bytes] = []
        self._size = 0  # of what is taken
        self.bytes = self._lines = 0
        self._hash = hashlib.sha256()

    def skip_to(self, place: Place) -> bool:
        """Pass over what was dealt with before; whether the stream begins with the very same bytes."""
        while self.bytes < place.bytes and (chunk := self._file.read(min(_CHUNK, place.bytes - self.bytes))):
            self._count(chunk)
        self._lines = place.lines
        return self.place == place

    @property
    def place(self) -> Place:
        """How far all has been dealt with."""
        return Place(self.bytes, self._lines, self._hash.hexdigest())

    @property
    def number(self) -> int:
        """Of the line that comes after all that has been dealt with, counted from 1."""
        return self._lines + 1

    @property
    def taken(self) -> bytes:
        """What was given out since the last `done`."""
        return b"".join(self._taken)

    def __iter__(self) -> "Lines":
        """Itself."""
        return self

    def __next__(self) -> str:
        """The next line.

        Raises:
            TooLongError: with what was given out since the last `done` it is longer than a record may be.
        """
        if not (line := self._next()):
            raise StopIteration
        is_first = not (self.bytes or self._taken)
        self._taken.append(line)
        self._size += len(line)
        if self._size > MOST_BYTES:
            raise TooLongError
        return line.removeprefix(codecs.BOM_UTF8 if is_first else b"").decode("utf-8", "surrogateescape")

    def give_back(self) -> None:
        """Take back what was given out since the last `done`, but for its first line."""
        self._ahead.extendleft(reversed(self._taken[1:]))
        del self._taken[1:]

    def done(self) -> None:
        """What was given out has been dealt with, to the end of its last line."""
        last = b""
        for last in self._taken:
            self._count(last)
        while not last.endswith(_ENDS) and (last := self._next()):  # of a line that was too long
            self._count(last)
        self._lines += len(self._taken)
        self._taken, self._size = [], 0

    def _next(self) -> bytes:
        """The next line, or as much of it as a record may be and a byte more; empty at the end."""
        if not self._ahead:
            read = self._begun + self._file.readline(MOST_BYTES + 1 - len(self._begun))
            self._ahead.extend(read.splitlines(keepends=True))
            # `readline` knows no end but \n: where lines end in \r it stops within one of them, or before its \n.
            is_cut = len(read) > MOST_BYTES and len(self._ahead) > 1 and not read.endswith(b"\n")
            self._begun = self._ahead.pop() if is_cut else b""
        return self._ahead.popleft() if self._ahead else b""

    def _count(self, part: bytes) -> None:
        self._hash.update(part)
        self.bytes += len(part)
