"""A student's training steps, rows/s: ours beside the reference's variants, and the share of the machine's peak.

    python -m benchmarks.steps --data DATA --base_model ENCODER --out steps.json

All of them learn from one teacher, trained beforehand on a few rows; accuracies stand beside the rates.
"""

import argparse
import statistics
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks import ours, peak
from benchmarks.data import draw, layers_of_roles, student_shape, token_lengths
from benchmarks.flops import Shape, step_flops
from benchmarks.reference_model import VARIANTS
from benchmarks.report import Report, spread, times
from benchmarks.runs import Rounds, Run, Settings, as_json, interleave, parser, reference, work_folder

MAX_LENGTH = 128
RANK = 8


def student_settings(base_model: Path, learning_rate: float, epochs: int) -> Settings:
    """What both sides are given."""
    teacher_layers, student_layers = layers_of_roles(base_model)
    return {
        "base_model": str(base_model),
        "max_length": MAX_LENGTH,
        "teacher_target_layers": teacher_layers,
        "student_target_layers": student_layers,
        "student_lora_r": RANK,
        "num_epochs": epochs,
        "learning_rate": learning_rate,
    }


def train_teacher(settings: Settings, data: Path, work: Path) -> Path:
    """A teacher of ours, trained on a few rows; its PEFT adapter.

    Args:
        settings: of the benchmark.
        data: folder of the source.
        work: folder to train in.
    """
    rows = draw(data, work / "teacher data", train=256, validation=50, test=50, seed=1)
    # The student that comes with it is as small as can be.
    small = {"student_target_layers": 1, "student_lora_r": 1, "num_epochs": 2}
    ours.train({**settings, **small}, rows, work / "teacher runs", "teacher", "--no_control", cache=work / "cache")
    return work / "teacher runs" / "teacher" / "teacher"


def train_student(settings: Settings, rows: Path, teacher: Path, work: Path, number: int) -> Run:
    """Ours: a student alone, of a seed of its own in each round, so that it is trained anew."""
    given = {**ours.untaught(settings), "teacher_checkpoint": str(teacher), "seed": number}
    name = f"{rows.name}-{settings['max_length']}-{number}"
    return ours.train(given, rows, work / "runs", name, "--no_control", cache=work / "cache")


def flops_per_row(shape: Shape, lengths: list[int]) -> float:
    """What a step needs for a row, in the mean over rows of these lengths."""
    return step_flops(lengths, shape) / len(lengths)


def main() -> None:
    """Take turns, print, write."""
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=1024, help="training rows")
    options.add_argument("--slow_rows", type=int, default=192, help="training rows of seed-style, whose steps are slow")
    options.add_argument("--epochs", type=int, default=1)
    options.add_argument("--learning_rate", type=float, default=5e-4)
    options.add_argument("--variants", default=",".join(VARIANTS))
    arguments = options.parse_args()
    base_model = ours.encoder_folder(arguments.base_model)
    settings = student_settings(base_model, arguments.learning_rate, arguments.epochs)
    peaks: list[dict[str, float]] = []
    with work_folder(arguments.work) as work:
        rows = draw(arguments.data, work / "data", train=arguments.rows, validation=100, test=400)
        shape = student_shape(base_model, rows, layers=int(settings["student_target_layers"]), rank=RANK)
        need = flops_per_row(shape, token_lengths(base_model, rows / "train.csv", MAX_LENGTH))
        runs = _take_turns(arguments, settings, work, rows, shape, peaks)
    best = max(max(each.values()) for each in peaks)
    _report(runs, need / best).finish(
        arguments.out,
        {
            "settings": settings,
            "rows": arguments.rows,
            "slow_rows": arguments.slow_rows,
            "shape": asdict(shape),
            "flops_needed_per_row": need,
            "peaks": peaks,
            "rounds": as_json(runs),
        },
    )


def _take_turns(
    arguments: argparse.Namespace,
    settings: Settings,
    work: Path,
    rows: Path,
    shape: Shape,
    peaks: list[dict[str, float]],
) -> Rounds:
    few = draw(arguments.data, work / "few", train=arguments.slow_rows, validation=32, test=32)
    teacher = train_teacher(settings, arguments.data, work)

    def run_ours(number: int) -> Run:
        peaks.append(peak.measure(shape.hidden, shape.intermediate))
        return train_student(settings, rows, teacher, work, number)

    def run_reference(variant: str, number: int) -> Run:
        dataset = few if variant == "seed-style" else rows
        return reference(variant, {**settings, "seed": number}, dataset, roles=["student"], teacher=teacher)

    # One run beforehand, so that every counted one finds the same: files in memory, caches there.
    train_student(settings, rows, teacher, work, arguments.rounds)
    sides = {variant: partial(run_reference, variant) for variant in arguments.variants.split(",")}
    return interleave(arguments.rounds, {"ours": run_ours, **sides})


def _report(runs: Rounds, peak_seconds_per_row: float) -> Report:
    report = Report("Student step", ["", "rows/s", "ours is", "share of the peak", "test accuracy"])
    rates = {name: [run.rows_per_second["student"] for run in each] for name, each in runs.items()}
    middles = {name: statistics.median(each) for name, each in rates.items()}
    for name, each in runs.items():
        report.row(
            name,
            spread(rates[name]),
            times(middles["ours"], middles[name]),
            f"{middles[name] * peak_seconds_per_row:.1%}",
            spread(100 * run.accuracy["student"] for run in each),
        )
    return report


if __name__ == "__main__":
    main()
