from typing import Any

import pytest

from lora_distill.data.wording import points
from lora_distill.evidence import Evidence
from lora_distill.reporting.sentences import (
    baseline,
    differences_of_one_seed,
    doubts,
    interval,
    one_line,
    percent,
    remedy,
    seeds_draw,
    standard_error,
    unlearnt,
    verdict,
    with_interval,
)


def comparison(low: float, high: float, p_value: float, student: int, control: int) -> dict[str, Any]:
    return {
        "interval": [low, high],
        "p_value": p_value,
        "only_student_right": student,
        "only_control_right": control,
        "rows": 445,
    }


def test_numbers() -> None:
    assert percent(0.970787) == "97.08%"
    assert interval(-0.0069, 0.0114) == "[-0.69, +1.14]"
    assert with_interval((0.970787, 0.95, 0.985)) == "97.08% [95.00%, 98.50%]"
    assert with_interval((0.0023, -0.0069, 0.0114), points) == "+0.23 [-0.69, +1.14]"
    assert with_interval(None) == ""


def test_one_line_drops_what_would_break_a_line_or_a_terminal() -> None:
    assert one_line("a\n b\t\x1b[31mc\x00\u2028d\r") == "a b [31mc d"
    assert one_line("नमस्ते | می‌خواهم") == "नमस्ते | می‌خواهم"


def test_an_interval_with_zero_in_it_is_chance() -> None:
    said = verdict(comparison(-0.01, 0.02, 0.51, 12, 9))
    assert said == (
        "no difference beyond chance (p = 0.51; the student alone is right on 12 rows, the control alone on 9);"
        " a verdict takes 3 seeds at least."
    )


def test_a_second_control_is_called_by_its_name() -> None:
    said = verdict(comparison(-0.01, 0.02, 0.51, 12, 9), "self-trained")
    assert "right on 12 rows, the self-trained alone on 9)" in said


def test_an_interval_without_zero_is_more_than_chance() -> None:
    said = verdict(comparison(0.01, 0.05, 0.004, 30, 11))
    assert said.startswith("a difference beyond chance (p = 0.004")
    assert verdict(comparison(-0.05, -0.01, 0.004, 11, 30)).startswith("a difference beyond chance")


def test_interval_and_exact_test_may_disagree() -> None:
    said = verdict(comparison(-0.1182, -0.0045, 0.0525, 6, 16))
    assert "the interval leaves zero out, the test does not" in said
    assert "p = 0.052" in said


@pytest.mark.parametrize(("student", "control", "few"), [(5, 4, True), (5, 5, False), (0, 0, True), (6, 0, True)])
@pytest.mark.parametrize("low", [-0.01, 0.01])
def test_of_fewer_than_ten_rows_nothing_else_is_said(student: int, control: int, few: bool, low: float) -> None:
    said = verdict(comparison(low, 0.11, 0.031, student, control))
    assert said.startswith("too few rows differ to tell (p = 0.031; ") == few
    assert ("chance" in said) != few


def test_what_to_add_is_said_of_one_seed() -> None:
    of_rows = "a verdict takes 3 seeds at least and about 500 test rows, so that one is right and the other wrong on 10"
    assert verdict(comparison(-0.01, 0.11, 0.031, 5, 4)).endswith(f"the control alone on 4); {of_rows}.")


def test_what_the_control_of_one_seed_differs_in_is_said() -> None:
    found = comparison(-0.01, 0.02, 0.51, 12, 9) | {"accuracy": 0.01, "apart": "but for the number of epochs"}
    apart, alike, older = found, found | {"apart": ""}, {key: found[key] for key in found if key != "apart"}
    (said,) = differences_of_one_seed({"student_minus_control": apart})
    assert said.startswith("student - control, the same but for the number of epochs, +1.00 points [-1.00, +2.00]: no")
    for each in (alike, older):
        (said,) = differences_of_one_seed({"student_minus_control": each})
        assert said.startswith("student - control +1.00 points")


def test_it_never_says_that_distillation_helped() -> None:
    for low, high, p in ((-0.01, 0.02, 0.5), (0.01, 0.02, 0.001), (0.01, 0.02, 0.06)):
        assert "help" not in verdict(comparison(low, high, p, 30, 11))


def test_standard_error() -> None:
    # AG News: 7,600 rows at 94% have 0.27 points.
    assert standard_error(0.94, 7600) == (
        "an accuracy of 94.00% on 7,600 test rows has a standard error of 0.27 points"
    )


def test_standard_error_where_every_row_is_right() -> None:
    said = standard_error(1.0, 100)
    assert said == "an accuracy of 100.00% on 100 test rows shows, with 95% confidence, a true one above 97.05%"
    # The bound is exact: so many right rows of such a model have a probability of 5%.
    assert pytest.approx(0.9705, abs=1e-4) == 0.05**0.01
    assert "a true one below 2.95%" in standard_error(0.0, 100)
    assert "on 1 test row shows, with 95% confidence, a true one above 5.00%;" in standard_error(1.0, 1)


@pytest.mark.parametrize(("rows", "few"), [(2, True), (29, True), (30, False)])
def test_few_test_rows_are_said_to_be(rows: int, few: bool) -> None:
    for accuracy in (0.0, 0.5, 1.0):
        said = standard_error(accuracy, rows)
        assert said.endswith("; fewer than 30 test rows say next to nothing") == few


TRAINED = {
    "trainable_parameters": {"total": 1},
    "steps": 7,
    "epochs": 1,
    "learning_rate": 2e-4,
    "still_learning": True,
}


