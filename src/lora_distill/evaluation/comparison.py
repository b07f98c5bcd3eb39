"""Student beside teacher and control, on the same rows: of one seed, and over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_distill.config import CONTROLS, Role
from lora_distill.evaluation.metrics import agreement, scores_by_row
from lora_distill.evaluation.over_seeds import OverSeeds, RecipeDifference, recipe_difference, same_rows_difference
from lora_distill.evaluation.significance import paired_difference

Logits = NDArray[np.float32]

LARGEST = {"accuracy": 1.0, "brier": 2.0}  # difference that a row can have; of a likelihood there is none


def compare_roles(logits: dict[Role, Logits], labels: NDArray[np.int64], apart: str) -> dict[str, Any]:
    """Agreement with the teacher, if it has answered, and student minus each control, of one seed.

    Args:
        logits: float32 [N, C] of each role on the same rows.
        labels: int64 [N].
        apart: what the control differs in from the student beside the teacher, as a clause.
    """
    comparison: dict[str, Any] = {}
    if "teacher" in logits:
        comparison["agreement"] = {
            f"{role}_teacher": agreement(each, logits["teacher"]) for role, each in logits.items() if role != "teacher"
        }
    right = {role: each.argmax(axis=1) == labels for role, each in logits.items()}
    for control in (role for role in CONTROLS if role in logits):
        difference = paired_difference(right["student"], right[control])
        comparison[f"student_minus_{control}"] = {
            "accuracy": difference.difference,
            "interval": [difference.low, difference.high],
            "p_value": difference.p_value,
            "test": "Agresti-Min interval, McNemar's exact test; these two models, one seed",
            "only_student_right": difference.only_first_right,
            "only_control_right": difference.only_second_right,
            "rows": difference.rows,
            "apart": apart.strip() if control == "control" else "",
        }
    return comparison


def learned_from_teacher(right: Mapping[Role, NDArray[np.bool_]]) -> dict[str, int]:
    """Where teacher and control differ in being right, how often the student goes with the teacher.

    Args:
        right: bool [N], or [N, S] by row and seed, of teacher, student and control.

    Returns:
        `gains`: answers that the teacher has right and the control wrong, `gained`: those of them that the student has
        right; `losses`: answers that the teacher has wrong and the control right, `lost`: those of them that the
        student has wrong.
    """
    teacher, student, control = right["teacher"], right["student"], right["control"]
    gains, losses = teacher & ~control, ~teacher & control
    return {
        "gains": int(gains.sum()),
        "gained": int((gains & student).sum()),
        "losses": int(losses.sum()),
        "lost": int((losses & ~student).sum()),
    }


@dataclass(frozen=True)
class Comparison:
    """Student minus control over seeds.

    Attributes:
        recipe: `accuracy`, `nll` and `brier`, for texts like these rows and for other seeds.
        same_rows: these and `macro_f1`, `ece`, `ece_equal_mass` and `aurc`, on exactly these rows, for other seeds.
    """

    recipe: dict[str, RecipeDifference]
    same_rows: dict[str, OverSeeds]


def compare_over_seeds(
    student: Sequence[Logits],
    control: Sequence[Logits],
    labels: NDArray[np.int64],
    student_metrics: Sequence[Mapping[str, Any]],
    control_metrics: Sequence[Mapping[str, Any]],
) -> Comparison:
    """Compare students with controls that learned without the teacher.

    Args:
        student: float32 [N, C] for each of S seeds, two at least.
        control: the same of the same seeds, on the same rows.
        labels: int64 [N].
        student_metrics: S, as `classification_metrics` has them of these logits.
        control_metrics: the same of the control.
    """
    rows = [
        {name: ours[name] - theirs[name] for name in ours}
        for ours, theirs in zip(
            (scores_by_row(each, labels) for each in student),
            (scores_by_row(each, labels) for each in control),
            strict=True,
        )
    ]
    recipe = {
        name: recipe_difference(np.stack([each[name] for each in rows], axis=1), largest=LARGEST.get(name))
        for name in rows[0]
    }
    whole = list(zip(student_metrics, control_metrics, strict=True))
    same_rows = {
        name: same_rows_difference(np.array([ours[name] - theirs[name] for ours, theirs in whole]))
        for name in ("accuracy", "nll", "brier", "macro_f1", "ece", "ece_equal_mass", "aurc")
    }
    return Comparison(recipe, same_rows)
