"""Killed or stopped anywhere, a run goes on to the same bits."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Command, run_command, small_settings
from tests.end_to_end.test_train import ROLES, assert_same_bits

EPOCHS = 5
SETTINGS = ("--num_epochs", str(EPOCHS), "--exp_name", "run", "--logging_steps", "1")


def artefacts(folder: Path) -> Path:
    return folder / "outputs" / "lora_distillation" / ".artefacts"


def run_of(folder: Path) -> Path:
    return folder / "outputs" / "lora_distillation" / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, rows_csv: Path) -> Path:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    done = run_command("train", *small_settings(tiny_base, rows_csv), *SETTINGS, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def start_and_signal(
    folder: Path, arguments: list[str], is_time: Callable[[], bool], number: signal.Signals
) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "lora_distill", *arguments],
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not is_time():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def stage_reached(folder: Path, stage: str) -> Callable[[], bool]:
    """Whether the first epoch of a role is done, or the role, or the run was just begun."""
    role, _, what = stage.partition(" ")
    if what == "begun":
        return (run_of(folder) / "environment.json").exists
    pattern = f"{role}-*.unfinished/checkpoint.json" if what == "training" else f"{role}-*/recipe.json"
    return lambda: any(artefacts(folder).glob(pattern))


STAGES = ["run begun", *(f"{role} {what}" for role in ROLES for what in ("training", "trained"))]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_any_stage_and_resumed_the_bits_are_those_of_a_whole_run(
    stage: str, call: Command, whole: Path, tmp_path: Path, tiny_base: Path, rows_csv: Path
) -> None:
    arguments = ["train", *small_settings(tiny_base, rows_csv), *SETTINGS]
    code, _ = start_and_signal(tmp_path, arguments, stage_reached(tmp_path, stage), signal.SIGKILL)
    assert code == -signal.SIGKILL
    done = call("train", "--exp_name", "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert_same_bits(run_of(whole), run_of(tmp_path))
    left = [path.name for path in artefacts(tmp_path).iterdir() if path.name.endswith((".unfinished", ".part"))]
    assert left == []


@pytest.mark.slow
def test_killed_again_and_again(call: Command, whole: Path, tmp_path: Path, tiny_base: Path, rows_csv: Path) -> None:
    arguments = ["train", *small_settings(tiny_base, rows_csv), *SETTINGS]
    for stage in ("teacher training", "student training", "control training"):
        start_and_signal(tmp_path, arguments, stage_reached(tmp_path, stage), signal.SIGKILL)
        arguments = ["train", "--exp_name", "run", "--resume"]
    assert call(*arguments).returncode == 0
    assert_same_bits(run_of(whole), run_of(tmp_path))


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(
    call: Command, whole: Path, tmp_path: Path, tiny_base: Path, rows_csv: Path
) -> None:
    arguments = ["train", *small_settings(tiny_base, rows_csv), *SETTINGS]
    code, err = start_and_signal(tmp_path, arguments, stage_reached(tmp_path, "teacher training"), signal.SIGINT)
    assert code == 130
    assert "Traceback" not in err
    assert "--resume" in err
    assert call("train", "--exp_name", "run", "--resume").returncode == 0
    assert_same_bits(run_of(whole), run_of(tmp_path))


@pytest.mark.slow
def test_a_checkpoint_goes_on_although_the_flags_are_given_again_and_not_with_others(
    call: Command, whole: Path, tmp_path: Path, tiny_base: Path, rows_csv: Path
) -> None:
    arguments = ["train", *small_settings(tiny_base, rows_csv), *SETTINGS]
    start_and_signal(tmp_path, arguments, stage_reached(tmp_path, "teacher training"), signal.SIGKILL)
    refused = call(*arguments)
    assert refused.returncode == 2
    assert "--resume goes on" in refused.stderr
    other = call(*arguments, "--resume", "--alpha", 0.9)
    assert other.returncode == 2
    assert "alpha" in other.stderr
    assert call(*arguments, "--resume").returncode == 0
    assert_same_bits(run_of(whole), run_of(tmp_path))


@pytest.mark.slow
def test_a_half_written_file_beside_is_no_harm(
    call: Command, whole: Path, tmp_path: Path, tiny_base: Path, rows_csv: Path
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    run = run_of(tmp_path)
    (run / "metrics.json").unlink()
    (run / ".metrics.json.part").write_text("{")
    shutil.rmtree(run / "student")
    done = call("train", "--exp_name", "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert_same_bits(run_of(whole), run)
