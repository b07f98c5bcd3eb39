"""Whole experiments from the start of the process to its end: ours beside the best Trainer, time and memory.

    python -m benchmarks.whole --figure experiment --data DATA --base_model ENCODER --out whole.json

Figures: `experiment`, teacher, student and control from nothing, caches included; `seed`, student and control once
more with another seed, where the teacher is finished; `suite`, eight experiments that differ in one thing each. Fixed
costs (import, load, tokenise) are shown apart: of ours they are timed in a process beside each run.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.data import draw, layers_of_roles
from benchmarks.machine import Process
from benchmarks.reference_model import VARIANTS
from benchmarks.report import Report, spread, times
from benchmarks.runs import Run, Settings, as_json, interleave, mebibytes, parser, reference, work_folder

ROLES = ("teacher", "student", "control")
DEFAULTS = {"experiment": (1000, 5), "seed": (1000, 5), "suite": (500, 2)}  # rows, epochs

Sides = tuple[Callable[[int], Run], Callable[[str, int], Run]]  # ours by round; the reference by variant and round


@dataclass(frozen=True)
class Bench:
    """What all runs of a figure share.

    Attributes:
        settings: of both sides.
        rows: folder of the drawn rows.
        work: folder for runs and caches.
        sampled: of the suite's experiments, how many the reference runs.
    """

    settings: Settings
    rows: Path
    work: Path
    sampled: int

    def experiment(self) -> Sides:
        """Three trainings from nothing: in each round a folder of runs and a cache of its own."""

        def run_ours(number: int) -> Run:
            fresh = self.work / f"round-{number}"
            run = ours.train(self.settings, self.rows, fresh / "runs", "whole", cache=fresh / "cache")
            return ours.with_fixed(run, self.settings, self.rows, cache=fresh / "cold")

        return run_ours, lambda variant, _: reference(variant, self.settings, self.rows, roles=ROLES)

    def seed(self) -> Sides:
        """Student and control of another seed, beside an experiment that is finished and whose caches are there."""
        runs, cache = self.work / "runs", self.work / "cache"
        ours.train(self.settings, self.rows, runs, "finished", cache=cache)
        teacher = runs / "finished" / "teacher"

        def run_ours(number: int) -> Run:
            given = {**ours.untaught(self.settings), "seed": number + 1, "teacher_checkpoint": str(runs / "finished")}
            run = ours.train(given, self.rows, runs, f"seed-{number + 1}", cache=cache)
            return ours.with_fixed(run, {**given, "output_dir": str(runs)}, self.rows, cache=cache)

        def run_reference(variant: str, number: int) -> Run:
            given = {**self.settings, "seed": number + 1}
            return reference(variant, given, self.rows, roles=ROLES[1:], teacher=teacher)

        return run_ours, run_reference

    def suite(self) -> Sides:
        """Eight experiments: one suite of ours, eight processes of the reference."""
        experiments = eight(*layers_of_roles(Path(str(self.settings["base_model"]))))
        contents = {"name": "eight", "base": dict(self.settings), "seeds": 1, "experiments": experiments}

        def run_ours(number: int) -> Run:
            fresh = self.work / f"round-{number}"
            each = ours.suite(contents, self.rows, fresh / "runs", cache=fresh / "cache")
            compared = dict(list(zip(experiments, each, strict=True))[: self.sampled])  # what the reference runs, too
            together = _together(compared, each[0].process)
            return ours.with_fixed(together, self.settings, self.rows, cache=fresh / "cold")

        def run_reference(variant: str, _: int) -> Run:
            each = {
                name: reference(variant, {**self.settings, **changes}, self.rows, roles=ROLES)
                for name, changes in list(experiments.items())[: self.sampled]
            }
            return _one_after_the_other(each, len(experiments))

        return run_ours, run_reference


def eight(teacher_layers: int, student_layers: int) -> dict[str, dict[str, Any]]:
    """The suite's experiments: what each changes of the base."""
    return {
        "base": {},
        "alpha": {"alpha": 0.7},
        "temperature": {"temperature": 1.0},
        "teacher-rank": {"teacher_lora_r": 32, "teacher_lora_alpha": 64},
        "teacher-layers": {"teacher_target_layers": teacher_layers * 5 // 4},
        "student-small": {
            "student_lora_r": 4,
            "student_lora_alpha": 8,
            "student_target_layers": max(1, student_layers * 2 // 3),
        },
        "seed-1": {"seed": 1},
        "seed-2": {"seed": 2},
    }


def _together(runs: Mapping[str, Run], process: Process, fixed: Mapping[str, float] | None = None) -> Run:
    """Many experiments as one run; rates and accuracies are means over them."""

    def mean(part: str) -> dict[str, float]:
        roles = {role for run in runs.values() for role in getattr(run, part)}
        return {
            role: statistics.mean(getattr(run, part)[role] for run in runs.values() if role in getattr(run, part))
            for role in sorted(roles)
        }

    details = {name: run.details for name, run in runs.items()}
    return Run(process, mean("rows_per_second"), mean("accuracy"), dict(fixed or {}), details)


def _one_after_the_other(runs: Mapping[str, Run], asked: int) -> Run:
    """Times added, and scaled up where only some of the experiments were run; memory is the largest."""
    scale = asked / len(runs)
    processes = [run.process for run in runs.values()]
    process = Process(
        processes[0].command,
        scale * sum(each.seconds for each in processes),
        max(each.anonymous for each in processes),
        max(each.mapped for each in processes),
    )
    stages = next(iter(runs.values())).fixed
    fixed = {stage: scale * sum(run.fixed[stage] for run in runs.values()) for stage in stages}
    return _together(runs, process, fixed)


def main() -> None:
    """Take turns, print, write."""
    options = parser(__doc__)
    options.add_argument("--figure", choices=tuple(DEFAULTS), required=True)
    options.add_argument("--rows", type=int, help="training rows; 1000, or 500 of the suite, if not given")
    options.add_argument("--epochs", type=int, help="5, or 2 of the suite, if not given")
    options.add_argument("--test_rows", type=int, default=500)
    options.add_argument("--learning_rate", type=float, default=5e-4)
    options.add_argument("--variants", default=VARIANTS[1])
    options.add_argument("--sampled", type=int, default=8, help="experiments of the suite that the reference runs")
    arguments = options.parse_args()
    rows, epochs = DEFAULTS[arguments.figure]
    rows, epochs = arguments.rows or rows, arguments.epochs or epochs
    with work_folder(arguments.work) as work:
        drawn = draw(arguments.data, work / "data", train=rows, validation=100, test=arguments.test_rows)
        settings = _settings(arguments, epochs)
        run_ours, run_reference = getattr(Bench(settings, drawn, work, arguments.sampled), arguments.figure)()
        variants = {name: partial(run_reference, name) for name in arguments.variants.split(",")}
        runs = interleave(arguments.rounds, {"ours": run_ours, **variants})
    report = _report(arguments.figure, runs)
    contents = {"figure": arguments.figure, "settings": settings, "rows": rows, "sampled": arguments.sampled}
    report.finish(arguments.out, {**contents, "rounds": as_json(runs)})


def _settings(arguments: argparse.Namespace, epochs: int) -> Settings:
    base_model = ours.encoder_folder(arguments.base_model)
    teacher_layers, student_layers = layers_of_roles(base_model)
    return {
        "base_model": str(base_model),
        "teacher_target_layers": teacher_layers,
        "student_target_layers": student_layers,
        "num_epochs": epochs,
        "learning_rate": arguments.learning_rate,
    }


def _report(figure: str, runs: Mapping[str, list[Run]]) -> Report:
    report = Report(
        f"Whole: {figure}",
        ["", "seconds", "ours is", "of it fixed", "without, ours is", "own MiB", "mapped MiB", "accuracy"],
    )

    def middle(name: str, part: Callable[[Run], float]) -> float:
        return statistics.median(part(run) for run in runs[name])

    for name, each in runs.items():
        report.row(
            name,
            spread(run.process.seconds for run in each),
            times(middle(name, lambda run: run.process.seconds), middle("ours", lambda run: run.process.seconds)),
            f"{middle(name, lambda run: sum(run.fixed.values())):,.1f}",
            times(
                middle(name, lambda run: run.seconds_without_fixed),
                middle("ours", lambda run: run.seconds_without_fixed),
            ),
            spread((mebibytes(run.process.anonymous) for run in each), 0),
            f"{middle(name, lambda run: mebibytes(run.process.mapped)):,.0f}",
            " ".join(
                f"{role[0]} {statistics.median(100 * run.accuracy[role] for run in each):.1f}"
                for role in ROLES
                if role in each[0].accuracy
            ),
        )
    return report


if __name__ == "__main__":
    main()
