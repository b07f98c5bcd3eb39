import csv
import io
from pathlib import Path

import pytest

from lora_distill.evaluation.over_seeds import share_over_seeds
from lora_distill.evaluation.significance import share_interval
from lora_distill.evidence import gather
from lora_distill.reporting.summary import Experiment, as_csv, as_markdown, summarise
from tests.reporting.test_report import finished_run


@pytest.fixture
def experiments(tmp_path: Path) -> list[Experiment]:
    groups = {
        "over|<b>": [finished_run(tmp_path, f"s-seed-{seed}", seed) for seed in range(3)],
        "alone": [finished_run(tmp_path, "alone", 0)],
    }
    return summarise(gather(groups), groups)


def test_accuracies_have_the_interval_of_rows_and_seeds_and_of_one_seed_wilsons(experiments: list[Experiment]) -> None:
    for each in experiments:
        right = each.evidence.right["student"]
        assert each.accuracy("student") == (right.mean(), *share_over_seeds(right))
        assert each.accuracy("student", [0]) == (
            right[:, 0].mean(),
            *share_interval(int(right[:, 0].sum()), len(right)),
        )
        assert each.accuracy("self-trained") is None


def test_a_teacher_that_was_judged_with_some_seeds_only_has_no_mean(experiments: list[Experiment]) -> None:
    seeds, _ = experiments
    figures = seeds.figures()
    assert "teacher: NLL" in figures
    assert "same as teacher" in figures
    for name in ("teacher", "agreement"):
        del seeds.results[-1][name]
    del seeds.evidence.right["teacher"]
    told = [name for name in figures if "teacher" not in name.replace("student", "")]
    assert list(seeds.figures()) == told


def test_the_divergence_from_the_teacher_is_the_mean_over_seeds(experiments: list[Experiment]) -> None:
    seeds, _ = experiments
    for divergence, results in zip((0.1, 0.2, 0.6), seeds.results, strict=True):
        results["agreement"]["student_teacher"]["kl"] = divergence
    assert seeds.figures()["KL(teacher ‖ student), nats"] == "0.3000"


def test_csv_holds_numbers(experiments: list[Experiment]) -> None:
    seeds, alone = csv.DictReader(io.StringIO(as_csv(experiments)))
    assert (seeds["experiment"], seeds["seeds"], alone["seeds"]) == ("over|<b>", "3", "1")
    for row in (seeds, alone):
        assert (row["trainable"], row["total"], row["budget"]) == ("223493", "22862981", "1000000")
        low, middle, high = (float(row[f"student_minus_control{part}"]) for part in ("_low", "", "_high"))
        assert low < middle < high
        assert 0 <= float(row["p_value"]) <= 1
    assert alone["finding"] == "one seed"
    assert seeds["test"] == "rows and seeds at random, corrected (Holm)"
    assert alone["test"] == "McNemar, one seed, not corrected"


def test_markdown_is_a_table(experiments: list[Experiment]) -> None:
    lines = as_markdown(experiments).splitlines()
    assert len(lines) == 4
    assert "| Student [95%] | Control [95%] | Student - control [95%] |" in lines[0]
    assert lines[2].startswith("| over\\|\\<b\\> | 3 | 223,493 | 22,862,981 | ")
    assert {line.replace("\\|", "").count("|") for line in lines} == {11}
    assert lines[3].endswith(" | McNemar, one seed, not corrected |")
