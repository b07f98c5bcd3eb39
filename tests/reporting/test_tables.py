import copy
import io
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from lora_distill.reporting.sentences import FASTER, SPEED
from lora_distill.reporting.tables import (
    class_table,
    explain,
    results_table,
    role_table,
    trials_table,
)
from lora_distill.tuning import TrialResult
from tests.reporting.sample import sample_results


def render(table: Table, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


def suite() -> list[dict[str, Any]]:
    results = [sample_results() for _ in range(3)]
    names = ("quickstart-base", "quickstart-temperature-1", "quickstart-no-control")
    for each, name in zip(results, names, strict=True):
        each["exp_name"] = name
    del results[2]["control"], results[2]["student_minus_control"], results[2]["agreement"]["control_teacher"]
    return results


def test_values_that_were_searched_are_shown_as_they_are() -> None:
    trial = TrialResult(0, {"base_model": "enc[v2][/x]", "alpha": 0.123456}, "finished", 0.3, 0.9, "")
    assert "enc[v2][/x]" in (shown := render(trials_table([trial], "student"), 100))
    assert "0.1235" in shown


def given_teacher(results: dict[str, Any]) -> dict[str, Any]:
    results = copy.deepcopy(results)
    results["teacher"] |= {"trainable_parameters": None, "checkpoint": "somewhere/teacher"}
    results["same_backbone"] = False
    return results


def test_results_as_a_piped_terminal_shows_them() -> None:
    lines = render(results_table(suite()), 100).splitlines()
    assert [line.rstrip() for line in lines] == [
        "",
        "                               Accuracy on the test split",
        "                         Trainable",
        "                          of total                              Student - Same as",
        "Experiment                (budget) Teacher Student Control        control teacher Seconds",
        "─" * 89,
        "quickstart-base            223,493  97.30%  97.08%  96.40%          +0.67  94.38%      71",
        "                          of 22.9M                         [-1.73, +3.07]",
        "                          (22.35%)",
        "quickstart-temperature-1   223,493  97.30%  97.08%  96.40%          +0.67  94.38%      71",
        "                          of 22.9M                         [-1.73, +3.07]",
        "                          (22.35%)",
        "quickstart-no-control      223,493  97.30%  97.08%       -              -  94.38%      71",
        "                          of 22.9M",
        "                          (22.35%)",
    ]


def test_on_80_columns_only_the_names_fold() -> None:
    big = suite()
    big[0]["student"]["trainable_parameters"]["total"] = 1_183_492
    big[0]["student_minus_control"] |= {"accuracy": -0.1234, "interval": [-0.2345, -0.1012]}
    big[0]["seconds"] = 36_000.0
    big[0]["teacher"]["test"]["accuracy"] = 1.0
    shown = render(results_table(big), 80)
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for number in ("1,183,492", "100.00%", "-12.34", "[-23.45, -10.12]", "36,000"):
        assert number in shown
    assert "quickstart-" in shown


def test_role_table() -> None:
    for width in (80, 120):
        lines = [line.rstrip() for line in render(role_table(sample_results()), width).splitlines()]
        assert lines[1].strip() == "quickstart-base: bbc_news, 445 test rows"
        assert lines[2:] == [
            "        Trainable",
            "Role     of total    LoRA    Head Accuracy Macro F1    NLL    ECE  Brier Seconds",
            "─" * 80,
            "teacher   444,677 294,912 149,765   97.30%   97.31% 0.2311 0.1592 0.0860      31",
            "         of 22.9M",
            "student   223,493  73,728 149,765   97.08%   97.08% 0.2493 0.1660 0.0914      19",
            "         of 22.9M",
            "control   223,493  73,728 149,765   96.40%   96.41% 0.2793 0.1750 0.1095      18",
            "         of 22.9M",
        ]


def test_role_table_of_a_teacher_that_was_given() -> None:
    given = given_teacher(sample_results())
    line, size = render(role_table(given), 100).splitlines()[5:7]
    assert line.split() == ["teacher", "-", "-", "-", "97.30%", "97.31%", "0.2311", "0.1592", "0.0860", "31"]
    assert size.split() == ["of", "22.9M"]
    del given["teacher"]["total_parameters"]  # it is a file of answers
    assert render(role_table(given), 100).splitlines()[6].startswith("student")


def test_role_table_of_an_evaluation_on_other_texts() -> None:
    results = sample_results()
    for role in ("teacher", "student", "control"):
        del results[role]["validation"], results[role]["seconds"]
    results["data"] = {name: results["data"][name] for name in ("name", "test_rows", "label_names", "source")}
    table = render(role_table(results), 80)
    assert "445 test rows" in table
    assert "Seconds" not in table


def test_class_table() -> None:
    lines = render(class_table(sample_results()), 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[5] == "business        89  97.8  98.9  98.3  95.5  94.4  94.9  92.6  97.8  95.1"


def test_names_are_shown_as_they_are() -> None:
    names = ["[red]a[/red]", "two\nlines", "pipe | \x1b[31m", "x" * 200]
    results = sample_results(names)
    results["exp_name"] = "[bold]base[/bold]"
    shown = render(class_table(results), 100)
    assert "[red]a[/red]" in shown
    assert "two lines" in shown
    assert "\x1b" not in shown
    assert shown.replace("\n", "").count("x") == 200
    assert "[bold]base[/bold]" in render(results_table([results]), 120)
    assert "[bold]base[/bold]" in render(role_table(results), 120)


def test_explanation_of_a_suite() -> None:
    chance = "no difference beyond chance (p = 0.71; the student alone is right on 16 rows, the control alone on 13)"
    finding = f"student - control +0.67 points [-1.73, +3.07]: {chance}; a verdict takes 3 seeds at least."
    assert explain(suite()) == [
        "",
        "Trainable: the student's parameters, of all that it has and of a budget of 1,000,000. Student - control: "
        "points, with a 95% interval for these models; one seed. Same as teacher: test rows that both put in one "
        "class.",
        f"- quickstart-base: {finding}",
        f"- quickstart-temperature-1: {finding}",
        "bbc_news: for the student of quickstart-base, an accuracy of 97.08% on 445 test rows has a standard error of "
        "0.80 points; always answering 'business' gets 20.00%; test: 445 of 2,225 rows, drawn stratified with a fixed "
        "seed, for the data has no test split of its own.",
        "Merged, the student is exactly as fast as its teacher: fewer trainable parameters save training and storage "
        "only.",
    ]


def test_what_speaks_against_the_numbers_comes_before_them() -> None:
    results = suite()
    results[1]["teacher"]["test"] |= {"confusion": [[89, 0, 0, 0, 0]] * 5, "accuracy": 0.2}
    results[1]["data"]["notes"] += ["teacher: 3 of 445 test rows hold texts", "labels: 'a', 'A' differ by case only"]
    results[1]["data"]["source"]["revision"] = "another"
    lines = explain(results)
    assert lines[1] == (
        "WARNING: quickstart-temperature-1: teacher: 3 of 445 test rows hold texts; the teacher puts every test row "
        "into 'business'; the teacher is no better than always answering 'business'; 57 steps of training (3 epochs) is"
        " little: give more --teacher_num_epochs, or a higher --teacher_learning_rate than 0.001; the teacher is less"
        " often right than the control."
    )
    assert lines[-2].endswith("; labels: 'a', 'A' differ by case only.")
    assert sum("hold texts" in line or "differ by case" in line for line in lines) == 2


def test_explanation_without_a_control_compares_nothing() -> None:
    assert not any("Student - control" in line or line.startswith("- ") for line in explain(suite()[2:]))


def test_each_data_set_is_explained_once() -> None:
    results = suite()
    results[1]["data"]["fingerprint"] = "1" * 64
    results[1]["data"]["name"] = "other"
    about = [line.partition(":")[0] for line in explain(results) if "standard error" in line]
    assert about == ["bbc_news", "other"]


def test_nothing_is_said_of_speed_where_the_backbone_may_differ() -> None:
    assert not any("as fast as" in line for line in explain([given_teacher(sample_results())]))


def test_of_speed_no_more_is_said_than_holds_of_each() -> None:
    alike, smaller = suite()[:2]
    lines = explain([alike, smaller | {"same_backbone": False}])
    assert lines[-2:] == [f"quickstart-base: {SPEED}", FASTER]


def test_substituted_defaults_come_first_and_once() -> None:
    results = suite()
    for each in results:
        each["fallbacks"] = ["the default base_model roberta-base could not be had; minilm was used instead"]
    lines = explain(results)
    assert lines[1].startswith("SUBSTITUTED: the default base_model roberta-base could not be had")
    assert sum("SUBSTITUTED" in line for line in lines) == 1


@pytest.mark.parametrize("module", ["tables", "model_card"])
def test_reporting_is_light(module: str) -> None:
    heavy = "{'torch', 'transformers', 'sklearn', 'scipy', 'numpy', 'pandas', 'datasets'}"
    code = f"import sys, lora_distill.reporting.{module}; sys.exit(str({heavy} & sys.modules.keys() or ''))"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (outcome.stderr.strip(), outcome.stdout) == ("", "")


def test_a_projector_has_a_column_where_there_is_one() -> None:
    results = sample_results()
    assert "Projector" not in render(role_table(results), 140)
    results["student"]["projector_parameters"] = 294_912
    table = render(role_table(results), 140)
    assert "Projector" in table
    assert table.count("294,912") == 2  # the teacher's LoRA has as many
