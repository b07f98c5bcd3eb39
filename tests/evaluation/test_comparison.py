from typing import TYPE_CHECKING

import numpy as np
import pytest

from lora_distill.evaluation.comparison import compare_roles, learned_from_teacher

if TYPE_CHECKING:
    from lora_distill.config import Role


def test_roles_are_compared_on_the_same_rows() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    eye = np.eye(2, dtype=np.float32)
    logits: dict[Role, np.ndarray] = {
        "teacher": eye[[0, 0, 1, 1, 1]],
        "student": eye[[0, 0, 1, 1, 0]],
        "control": eye[[0, 1, 0, 1, 1]],
    }
    logits["self-trained"] = logits["control"]
    comparison = compare_roles(logits, labels, " but for the learning rate")
    rates = {name: each["rate"] for name, each in comparison["agreement"].items()}
    assert rates == {"student_teacher": 0.8, "control_teacher": 0.6, "self-trained_teacher": 0.6}
    difference = comparison["student_minus_control"]
    assert difference["accuracy"] == pytest.approx(0.2)
    assert (difference["only_student_right"], difference["only_control_right"], difference["rows"]) == (2, 1, 5)
    assert difference["interval"][0] < 0.2 < difference["interval"][1]
    assert difference["p_value"] == 1.0
    assert difference["apart"] == "but for the learning rate"
    assert comparison["student_minus_self-trained"]["apart"] == ""
    del logits["control"]
    assert "student_minus_control" not in compare_roles(logits, labels, "")


def test_what_the_student_takes_over_from_its_teacher() -> None:
    right: dict[Role, np.ndarray] = {
        "teacher": np.array([1, 1, 1, 0, 0, 1], np.bool_),
        "student": np.array([1, 1, 0, 0, 1, 1], np.bool_),
        "control": np.array([0, 0, 0, 1, 1, 1], np.bool_),
    }
    assert learned_from_teacher(right) == {"gains": 3, "gained": 2, "losses": 2, "lost": 1}
    twice = {role: np.stack([each, each], axis=1) for role, each in right.items()}
    assert learned_from_teacher(twice) == {"gains": 6, "gained": 4, "losses": 4, "lost": 2}
