"""A folder with good rows and a good base model, in which a command must be refused."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

GOOD = "text,label\n" + "".join(f"word{row} here,{'ab'[row % 2]}\n" for row in range(40))
Change = Callable[[Path], object]


class World:
    """The folder that commands run in.

    Attributes:
        folder: holds `base`, a tiny RoBERTa of three layers, and `good.csv`.
    """

    def __init__(self, folder: Path, call: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        self.folder, self._call = folder, call

    def refuses(self, arguments: list[str], *parts: str) -> None:
        """Run a command that must end with exit code 2, one to three lines that hold the parts, and nothing left."""
        before = self._state()
        assert_refused(self._call(*arguments, cwd=self.folder), *parts)
        assert self._state() == before

    def _state(self) -> dict[Path, tuple[int, int]]:
        paths = {path: path.lstat() for path in self.folder.rglob("*")}
        return {path: (0, 0) if path.is_dir() else (stat.st_size, stat.st_mtime_ns) for path, stat in paths.items()}


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    _, *errors = re.split("^error: ", done.stderr, flags=re.MULTILINE)
    assert len(errors) == 1, done.stderr
    assert len(errors[0].splitlines()) <= 3, errors[0]
    for part in parts:
        assert part in errors[0]


def train(*flags: str) -> list[str]:
    """A good training command but for these flags, which come last and win."""
    layers = ["--student_target_layers", "2"]
    if "--teacher_checkpoint" not in flags:
        layers += ["--teacher_target_layers", "2", "--teacher_lora_r", "4"]
    return ["train", "--base_model", "base", "--dataset", "good.csv", "--exp_name", "run", *layers, *flags]


def file(name: str, content: str | bytes) -> Change:
    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def rewrite(name: str, **values: object) -> Change:
    """Other values in a JSON file."""

    def change(folder: Path) -> None:
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))

    return change
