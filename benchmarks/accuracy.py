"""Whether ours is as accurate: beside the best Trainer, and trained in bf16 beside fp32.

    python -m benchmarks.accuracy --data DATA --base_model minilm --out accuracy.json

All runs see the same rows; a round is a seed. Ours against the Trainer: the same seed draws other weights, order and
dropout on the two sides, so the interval is Welch's. Ours in bf16 against fp32: the same seed draws the same, so the
interval is of the paired differences. Both are two-sided, 90%, of the difference of the mean accuracies.
"""

from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from benchmarks import ours
from benchmarks.data import draw, layers_of_roles
from benchmarks.reference_model import VARIANTS
from benchmarks.report import Report, spread
from benchmarks.runs import Rounds, Run, as_json, interleave, parser, reference, work_folder

ROLES = ("teacher", "student", "control")
CONFIDENCE = 0.9
BF16, FP32 = "ours, bf16", "ours, fp32"


def welch_interval(first: list[float], second: list[float]) -> tuple[float, float]:
    """Interval of mean(first) - mean(second), unequal variances (Welch 1947)."""
    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)


def paired_interval(first: list[float], second: list[float]) -> tuple[float, float]:
    """Interval of the mean of first - second, pair by pair (Student's t)."""
    interval = stats.ttest_rel(first, second).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)


def compare(runs: Rounds, variant: str) -> list[dict[str, Any]]:
    """Each comparison for each role: means' difference and its interval, in points of accuracy."""
    pairs = [(name, variant, "Welch") for name in (BF16, FP32) if name in runs]
    pairs += [(BF16, FP32, "paired")] if BF16 in runs and FP32 in runs else []
    made = []
    for first, second, kind in pairs:
        for role in ROLES:
            one, other = ([100 * run.accuracy[role] for run in runs[name]] for name in (first, second))
            low, high = (welch_interval if kind == "Welch" else paired_interval)(one, other)
            difference = float(np.mean(one) - np.mean(other))
            interval = {"difference": difference, "low": low, "high": high, "interval": kind}
            made.append({"first": first, "second": second, "role": role, **interval})
    return made


def main() -> None:
    """Take turns, print, write."""
    options = parser(__doc__, rounds=5)
    options.add_argument("--rows", type=int, default=4000)
    options.add_argument("--test_rows", type=int, default=6000)
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--learning_rate", type=float, default=1e-3)
    options.add_argument("--variant", choices=VARIANTS, default=VARIANTS[2], help="the reference's; equal in accuracy")
    options.add_argument("--precisions", default="bf16,fp32", help="of ours")
    arguments = options.parse_args()
    base_model = ours.encoder_folder(arguments.base_model)
    teacher_layers, student_layers = layers_of_roles(base_model)
    settings = {
        "base_model": str(base_model),
        "teacher_target_layers": teacher_layers,
        "student_target_layers": student_layers,
        "num_epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
    }
    with work_folder(arguments.work) as work:
        rows = draw(arguments.data, work / "data", train=arguments.rows, validation=400, test=arguments.test_rows)

        def run_ours(precision: str, seed: int) -> Run:
            given = {**settings, "seed": seed, "precision": precision}
            return ours.train(given, rows, work / "runs", f"{precision}-{seed}", cache=work / "cache")

        def run_reference(seed: int) -> Run:
            return reference(arguments.variant, {**settings, "seed": seed}, rows, roles=ROLES)

        sides = {f"ours, {each}": partial(run_ours, each) for each in arguments.precisions.split(",")}
        runs = interleave(arguments.rounds, {**sides, arguments.variant: run_reference})
    comparisons = compare(runs, arguments.variant)
    _report(runs, comparisons).finish(
        arguments.out,
        {"settings": settings, "rows": arguments.rows, "comparisons": comparisons, "rounds": as_json(runs)},
    )


def _report(runs: Rounds, comparisons: list[dict[str, Any]]) -> Report:
    report = Report(f"Accuracy, %, and the {CONFIDENCE:.0%} interval of differences", ["", *ROLES])
    for name, each in runs.items():
        report.row(name, *(spread((100 * run.accuracy[role] for run in each), 2) for role in ROLES))
    for first, second in dict.fromkeys((each["first"], each["second"]) for each in comparisons):
        same = [each for each in comparisons if (each["first"], each["second"]) == (first, second)]
        cells = (f"{each['difference']:+.2f} [{each['low']:+.2f}, {each['high']:+.2f}]" for each in same)
        report.row(f"{first} - {second} ({same[0]['interval']})", *cells)
    return report


if __name__ == "__main__":
    main()
