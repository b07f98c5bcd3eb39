"""Hints name a program that is there."""

import importlib.metadata
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_distill import program as program_module
from lora_distill.program import install, program, stop_as_by_ctrl_c


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


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the installation says of where it came from."""
    told: dict[str, Any] = {}

    def read_text(_: object, name: str) -> str | None:
        return json.dumps(told) if told and name == "direct_url.json" else None

    monkeypatch.setattr(importlib.metadata.PathDistribution, "read_text", read_text)
    return told


def test_an_extra_comes_from_where_the_installation_came(script: Path, origin: dict[str, Any], tmp_path: Path) -> None:
    pip = script.with_name("python")
    assert shlex.split(install("train")) == [str(pip), "-m", "pip", "install", "lora-distill[train]"]
    clone = tmp_path / "my clone"
    origin |= {"url": clone.as_uri(), "dir_info": {}}
    assert shlex.split(install("train"))[-1] == "lora-distill[train]"  # it is gone
    clone.mkdir()
    assert shlex.split(install("serve"))[3:] == ["install", f"{clone}[serve]"]
    origin["dir_info"] = {"editable": True}
    assert shlex.split(install("serve"))[3:] == ["install", "-e", f"{clone}[serve]"]


def test_an_extra_where_nothing_was_installed(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_module, "PACKAGE", "no-such-package")
    assert install("train").endswith(" install 'no-such-package[train]'")


def test_pip_is_called_by_its_name_only_where_that_is_this_environment_s(
    script: Path, origin: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    script.with_name("pip").touch(mode=0o755)
    assert not install("train").startswith("pip ")
    monkeypatch.setenv("PATH", str(script.parent))
    assert install("train") == "pip install 'lora-distill[train]'"


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
