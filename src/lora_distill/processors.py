"""How many processor cores are there for this process."""

import math
import os
import sys
from contextlib import suppress
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container (control groups v2): microseconds in each period, or "max"


def cores() -> int:
    """The processor cores that this process may use, or as many as its container has the time of."""
    there = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no control groups, or no limit
        quota, period = map(int, QUOTA.read_text(encoding="ascii").split())
        there = min(there, math.ceil(quota / period))
    return there
