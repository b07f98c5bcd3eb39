"""How the process keeps the memory that it works with, on Linux; elsewhere nothing is done."""

import ctypes
import re
import sys
from ctypes import CDLL
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
GIBI, HALF_A_HEAP = 2**30, 32 * 2**20


def keep_memory() -> None:
    """Keep what was freed: glibc gives large tensors back to the system at each step and takes them again by page."""
    library = _glibc()
    # An older glibc refuses more than half of a heap. Without either, the other would undo what it does by itself.
    if library and any(library.mallopt(M_MMAP_THRESHOLD, most) for most in (GIBI, HALF_A_HEAP)):
        library.mallopt(M_TRIM_THRESHOLD, 2 * GIBI - 1)


def give_back_memory() -> None:
    """Let the system have what was freed: to be called where another model comes, which needs other sizes."""
    library = _glibc()
    if library:
        library.malloc_trim(0)


def peak_memory() -> int:
    """The most bytes that this process has held so far, what libraries map included."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024
    except (OSError, IndexError):  # not Linux, or a kernel that hides it
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def _glibc() -> CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") else None  # musl has none
