"""How ours grows: rows/s with the number of rows, FLOP/s with the length of texts, memory with the tokens.

    python -m benchmarks.growth --data DATA --base_model ENCODER --out growth.json

A student alone learns from a finished teacher. What stays constant has a ratio of 1 to the first of its group.
"""

import argparse
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import ours, peak
from benchmarks.data import draw, lengthen, student_shape, token_lengths
from benchmarks.report import Report, spread, times
from benchmarks.runs import Rounds, Run, Settings, as_json, interleave, mebibytes, parser, work_folder
from benchmarks.steps import MAX_LENGTH, RANK, flops_per_row, student_settings, train_student, train_teacher


@dataclass(frozen=True)
class Case:
    """One point.

    Attributes:
        rows: folder of the drawn rows.
        max_length: tokens at which texts are cut.
        tokens: of the training rows, in all.
        flops_per_row: that a step needs.
    """

    rows: Path
    max_length: int
    tokens: int
    flops_per_row: float


def make_cases(arguments: argparse.Namespace, base_model: Path, settings: Settings, work: Path) -> dict[str, Case]:
    """The points by name: `N rows` as the texts come, `N tokens` with texts that are all longer than that."""
    cases = {}
    for rows in arguments.sizes:
        folder = draw(arguments.data, work / f"rows-{rows}", train=rows, validation=100, test=100)
        cases[f"{rows:,} rows"] = (folder, MAX_LENGTH)
    drawn = draw(arguments.data, work / "short", train=arguments.token_rows, validation=100, test=100)
    # A word is a token or more.
    long = lengthen(drawn, work / "tokens", words=max(arguments.tokens, default=1))
    for tokens in arguments.tokens:
        cases[f"{tokens} tokens"] = (long, tokens)
    layers = int(settings["student_target_layers"])
    made = {}
    for name, (folder, max_length) in cases.items():
        shape = student_shape(base_model, folder, layers=layers, rank=RANK)
        lengths = token_lengths(base_model, folder / "train.csv", max_length)
        made[name] = Case(folder, max_length, sum(lengths), flops_per_row(shape, lengths))
    return made


def main() -> None:
    """Take turns, print, write."""
    options = parser(__doc__)
    options.add_argument("--sizes", type=int, nargs="*", default=[1000, 4000, 18000], help="training rows")
    options.add_argument("--tokens", type=int, nargs="*", default=[32, 64, 128, 256], help="lengths of all texts")
    options.add_argument("--token_rows", type=int, default=512, help="training rows of these")
    options.add_argument("--learning_rate", type=float, default=5e-4)
    arguments = options.parse_args()
    base_model = ours.encoder_folder(arguments.base_model)
    settings = student_settings(base_model, arguments.learning_rate, epochs=1)
    with work_folder(arguments.work) as work:
        cases = make_cases(arguments, base_model, settings, work)
        teacher = train_teacher(settings, arguments.data, work)
        shape = student_shape(base_model, next(iter(cases.values())).rows, layers=1, rank=RANK)

        def run(case: Case, number: int) -> Run:
            given = {**settings, "max_length": case.max_length}
            return train_student(given, case.rows, teacher, work, number)

        peaks = [peak.measure(shape.hidden, shape.intermediate) for _ in range(arguments.rounds)]
        runs = interleave(arguments.rounds, {name: partial(run, case) for name, case in cases.items()})
    _report(cases, runs, max(max(each.values()) for each in peaks)).finish(
        arguments.out,
        {
            "settings": settings,
            "token_rows": arguments.token_rows,
            "cases": {name: {"tokens": c.tokens, "flops_per_row": c.flops_per_row} for name, c in cases.items()},
            "peaks": peaks,
            "rounds": as_json(runs),
        },
    )


def _report(cases: dict[str, Case], runs: Rounds, best: float) -> Report:
    columns = [
        "",
        "rows/s",
        "to the first",
        "GFLOP/s",
        "to the first",
        "of the peak",
        "tokens",
        "own MiB",
        "mapped MiB",
    ]
    report = Report("Growth", columns)
    first: dict[str, tuple[float, float]] = {}
    for name, case in cases.items():
        rates = [run.rows_per_second["student"] for run in runs[name]]
        rate = statistics.median(rates)
        flops = rate * case.flops_per_row
        first_rate, first_flops = first.setdefault(name.split()[1], (rate, flops))
        report.row(
            name,
            spread(rates),
            times(rate, first_rate),
            f"{flops / 1e9:,.0f}",
            times(flops, first_flops),
            f"{flops / best:.1%}",
            f"{case.tokens:,}",
            spread((mebibytes(run.process.anonymous) for run in runs[name]), 0),
            f"{statistics.median(mebibytes(run.process.mapped) for run in runs[name]):,.0f}",
        )
    return report


if __name__ == "__main__":
    main()
