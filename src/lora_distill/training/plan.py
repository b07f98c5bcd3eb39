"""Where and how a run computes: chosen once, saved with the run, kept when it resumes."""

import logging
import math
import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lora_distill.cache import PROCESSORS, cache_folder
from lora_distill.errors import UserError
from lora_distill.memory import keep_memory
from lora_distill.processors import cores
from lora_distill.store import read_json, write_json

logger = logging.getLogger(__name__)
WORTH_IT = 1.2  # times as fast as fp32: in hardware it is 2 or more, without it far less than 1


@dataclass(frozen=True)
class ExecutionPlan:
    """What decides the bits of a result beside config and data.

    On a GPU, where some kernels add in no fixed order, it decides a result within rounding.

    Attributes:
        device: "cpu", "mps", "cuda" or "cuda:N".
        precision: "fp32" or "bf16", of training and validation; the test split is judged in fp32.
        threads: of torch on the CPU.
    """

    device: str
    precision: str
    threads: int

    @property
    def dtype(self) -> torch.dtype:
        """Of activations and matrix products in training."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def as_dict(self) -> dict[str, str | int]:
        """For the run's files and the artefacts' recipes."""
        return asdict(self)

    def autocast(self) -> AbstractContextManager[None]:
        """Compute matrix products in the plan's precision."""
        device_type = self.device.partition(":")[0]
        return torch.autocast(device_type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def with_threads(self) -> AbstractContextManager[None]:
        """Compute with the plan's threads, and leave the process as it was."""
        return computing_with(self.threads)


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Let torch have so many threads, and leave the process as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def enough_memory(device: str, advice: str) -> Iterator[None]:
    """Say what to do where a device has not enough of it.

    Raises:
        UserError: it has not.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"{device}: out of memory.\n{advice}") from error


def choose_plan(device: str, precision: str) -> ExecutionPlan:
    """The plan for this machine.

    Args:
        device: "auto", "cpu", "mps", "cuda" or "cuda:N".
        precision: "auto", "fp32" or "bf16".

    Raises:
        UserError: the named device is not there.
    """
    keep_memory()
    device = _choose_device(device)
    threads = min(torch.get_num_threads(), cores())  # of a container's limit torch knows nothing
    if precision == "fp32":
        return ExecutionPlan(device, precision, threads)
    in_hardware = _has_bf16(device) if device != "cpu" else _bf16_pays(cache_folder())
    if precision == "auto":
        precision = "bf16" if in_hardware else "fp32"
    elif not in_hardware:
        logger.warning("bf16 was asked for, but %s has no hardware for it: expect it to be slow", device)
    return ExecutionPlan(device, precision, threads)


def _choose_device(asked: str) -> str:
    there = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    if asked == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    kind, _, index = asked.partition(":")
    if not there[kind] or (index and int(index) >= torch.cuda.device_count()):
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise UserError(f"--device {asked}: this machine has none such; it has {found}. Leave it at auto.")
    return asked


def _has_bf16(device: str) -> bool:
    if device.startswith("cuda"):
        with torch.cuda.device(device):  # it asks of the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return False


def _bf16_pays(folder: Path) -> bool:
    """Whether this processor multiplies matrices faster in bf16: measured once, then remembered in the folder.

    What a processor says it can do is not asked, for some can and are slow at it.
    """
    # Not by threads: processes that share the cores compute in one precision.
    key = f"{machine(torch.device('cpu'))}, torch {torch.__version__}"
    file = folder / PROCESSORS
    try:
        known: dict[str, float] = read_json(file)
    except (OSError, ValueError):
        known = {}
    if not isinstance(known, dict):
        known = {}
    if not isinstance(known.get(key), float):
        known[key] = _times_as_fast()
        try:
            write_json(file, known)
        except OSError as error:
            logger.debug("not remembered in %s: %s", file, error.strerror)
    return known[key] > WORTH_IT


def _times_as_fast() -> float:
    """Matrix products in bf16 against those in fp32, in turns and the best of each: what else runs only adds to it."""
    best = dict.fromkeys((torch.float32, torch.bfloat16), math.inf)
    for _ in range(10):
        for dtype in best:
            matrix = torch.ones(768, 768, dtype=dtype)
            started = time.perf_counter()
            torch.nn.functional.linear(matrix, matrix)
            best[dtype] = min(best[dtype], time.perf_counter() - started)
    return best[torch.float32] / best[torch.bfloat16]


def machine(device: torch.device) -> str:
    """What computes, by name."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type}, {processor()}, {torch.backends.cpu.get_cpu_capability()}"


def processor() -> str:
    """Its name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
