"""A small world for real commands: a tiny encoder, a small labelled file, and the commands themselves."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.conftest import Run
from tests.end_to_end.refusal import GOOD, World
from tests.tiny import tiny_model

Command = Callable[..., subprocess.CompletedProcess[str]]

WORDS = {
    "space": ["orbit", "rocket", "planet", "comet", "launch"],
    "garden": ["tulip", "compost", "hedge", "seed", "watering"],
    "kitchen": ["oven", "butter", "recipe", "simmer", "spoon"],
}


def write_rows(path: Path, rows: int, seed: int = 0) -> Path:
    """A CSV of short texts whose words tell their label, most of the time."""
    draw = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(rows):
            label = list(WORDS)[number % len(WORDS)]
            source = label if draw.random() < 0.85 else str(draw.choice(list(WORDS)))
            words = draw.choice(WORDS[source], size=draw.integers(3, 12))
            writer.writerow([f"{' '.join(words)} number {number}", label])
    return path


def metrics_of(run: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics


def evaluation_of(run: Path) -> dict[str, Any]:
    """The one evaluation that a run's folder holds."""
    (file,) = run.glob("evaluation-*.json")
    evaluation: dict[str, Any] = json.loads(file.read_text())
    return evaluation


def logits_of(run: Path, role: str) -> NDArray[np.float32]:
    """Float32 [N, C], what a role answered on the test split."""
    return np.stack(pq.read_table(run / "predictions.parquet")[f"{role}_logits"].to_numpy())


def card_logits(run: Path, role: str, **texts: list[str]) -> NDArray[np.float32]:
    """Float32 [N, C], what the code of a role's model card gives for other texts, by the name that it has for them."""
    code = (run / role / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = code.replace('folder = "."', f"folder = {str(run / role)!r}")
    for name, values in texts.items():
        line = next(line for line in code.splitlines() if line.startswith(f"{name} = "))
        code = code.replace(line, f"{name} = {values!r}")
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    logits: NDArray[np.float32] = namespace["logits"].numpy()
    return logits


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("roberta", tmp_path_factory.mktemp("base") / "tiny-roberta", layers=3, hidden=32)


@pytest.fixture(scope="session")
def rows_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.csv", 240)


def run_command(*arguments: object, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`lora-distill …` in a process of its own, with no hub in reach."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "140",
        "HF_HOME": str(cwd / "hf"),
    }
    return subprocess.run(
        [sys.executable, "-m", "lora_distill", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run a command in an empty folder."""

    def run(*arguments: object, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, cwd=cwd)

    return run


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Command:
    """Run a command in an empty folder, in this process: seconds faster."""

    def in_process(*arguments: object, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        return subprocess.CompletedProcess(list(map(str, arguments)), *run(*arguments))

    return in_process


@pytest.fixture
def world(tmp_path: Path, call: Command, tiny: Callable[[str], Path]) -> World:
    """A folder with good rows and a good base model, in which a command must be refused."""
    (tmp_path / "base").symlink_to(tiny("roberta"))
    (tmp_path / "good.csv").write_text(GOOD)
    return World(tmp_path, call)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, rows_csv: Path) -> Path:
    """The folder of a finished run, shared: read it, do not write into it."""
    folder = tmp_path_factory.mktemp("small-run")
    done = run_command("train", *small_settings(tiny_base, rows_csv), "--exp_name", "small", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "outputs" / "lora_distillation" / "small"


def small_settings(base: Path, rows: Path) -> list[str]:
    """Flags of a run that takes seconds."""
    return flags_of(small_values(base, rows))


def flags_of(values: Mapping[str, object]) -> list[str]:
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def small_values(base: Path, rows: Path) -> dict[str, object]:
    return {
        "base_model": str(base),
        "dataset": str(rows),
        "teacher_target_layers": 3,
        "teacher_lora_r": 8,
        "student_target_layers": 2,
        "student_lora_r": 4,
        "learning_rate": 1e-2,
        "num_epochs": 2,
        "batch_size": 16,
        "max_length": 32,
    }


def untaught_values(base: Path, rows: Path) -> dict[str, object]:
    """The same where the teacher is given: nothing that is for one that is trained."""
    return {name: value for name, value in small_values(base, rows).items() if not name.startswith("teacher_")}
