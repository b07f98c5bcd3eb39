"""This program's side: its command line, its result files, and the few calls into it that they cannot answer.

As a process it times what every run must do before it trains: `python -m benchmarks.ours OUT.json SETTINGS-AS-JSON`.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.machine import Process, process_age, run_python
from benchmarks.runs import Run, Settings, flags

ROLES = ("teacher", "student", "control")
FACTS = ("seconds", "examples_per_second", "epochs", "kept_epoch", "reused")


def untaught(settings: Settings) -> Settings:
    """Settings without those that are for a teacher that is trained, where one is given."""
    return {name: value for name, value in settings.items() if not name.startswith("teacher_")}


def train(settings: Settings, dataset: Path, runs: Path, name: str, *switches: str, cache: Path) -> Run:
    """`lora-distill train` as a process of its own.

    Args:
        settings: by name.
        dataset: folder of train.csv, validation.csv and test.csv.
        runs: folder of the runs.
        name: of this run.
        switches: flags without a value.
        cache: folder of the caches.
    """
    given = {**settings, "dataset": str(dataset), "output_dir": str(runs), "exp_name": name}
    arguments = ["-m", "lora_distill", "train", "--quiet", *flags(given), *switches]
    process = run_python(arguments, {"LORA_DISTILL_CACHE": str(cache)})
    return _finished(process, runs / name)


def suite(contents: dict[str, Any], dataset: Path, runs: Path, *, cache: Path) -> list[Run]:
    """`lora-distill suite` as a process of its own; a run for each experiment, all with the whole process' costs.

    Args:
        contents: of the suite's file.
        dataset: as in `train`.
        runs: as in `train`.
        cache: as in `train`.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "suite.yaml"
        file.write_text(json.dumps(contents), encoding="utf-8")  # JSON is YAML
        given = {"dataset": str(dataset), "output_dir": str(runs)}
        arguments = ["-m", "lora_distill", "suite", str(file), "--quiet", *flags(given)]
        process = run_python(arguments, {"LORA_DISTILL_CACHE": str(cache)})
    return [_finished(process, runs / f"{contents['name']}-{name}") for name in contents["experiments"]]


def _finished(process: Process, run: Path) -> Run:
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    roles = {role: metrics[role] for role in ROLES if role in metrics}
    return Run(
        process,
        {role: each["examples_per_second"] for role, each in roles.items() if "examples_per_second" in each},
        {role: each["test"]["accuracy"] for role, each in roles.items()},
        {},
        {role: {fact: each[fact] for fact in FACTS if fact in each} for role, each in roles.items()},
    )


def with_fixed(run: Run, settings: Settings, dataset: Path, *, cache: Path) -> Run:
    """The same run with the fixed costs of such a run, timed in a process beside it.

    Args:
        run: what was run.
        settings: as in `train`.
        dataset: as in `train`.
        cache: a new folder where the run had no caches, else the run's.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "fixed.json"
        arguments = ["-m", "benchmarks.ours", str(out), json.dumps({**settings, "dataset": str(dataset)})]
        run_python(arguments, {"LORA_DISTILL_CACHE": str(cache)})
        return replace(run, fixed=json.loads(out.read_text(encoding="utf-8")))


def encoder_folder(name: str) -> Path:
    """Where an encoder lies; `minilm` is the packaged one."""
    from lora_distill.model.base import resolve_base_model

    return resolve_base_model(name).folder


def main() -> None:
    """Write the seconds of importing, of loading and checking, and of tokenising."""
    from lora_distill.config import make_config
    from lora_distill.preparation import prepare
    from lora_distill.trainings import splits_of, trainings

    seconds = {"import": process_age()}
    out, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    started = time.perf_counter()
    prepared = prepare(make_config(settings, {}))
    seconds["load"] = time.perf_counter() - started
    started = time.perf_counter()
    splits_of(prepared, trainings(prepared)["student"])
    seconds["tokenise"] = time.perf_counter() - started
    out.write_text(json.dumps(seconds), encoding="utf-8")


if __name__ == "__main__":
    main()
