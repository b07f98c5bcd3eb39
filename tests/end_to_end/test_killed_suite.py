"""A suite that is killed again and again, whenever it happens to be, ends in the bits of one that nothing stopped."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lora_distill.seeding import generator
from tests.end_to_end.conftest import small_values, write_rows
from tests.end_to_end.test_train import assert_same_bits

KILLS = 10
# Each process is forked from a server that has the heavy libraries loaded, and has done nothing else.
FORKED = multiprocessing.get_context("forkserver")


def suite(folder: Path, cache: str) -> None:
    """`lora-distill suite mine.yaml` in a folder."""
    from lora_distill.cli import main

    with (folder / "said.txt").open("a") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    os.chdir(folder)
    os.environ["LORA_DISTILL_CACHE"] = cache
    os._exit(main(["suite", "mine.yaml"]))


def run(folder: Path, cache: str, seconds: float | None = None) -> int | None:
    """Its exit code; it is killed when the seconds are over."""
    process = FORKED.Process(target=suite, args=(folder, cache))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path) -> Path:
    """With a suite in it, and the libraries loaded."""
    base = small_values(tiny_base, write_rows(tmp_path / "rows.csv", 120))
    base |= {"base_depth": 2, "teacher_target_layers": 2, "student_target_layers": 1, "learning_rate": 3e-2}
    values: dict[str, Any] = {"base": base, "seeds": 2, "experiments": {"one": {}, "two": {"alpha": 0.9}}}
    (tmp_path / "mine.yaml").write_text(json.dumps(values))
    FORKED.set_forkserver_preload(["lora_distill.cli", "lora_distill.experiment", "lora_distill.reporting.report"])
    FORKED.Process(target=os.getpid).start()
    return tmp_path


@pytest.mark.slow
def test_killed_at_ten_random_moments_and_called_again_the_bits_are_those_of_a_whole_suite(folder: Path) -> None:
    begun = time.monotonic()
    assert run(folder, "cache") == 0, (folder / "said.txt").read_text()
    moments = sorted(generator(0, "kills").uniform(0, time.monotonic() - begun, KILLS).tolist())
    output, whole = folder / "outputs" / "lora_distillation", folder / "whole"
    output.rename(whole)  # an adapter says where its base model lies, so that of the other must lie there, too

    codes = [run(folder, "another", later - moment) for moment, later in zip([0.0, *moments], moments, strict=False)]
    assert -signal.SIGKILL in codes
    assert run(folder, "another") == 0, (folder / "said.txt").read_text()
    runs = [path.name for path in whole.glob("mine-*")]
    assert len(runs) == 4
    for name in runs:
        assert_same_bits(whole / name, output / name)
    assert (output / "mine.json").read_bytes() == (whole / "mine.json").read_bytes()
    assert not [*output.rglob("*.part"), *output.rglob("*.unfinished")]
