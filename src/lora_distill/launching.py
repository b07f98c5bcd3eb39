"""Runs in processes of their own, several at a time, with the processor's threads divided among them.

A run is a task with a name: its input is a config file, its output the run's folder, and called again it goes on. So a
launcher of another kind needs no more than `train_command`.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import IO

import yaml

from lora_distill.config import Config
from lora_distill.processors import cores
from lora_distill.program import PARENT

POLL_SECONDS = 0.1


def train_command(config: Config, file: Path, *, resume: bool, overwrite: float) -> list[str]:
    """What trains a run, and goes on with it.

    Args:
        config: as it was asked for.
        file: to write what was named into.
        resume: whether the run was begun before.
        overwrite: if not 0, replace it, and train again what was trained before that moment (seconds since the epoch).
    """
    named = config.model_dump(mode="json", include=set(config.model_fields_set))
    file.write_text(yaml.safe_dump(named, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "lora_distill", "train", "--quiet", "--config", str(file)]
    if overwrite:
        return [*command, "--overwrite", "--since", repr(overwrite)]
    return [*command, "--resume"] if resume else command


def launch(
    commands: Mapping[str, list[str]], jobs: int, begin: Callable[[str], None]
) -> Generator[tuple[str, int, str]]:
    """Run commands; yields each one's name, exit code and what it said on standard error, as it ends.

    Those that run when the iterator is closed, or interrupted, are interrupted in their turn and waited for.

    Args:
        commands: by name, in the order in which they begin.
        jobs: how many at a time.
        begin: is told the name of each that begins.
    """
    waiting = list(commands.items())
    running: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
    environment = os.environ | {"OMP_NUM_THREADS": str(threads_each(jobs)), PARENT: str(os.getpid())}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name, command = waiting.pop(0)
                begin(name)
                said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - its process outlives this block
                # In a group of its own, a terminal's Ctrl-C reaches it through this process only, and so once.
                nowhere = subprocess.DEVNULL
                process = subprocess.Popen(
                    command, env=environment, stdin=nowhere, stdout=nowhere, stderr=said, process_group=0
                )
                running[name] = process, said
            time.sleep(POLL_SECONDS)
            for name in [name for name, (process, _) in running.items() if process.poll() is not None]:
                process, said = running.pop(name)
                said.seek(0)
                yield name, process.returncode, said.read().decode(errors="replace")
                said.close()
    finally:
        for process, _ in running.values():
            process.terminate()  # not Ctrl-C's signal, which is ignored by what was started in the background
        for process, _ in running.values():
            process.wait()


def shared_work_first(runs: Mapping[str, Config], jobs: int) -> list[str]:
    """Names of the runs, first those whose teachers differ: of two that share one, one would wait.

    That is in rounds, each of as few seeds as have a teacher for every job: a suite that is stopped has compared its
    experiments on something.
    """
    own = {"exp_name", "alpha", "temperature", "soft_loss", "pooled_weight", "no_control", "labelled_per_batch"}
    own |= {"preset", "teacher_calibrate", "learn_from"}
    own |= {name for name in Config.model_fields if name.startswith(("student_", "control_"))}
    seeds = list(dict.fromkeys(config.seed for config in runs.values()))
    teachers = {name: config.model_dump_json(exclude=own) for name, config in runs.items()}
    firsts = {teacher: name for name, teacher in reversed(teachers.items())}
    rounds = max(1, min(len(seeds), len(firsts) // jobs))

    def place(name: str) -> tuple[int, bool, int]:
        seed = seeds.index(runs[name].seed)
        return seed * rounds // len(seeds), firsts[teachers[name]] != name, seed

    return sorted(runs, key=place)


def threads_each(jobs: int) -> int:
    """Threads of each of so many processes, one at least."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, (int(given) if given.isdecimal() else cores()) // jobs)


def failure(code: int, said: str) -> str:
    """Why a command ended with this exit code: its own last error, or how it went down."""
    _, marked, message = f"\n{said}".rpartition("\nerror: ")
    if marked:
        return message.strip()
    how = f"was killed (signal {-code})" if code < 0 else f"broke (exit code {code})"
    return f"its process {how}.\n{said.strip()[-2000:]}".strip()
