"""No room on the disk: told in three lines at most, wherever it happens; with room again the run goes on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Command, small_settings
from tests.end_to_end.refusal import assert_refused
from tests.end_to_end.test_train import assert_same_bits

WITH_SMALL_FILES = 'ulimit -f 16 && exec "$@"'  # the limit, in KiB, fails as a full disk does, and needs no disk
# The disk lives in a mount namespace of its own, and goes with it; in there room is made, and the run goes on.
ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=$SIZE tmpfs outputs
"$@" 2>first.txt || echo $? >first.code
mount -o remount,size=100m outputs
"$@" --resume
cp -r outputs kept
"""


def bash(script: str, settings: list[str], cwd: Path, *before: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A script that is given the training command as its arguments."""
    command = [sys.executable, "-m", "lora_distill", "train", *settings, "--exp_name", "small", "--quiet"]
    return subprocess.run(
        [*before, "bash", "-c", script, "bash", *command],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def assert_told(done: subprocess.CompletedProcess[str], way_out: str) -> None:
    assert_refused(done, way_out, "--output_dir outputs/lora_distillation --exp_name small --resume")


def test_a_file_that_may_not_grow(call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path) -> None:
    settings = small_settings(tiny_base, rows_csv)
    assert_told(bash(WITH_SMALL_FILES, settings, tmp_path), "File too large. Raise the limit")
    left = [path.name for path in tmp_path.rglob("*") if path.name.endswith(".part")]
    assert left == []
    assert call("train", "--exp_name", "small", "--resume").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("size", ["100k", "300k"])  # full at a checkpoint, and when the adapters are copied
def test_a_full_disk(size: str, small_run: Path, tmp_path: Path, tiny_base: Path, rows_csv: Path) -> None:
    if not shutil.which("unshare"):
        pytest.skip("no unshare, to mount a small disk with")
    (tmp_path / "outputs").mkdir()
    settings = small_settings(tiny_base, rows_csv)
    done = bash(ON_A_SMALL_DISK, settings, tmp_path, "unshare", "--mount", "--map-root-user", SIZE=size)
    if not (tmp_path / "first.txt").exists():
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    code, told = (tmp_path / "first.code").read_text(), (tmp_path / "first.txt").read_text()
    assert_told(subprocess.CompletedProcess([], int(code), "", told), "No space left on device. Free some room")
    assert done.returncode == 0, done.stderr
    assert_same_bits(small_run, tmp_path / "kept" / "lora_distillation" / "small")
