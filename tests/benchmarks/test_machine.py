import mmap
import os
import time

import pytest
import torch

from benchmarks import peak
from benchmarks.machine import MemoryPeak, describe, process_age, run_python


def test_own_memory_is_anonymous_memory() -> None:
    with MemoryPeak(os.getpid()) as before:
        time.sleep(0.1)
    # Not from the allocator, which may have kept what an earlier test freed.
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with MemoryPeak(os.getpid()) as peak_memory, mmap.mmap(-1, 50 * 2**20, private) as block:
        block.write(b"x" * len(block))
        time.sleep(0.2)
    assert peak_memory.anonymous - before.anonymous > 0.9 * 50 * 2**20
    assert peak_memory.mapped > 0


def test_a_process_is_watched_and_its_failure_told() -> None:
    process = run_python(["-c", "import time; block = b'x' * 30_000_000; time.sleep(0.3)"])
    assert process.anonymous > 30_000_000
    assert process.seconds > 0.3
    with pytest.raises(RuntimeError, match="no such thing"):
        run_python(["-c", "raise SystemExit('no such thing')"])


def test_a_process_environment_reaches_it() -> None:
    run_python(["-c", "import os; assert os.environ['LORA_DISTILL_CACHE'] == 'here'"], {"LORA_DISTILL_CACHE": "here"})


def test_age_grows() -> None:
    assert 0 < process_age() <= process_age() < 24 * 3600


def test_description_names_versions() -> None:
    versions = describe()["versions"]
    assert isinstance(versions, dict)
    assert versions["torch"] == torch.__version__


def test_peak_tries_the_encoders_own_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (512, 8, 24) in peak.shapes(8, 32)
    monkeypatch.setattr(peak, "SQUARES", (16,))
    monkeypatch.setattr(peak, "TOKENS", (16,))
    measured = peak.measure(8, 32, seconds=0.002)
    assert set(measured) == {"bf16", "fp32"}
    assert all(rate > 0 for rate in measured.values())


def test_the_reference_trains_in_the_precision_that_is_faster_here(monkeypatch: pytest.MonkeyPatch) -> None:
    peak.faster_precision.cache_clear()
    monkeypatch.setattr(peak, "measure", lambda *_, **__: {"bf16": 20.0, "fp32": 180.0})
    assert peak.faster_precision() == "fp32"
    monkeypatch.setattr(peak, "measure", lambda *_, **__: {"bf16": 930.0, "fp32": 210.0})
    assert peak.faster_precision() == "fp32"  # measured once, so that all rounds are alike
    peak.faster_precision.cache_clear()
    assert peak.faster_precision() == "bf16"
    peak.faster_precision.cache_clear()
