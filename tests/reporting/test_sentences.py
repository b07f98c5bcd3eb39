from typing import Any

import pytest

from lora_distill.reporting.sentences import interval, one_line, percent, points, standard_error, verdict


def comparison(low: float, high: float, p_value: float, student: int, control: int) -> dict[str, Any]:
    return {
        "interval": [low, high],
        "p_value": p_value,
        "only_student_right": student,
        "only_control_right": control,
    }


def test_numbers() -> None:
    assert percent(0.970787) == "97.08%"
    assert points(0.0023) == "+0.23"
    assert points(-0.0023) == "-0.23"
    assert points(-0.00001) == "+0.00"
    assert interval(comparison(-0.0069, 0.0114, 1, 0, 0)) == "[-0.69, +1.14]"


def test_one_line_drops_what_would_break_a_line_or_a_terminal() -> None:
    assert one_line("a\n b\t\x1b[31mc\x00\u2028d\r") == "a b [31mc d"
    assert one_line("नमस्ते | می‌خواهم") == "नमस्ते | می‌خواهم"


def test_an_interval_with_zero_in_it_is_chance() -> None:
    said = verdict(comparison(-0.01, 0.02, 0.51, 12, 9))
    assert said == (
        "within what chance would give these two models (p = 0.51; 12 rows only the student has right, 9 only the "
        "control)."
    )


def test_an_interval_without_zero_is_more_than_chance_for_these_two_models() -> None:
    said = verdict(comparison(0.01, 0.05, 0.004, 30, 11))
    assert said.startswith("more than chance would give, for these two models (p = 0.004")
    assert verdict(comparison(-0.05, -0.01, 0.004, 11, 30)).startswith("more than chance")


def test_interval_and_exact_test_may_disagree() -> None:
    said = verdict(comparison(-0.1182, -0.0045, 0.0525, 6, 16))
    assert "the interval leaves zero out, the test does not" in said
    assert "p = 0.052" in said


@pytest.mark.parametrize(("student", "control", "few"), [(5, 4, True), (5, 5, False), (0, 0, True)])
def test_fewer_than_ten_rows_is_said(student: int, control: int, few: bool) -> None:
    assert ("fewer than 10" in verdict(comparison(-0.01, 0.02, 1.0, student, control))) == few


def test_it_never_says_that_distillation_helped() -> None:
    for low, high, p in ((-0.01, 0.02, 0.5), (0.01, 0.02, 0.001), (0.01, 0.02, 0.06)):
        assert "help" not in verdict(comparison(low, high, p, 30, 11))


def test_standard_error() -> None:
    # AG News: 7,600 rows at 94% have 0.27 points.
    assert standard_error(0.94, 7600) == (
        "an accuracy of 94.00% on 7,600 test rows has a standard error of 0.27 points"
    )


def test_standard_error_where_every_row_is_right() -> None:
    assert standard_error(1.0, 100) == "an accuracy of 100.00% on 100 test rows can be 3.00% off (95% bound)"
    assert "100.00% off" in standard_error(0.0, 2)
