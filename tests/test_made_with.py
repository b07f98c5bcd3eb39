"""What is recorded of what made a result."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lora_distill import made_with


def test_the_git_revision_is_that_of_the_source_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    source = tmp_path / "made_with.py"
    source.write_text("# the program\n")
    monkeypatch.setattr(made_with, "__file__", str(source))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert made_with.git_revision() is None  # no repository
    git("init")
    git("commit", "--allow-empty", "-m", "somebody's own work")
    assert made_with.git_revision() is None  # a repository, but not the program's
    git("add", "made_with.py")
    git("commit", "-m", "the program")
    assert made_with.git_revision() == git("rev-parse", "HEAD")
    git("tag", "v1")
    assert made_with.git_revision() == git("rev-parse", "HEAD")
    source.write_text("# the program, changed\n")
    assert made_with.git_revision() == f"{git('rev-parse', 'HEAD')}-dirty"
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert made_with.git_revision() is None
