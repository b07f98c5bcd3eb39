import csv
import io
from pathlib import Path

import pytest
from scipy import stats

from lora_distill.evidence import gather
from lora_distill.reporting.summary import Experiment, as_csv, as_markdown, summarise
from tests.reporting.test_report import finished_run


@pytest.fixture
def experiments(tmp_path: Path) -> list[Experiment]:
    groups = {
        "over|seeds": [finished_run(tmp_path, f"s-seed-{seed}", seed) for seed in range(3)],
        "alone": [finished_run(tmp_path, "alone", 0)],
    }
    return summarise(gather(groups), groups)


def test_intervals_are_students_t_over_seeds_and_wilsons_of_one(experiments: list[Experiment]) -> None:
    seeds, alone = experiments
    values = seeds.evidence.accuracy["student"] = [0.9, 0.92, 0.91]
    found = seeds.accuracy("student")
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert found == pytest.approx((0.91, expected.low, expected.high))
    seeds.evidence.accuracy["teacher"] = [0.8, 0.8, 0.8]  # one teacher, of a checkpoint
    of_one = stats.binomtest(356, 445).proportion_ci(method="wilson")
    assert seeds.accuracy("teacher") == pytest.approx((0.8, of_one.low, of_one.high))
    rows = alone.results[0]["data"]["test_rows"]
    right = round(alone.evidence.accuracy["student"][0] * rows)
    wilson = stats.binomtest(right, rows).proportion_ci(method="wilson")
    assert alone.accuracy("student") == pytest.approx((right / rows, wilson.low, wilson.high))


def test_a_teacher_that_was_judged_with_some_seeds_only_has_no_mean(experiments: list[Experiment]) -> None:
    seeds, _ = experiments
    figures = seeds.figures()
    assert "teacher: NLL" in figures
    assert "same as teacher" in figures
    for name in ("teacher", "agreement"):
        del seeds.results[-1][name]
    del seeds.evidence.accuracy["teacher"]
    told = [name for name in figures if "teacher" not in name.replace("student", "")]
    assert list(seeds.figures()) == told


def test_csv_holds_numbers(experiments: list[Experiment]) -> None:
    seeds, alone = csv.DictReader(io.StringIO(as_csv(experiments)))
    assert (seeds["experiment"], seeds["seeds"], alone["seeds"]) == ("over|seeds", "3", "1")
    for row in (seeds, alone):
        low, middle, high = (float(row[f"student_minus_control{part}"]) for part in ("_low", "", "_high"))
        assert low < middle < high
        assert 0 <= float(row["p_value"]) <= 1
    assert alone["finding"] == "one seed"
    assert seeds["test"] == "rows and seeds at random, corrected (Holm)"
    assert alone["test"] == "McNemar, one seed, not corrected"


def test_markdown_is_a_table(experiments: list[Experiment]) -> None:
    lines = as_markdown(experiments).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| over\\|seeds | 3 | ")
    assert {line.replace("\\|", "").count("|") for line in lines} == {10}
    assert lines[3].endswith(" | McNemar, one seed, not corrected |")
