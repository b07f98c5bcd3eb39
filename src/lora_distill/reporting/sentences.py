"""Numbers as people read them, and what may be said of them: the same words in tables and model cards."""

import math
import re
from typing import Any

FEW_ROWS = 10


def one_line(text: str) -> str:
    """A user's text without line breaks and control characters."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()


def percent(share: float) -> str:
    """`97.08%`."""
    return f"{100 * share:.2f}%"


def points(difference: float) -> str:
    """`+0.23`, in percentage points."""
    return f"{round(100 * difference, 2) + 0.0:+.2f}"  # the sum turns -0.0 into 0.0


def interval(comparison: dict[str, Any]) -> str:
    """`[-0.69, +1.14]`, in percentage points."""
    low, high = comparison["interval"]
    return f"[{points(low)}, {points(high)}]"


def verdict(comparison: dict[str, Any]) -> str:
    """What student minus control (`student_minus_control` of metrics.json) allows to say; no more."""
    low, high = comparison["interval"]
    p, student, control = comparison["p_value"], comparison["only_student_right"], comparison["only_control_right"]
    if low <= 0 <= high:
        finding = "within what chance would give these two models"
    elif p < 0.05:
        finding = "more than chance would give, for these two models"
    else:
        finding = (
            "at the edge of what chance would give these two models: the interval leaves zero out, the test does not"
        )
    evidence = f"p = {p:.2g}; {student:,} rows only the student has right, {control:,} only the control"
    few = (
        f". So few rows ({student + control}, fewer than {FEW_ROWS}) say little" if student + control < FEW_ROWS else ""
    )
    return f"{finding} ({evidence}){few}."


def standard_error(accuracy: float, rows: int) -> str:
    """How uncertain an accuracy is for want of rows: the binomial standard error, in points.

    It is 0 where all rows are right or all are wrong; the rule of three (Hanley and Lippman-Hand, If Nothing Goes
    Wrong, Is Everything All Right?, 1983) then bounds the true rate with 95% confidence.
    """
    measured = f"an accuracy of {percent(accuracy)} on {rows:,} test rows"
    if accuracy in (0, 1):
        return f"{measured} can be {percent(min(3 / rows, 1))} off (95% bound)"
    return f"{measured} has a standard error of {100 * math.sqrt(accuracy * (1 - accuracy) / rows):.2f} points"


def same_backbone(results: dict[str, Any]) -> bool:
    """Whether student and teacher are known to share one: a teacher trained here does, one that was given may not."""
    return results["teacher"]["trainable_parameters"] is not None


SPEED = (
    "Where the student has its teacher's backbone, it runs, merged, exactly as fast as its teacher: fewer trainable "
    "parameters save training and storage, not inference."
)
