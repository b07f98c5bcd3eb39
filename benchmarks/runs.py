"""One run of a side, the reference's runs, and rounds in which the sides take turns."""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import Process, run_python
from benchmarks.peak import faster_precision
from benchmarks.report import say

Settings = Mapping[str, str | int | float]
MEBI = 2**20


@dataclass(frozen=True)
class Run:
    """What one process of a side did.

    Attributes:
        process: wall seconds and memory of the whole.
        rows_per_second: of the training steps, by role.
        accuracy: on the test split, by role.
        fixed: seconds of importing, loading and tokenising, by stage; empty where they were not asked for.
        details: whatever else is kept in the JSON.
    """

    process: Process
    rows_per_second: dict[str, float]
    accuracy: dict[str, float]
    fixed: dict[str, float]
    details: dict[str, Any]

    @property
    def seconds_without_fixed(self) -> float:
        """Wall seconds beyond the fixed costs."""
        return self.process.seconds - sum(self.fixed.values())


Rounds = dict[str, list[Run]]


def reference(
    variant: str, settings: Settings, dataset: Path, *, roles: Sequence[str], teacher: Path | None = None
) -> Run:
    """One process of the reference.

    Args:
        variant: one of `reference_model.VARIANTS`.
        settings: by the names of lora-distill's; `base_model` among them.
        dataset: folder of train.csv, validation.csv and test.csv.
        roles: to train.
        teacher: a finished one's PEFT adapter, where no teacher is trained.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        arguments = ["-m", "benchmarks.reference", "--variant", variant, "--roles", ",".join(roles), "--out", str(out)]
        arguments += [
            part for name in ("train", "validation", "test") for part in (f"--{name}", str(dataset / f"{name}.csv"))
        ]
        arguments += flags({"precision": faster_precision(), **settings}) + (
            ["--teacher", str(teacher)] if teacher else []
        )
        process = run_python(arguments)
        result = json.loads(out.read_text(encoding="utf-8"))
    return Run(
        process,
        {role: each["rows_per_second"] for role, each in result["roles"].items()},
        {role: each["accuracy"] for role, each in result["roles"].items()},
        {stage: result["seconds"][stage] for stage in ("import", "load", "tokenise")},
        result,
    )


def flags(settings: Settings) -> list[str]:
    """Settings as flags of a command line."""
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def interleave(rounds: int, sides: Mapping[str, Callable[[int], Run]]) -> Rounds:
    """Let the sides take turns, another one first in each round, so that a drift of the machine hits them alike.

    Args:
        rounds: how many.
        sides: name to what runs it; given the round, counted from 0.
    """
    runs: Rounds = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            run = sides[name](number)
            runs[name].append(run)
            rates = ", ".join(f"{role} {rate:,.1f} rows/s" for role, rate in run.rows_per_second.items())
            say(f"round {number + 1} of {rounds}: {name}: {run.process.seconds:,.1f} s; {rates}")
    return runs


def parser(description: str | None, rounds: int = 3) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="folder with train.csv and test.csv (text, label)")
    options.add_argument("--base_model", required=True, help="minilm, or an encoder's folder")
    options.add_argument("--out", type=Path, required=True, help="JSON")
    options.add_argument("--rounds", type=int, default=rounds)
    options.add_argument("--work", type=Path, help="folder for runs and caches; a temporary one if not given")
    return options


@contextmanager
def work_folder(asked: Path | None) -> Iterator[Path]:
    """A fresh folder inside the one that was asked for, removed in the end."""
    if asked:
        asked.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=asked) as folder:
        yield Path(folder).resolve()


def as_json(runs: Rounds) -> dict[str, list[dict[str, Any]]]:
    """Every run of every round."""
    return {name: [asdict(run) for run in each] for name, each in runs.items()}


def mebibytes(number: float) -> float:
    """Bytes as MiB."""
    return number / MEBI
