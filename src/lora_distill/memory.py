"""Memory that was freed, given back."""

import ctypes
import sys


def give_back_memory() -> None:
    """Let the system have what is no longer used.

    Batches differ in length, so what glibc has freed lies in pieces between what is in use, and it keeps them: within a
    few hundred steps that is several times of what a step needs.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim:
            trim(0)
