import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from scipy import stats

from benchmarks import runs
from benchmarks.accuracy import BF16, FP32, compare, paired_interval, welch_interval
from benchmarks.machine import REPOSITORY, Process
from benchmarks.report import Report, spread, times
from benchmarks.runs import Run
from benchmarks.whole import _one_after_the_other, _together, eight
from tests.tiny import tiny_model


def run_of(seconds: float = 1.0, accuracy: float = 0.9, anonymous: int = 10) -> Run:
    return Run(
        Process(["python"], seconds, anonymous, 5),
        {"student": 10.0 * seconds},
        dict.fromkeys(("teacher", "student", "control"), accuracy),
        {"import": 0.5},
        {},
    )


def test_sides_take_turns_and_another_begins_each_round() -> None:
    called: list[str] = []

    def side(name: str) -> Callable[[int], Run]:
        def run(number: int) -> Run:
            called.append(f"{name}{number}")
            return run_of()

        return run

    result = runs.interleave(3, {"a": side("a"), "b": side("b")})
    assert called == ["a0", "b0", "b1", "a1", "a2", "b2"]
    assert [len(each) for each in result.values()] == [3, 3]


def test_fixed_costs_are_taken_off() -> None:
    assert run_of(3.0).seconds_without_fixed == 2.5


def test_many_runs_become_one() -> None:
    each = {"base": run_of(1.0, 0.8, 10), "other": run_of(3.0, 0.9, 30)}
    added = _one_after_the_other(each, asked=4)
    assert added.process.seconds == 8.0
    assert added.process.anonymous == 30
    assert added.fixed == {"import": 2.0}
    assert added.accuracy["student"] == pytest.approx(0.85)
    together = _together(each, Process(["python"], 3.5, 1, 1))
    assert together.process.seconds == 3.5
    assert together.rows_per_second == {"student": 20.0}


def test_eight_experiments_on_twelve_layers() -> None:
    experiments = eight(8, 6)
    assert len(experiments) == 8
    assert experiments["teacher-layers"] == {"teacher_target_layers": 10}
    assert experiments["student-small"]["student_target_layers"] == 4


def test_intervals_are_those_of_the_textbook() -> None:
    first, second = [90.0, 91.0, 92.0, 91.0, 90.5], [90.2, 90.8, 91.7, 91.1, 90.0]
    low, high = paired_interval(first, second)
    differences = [a - b for a, b in zip(first, second, strict=True)]
    half = stats.t.ppf(0.95, 4) * stats.sem(differences)
    mean = sum(differences) / 5
    assert (low, high) == pytest.approx((mean - half, mean + half))
    # Equal variances: Welch's degrees of freedom are 2 (n - 1), and the standard error is sqrt(2 / n) times theirs.
    moved = [value - 1 for value in first]
    half = stats.t.ppf(0.95, 8) * stats.sem(first) * 2**0.5
    assert welch_interval(first, moved) == pytest.approx((1 - half, 1 + half))


def test_each_comparison_says_its_kind() -> None:
    rounds = {
        BF16: [run_of(accuracy=0.90), run_of(accuracy=0.91)],
        FP32: [run_of(accuracy=0.90), run_of(accuracy=0.92)],
        "trainer": [run_of(accuracy=0.89), run_of(accuracy=0.92)],
    }
    made = compare(rounds, "trainer")
    assert [(each["first"], each["second"], each["interval"]) for each in made[::3]] == [
        (BF16, "trainer", "Welch"),
        (FP32, "trainer", "Welch"),
        (BF16, FP32, "paired"),
    ]
    assert made[0]["difference"] == pytest.approx(0.0)
    assert made[-1]["difference"] == pytest.approx(-0.5)


def test_a_report_holds_machine_and_rounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("Title", ["", "rows/s"])
    report.row("ours", spread([3.0, 1.0, 2.0]))
    report.finish(tmp_path / "out" / "report.json", {"rounds": runs.as_json({"ours": [run_of()]})})
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["rounds"]["ours"][0] == asdict(run_of())
    assert written["machine"]["command"]
    assert times(3.0, 2.0) == "1.50x"


@pytest.mark.benchmark
@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("steps", ["--rows", "48", "--slow_rows", "16", "--variants", "trainer"]),
        ("whole", ["--figure", "experiment", "--rows", "32", "--epochs", "1", "--test_rows", "40"]),
        ("whole", ["--figure", "seed", "--rows", "32", "--epochs", "1", "--test_rows", "40"]),
        ("whole", ["--figure", "suite", "--rows", "32", "--epochs", "1", "--sampled", "1"]),
        ("growth", ["--sizes", "32", "--tokens", "16", "32", "--token_rows", "32"]),
        ("accuracy", ["--rows", "32", "--test_rows", "40", "--epochs", "1", "--precisions", "fp32"]),
    ],
)
def test_each_command_runs_and_writes(command: str, options: list[str], ag_news: Path, tmp_path: Path) -> None:
    encoder = tiny_model("bert", tmp_path / "encoder", layers=6)
    out = tmp_path / "out.json"
    given = ["--data", str(ag_news), "--base_model", str(encoder), "--out", str(out), "--work", str(tmp_path / "work")]
    rounds = ["--rounds", "2" if command == "accuracy" else "1"]
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{command}", *given, *rounds, *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    assert all(written["rounds"].values())
    assert list((tmp_path / "work").iterdir()) == []
