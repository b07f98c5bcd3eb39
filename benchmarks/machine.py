"""What a figure must be read with: the machine, the versions, and a process' time and memory (Linux)."""

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "numpy", "lora-distill")
SAMPLING_SECONDS = 0.02


def describe() -> dict[str, object]:
    """Processor, cores, versions and the command that runs."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "command": sys.orig_argv,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def process_age() -> float:
    """Seconds since this process was started: what its imports took, when asked right after them."""
    started = int(_stat("self")[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def memory_of(pid: int) -> tuple[int, int]:
    """Resident bytes of a process now: its own, and those of mapped files; as in `MemoryPeak`.

    Raises:
        OSError: it has ended.
    """
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.startswith("Rss")}
    mapped = kilobytes.get("RssFile", 0) + kilobytes.get("RssShmem", 0)
    return kilobytes.get("RssAnon", 0) * 1024, mapped * 1024


def processor_seconds(pid: int) -> float:
    """Seconds of a processor core that a process' threads have used, the system's work for them counted."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int | str) -> list[str]:
    """What /proc/PID/stat says behind the process' name."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


@dataclass
class MemoryPeak:
    """High-water marks of a process' resident memory, sampled while the context lasts.

    Attributes:
        pid: of the process.
        anonymous: bytes of its own: heap, stacks, tensors.
        mapped: bytes of files mapped into it, such as weights, libraries and a cache; the system may drop these.
    """

    pid: int
    anonymous: int = 0
    mapped: int = 0
    _done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "MemoryPeak":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self._sample()
            if self._done.wait(SAMPLING_SECONDS):
                return

    def _sample(self) -> None:
        try:
            anonymous, mapped = memory_of(self.pid)
        except OSError:  # it has ended
            return
        self.anonymous, self.mapped = max(self.anonymous, anonymous), max(self.mapped, mapped)


@dataclass(frozen=True)
class Process:
    """What a finished process took.

    Attributes:
        command: as it was called.
        seconds: from its start to its end.
        anonymous: as in MemoryPeak.
        mapped: as in MemoryPeak.
    """

    command: list[str]
    seconds: float
    anonymous: int
    mapped: int


def run_python(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
    """Run this Python with these arguments in the repository and watch it.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    command = [sys.executable, *arguments]
    started = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        with MemoryPeak(process.pid) as peak:
            said, _ = process.communicate()
        seconds = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}\nended with {process.returncode}:\n{said[-3000:]}")
    return Process(command, seconds, peak.anonymous, peak.mapped)