def with_confusions(**confusions: list[list[int]]) -> dict[str, Any]:
    """Results of roles that answered so: a list for each true class, in it a count for each answer."""
    results: dict[str, Any] = {"data": {"label_names": ["a", "b\n"]}}
    for role, confusion in confusions.items():
        right, rows = confusion[0][0] + confusion[1][1], sum(map(sum, confusion))
        results[role] = TRAINED | {"test": {"confusion": confusion, "accuracy": right / rows}}
    return results


def test_the_baseline_is_the_commonest_class_of_the_test_rows() -> None:
    assert baseline(with_confusions(student=[[1, 0], [2, 28]])) == ("b", 30 / 31)


def test_models_that_learnt_nothing_are_not_believed() -> None:
    constant = [[0, 1], [0, 30]]
    assert doubts(with_confusions(teacher=constant, student=constant, control=constant)) == [
        "the teacher puts every test row into 'b'",
        "the student puts every test row into 'b'",
        "the control puts every test row into 'b'",
        "the teacher, the student and the control are no better than always answering 'b'",
        "7 steps of training (1 epoch) is little: give more --num_epochs, or a higher --learning_rate than 0.0002",
    ]


def test_on_uneven_classes_who_knows_the_rare_one_too_has_learnt() -> None:
    rare_too = [[80, 20], [114, 1786]]  # right on 93.3% of the rows, where always answering 'b' is on 95%
    assert unlearnt(with_confusions(student=rare_too, control=[[0, 100], [5, 1895]])) == ["control"]


def test_of_one_class_nothing_is_judged() -> None:
    results = with_confusions(teacher=[[0, 0], [1, 9]], student=[[0, 0], [0, 10]], control=[[0, 0], [0, 10]])
    assert unlearnt(results) == []
    assert doubts(results) == ["the test rows have one class only, so that nothing can be judged"]


LONG = {"steps": 5000, "epochs": 5}


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"steps": 1, "still_learning": False},
            "1 step of training (1 epoch) is little: give more --teacher_num_epochs, or a higher"
            " --teacher_learning_rate than 0.0002",
        ),
        (
            LONG,
            "5,000 steps of training (5 epochs) ended while validation still got better: give more"
            " --teacher_num_epochs, or a higher --teacher_learning_rate than 0.0002",
        ),
        (
            LONG | {"still_learning": False},
            "5,000 steps of training (5 epochs) came to nothing: try another --teacher_learning_rate than 0.0002,"
            " another --base_model, or more rows",
        ),
        ({"trainable_parameters": None}, "it was not trained here: give another teacher"),
    ],
)
def test_what_to_do_follows_from_how_it_was_trained(facts: dict[str, Any], said: str) -> None:
    results = with_confusions(teacher=[[0, 2], [0, 2]], student=[[2, 0], [0, 2]])
    results["teacher"] |= facts
    assert unlearnt(results) == ["teacher"]
    assert remedy(results, ["teacher"]) == said


def test_who_was_trained_least_is_named_where_others_took_more() -> None:
    constant = [[0, 1], [0, 30]]
    results = with_confusions(teacher=constant, student=constant)
    results["teacher"] |= {"steps": 1}
    assert remedy(results, ["teacher", "student"]).startswith("1 step of training of the teacher (1 epoch) is little")


def test_the_flag_is_the_one_that_does_something_for_the_role() -> None:
    constant = [[0, 1], [0, 30]]
    results = with_confusions(teacher=constant, student=constant, control=constant)
    results["control"] |= {"steps": 1, "epochs": 2}
    assert remedy(results, ["teacher", "student", "control"]) == (
        "1 step of training of the control (2 epochs) is little: give more --control_num_epochs, or a higher"
        " --learning_rate than 0.0002"
    )
    assert remedy(results, ["control"]).endswith(
        "--control_num_epochs, or a higher --control_learning_rate than 0.0002"
    )
    assert "give more --num_epochs, or a higher --learning_rate than" in remedy(results, ["student"])


def test_of_several_teachers_the_steps_are_not_known() -> None:
    results = with_confusions(teacher=[[0, 2], [0, 2]], student=[[2, 0], [0, 2]])
    del results["teacher"]["steps"]
    assert remedy(results, ["teacher"]) == "give more --teacher_num_epochs, or a higher --teacher_learning_rate"


def test_a_teacher_that_has_nothing_to_teach_is_not_believed() -> None:
    good, better = [[8, 2], [0, 10]], [[9, 1], [0, 10]]
    assert doubts(with_confusions(teacher=good, student=better)) == []
    assert doubts(with_confusions(teacher=better, student=good, control=good)) == []
    assert doubts(with_confusions(teacher=good, student=good, control=better)) == [
        "the teacher is less often right than the control"
    ]


def of_seeds(draws: list[str], keeps: list[str], seeds: int = 3) -> Evidence:
    return Evidence([], list(range(seeds)), draws, keeps, {}, {}, "", {})


def test_what_a_seed_draws_is_said_once_or_of_each() -> None:
    some, others, alone = of_seeds(["a", "b", "c"], ["d", "e"]), of_seeds(["a", "b"], []), of_seeds(["a"], [], seeds=1)
    sentence = "A seed draws a, b and c, but not d and e: all is said for what it leaves as it is."
    assert seeds_draw({"one": some, "two": some, "alone": alone}) == [sentence]
    assert seeds_draw({"one": some, "two": others, "three": some}) == [
        f"one, three: {sentence}",
        "two: A seed draws a and b.",
    ]
    assert seeds_draw({"alone": alone}) == []
