"""The entry point."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lora_distill import __version__
from lora_distill.__main__ import main


class Stopped:
    """Ctrl-C while the command line is imported."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "lora_distill.cli":
            raise KeyboardInterrupt


def test_ctrl_c_while_it_is_loaded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "lora_distill.cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Stopped(), *sys.meta_path])
    assert main() == 130
    assert capsys.readouterr() == ("", "error: stopped before anything was begun.\n")


def test_the_script_that_is_installed_begins_there() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"lora-distill": "lora_distill.__main__:main"}


def test_python_m_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lora_distill", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"lora-distill {__version__}\n")
