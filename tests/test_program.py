"""Hints name a program that is there."""

import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from lora_distill.program import program, stop_as_by_ctrl_c


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script of an installation in `my venv`, which is not on the path."""
    script = tmp_path / "my venv" / "bin" / "lora-distill"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    monkeypatch.setenv("PATH", str(tmp_path / "others"))
    monkeypatch.chdir(tmp_path)
    return script


def test_by_the_script_of_its_environment_as_it_is_seen_from_here(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shlex.split(program()) == ["my venv/bin/lora-distill"]
    monkeypatch.chdir("/usr/bin")
    assert shlex.split(program()) == [str(script)]


def test_by_its_name_only_where_that_is_this_installation(script: Path, tmp_path: Path) -> None:
    other = tmp_path / "others" / "lora-distill"
    other.parent.mkdir()
    other.touch(mode=0o755)
    assert program() != "lora-distill"
    other.unlink()
    other.symlink_to(script)
    assert program() == "lora-distill"


def test_as_a_module_where_there_is_no_script(script: Path) -> None:
    script.unlink()
    assert program() == "python -m lora_distill"


def test_here_it_can_be_called() -> None:
    words = shlex.split(program())
    assert (
        len(words) == 3
        or Path(words[0]).is_file()
        or any(Path(folder, words[0]).is_file() for folder in os.environ["PATH"].split(os.pathsep))
    )


def test_a_kill_and_a_closed_terminal_stop_it_as_ctrl_c_does_but_not_under_nohup() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for number in before:
            signal.signal(number, signal.SIG_DFL)
        stop_as_by_ctrl_c()
        for number in before:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        stop_as_by_ctrl_c()
        signal.raise_signal(signal.SIGHUP)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
