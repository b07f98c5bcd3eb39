"""Settings that go together, by what they are for."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from lora_distill.control import is_of_control

Preset = Literal["small_student", "few_labels"]
_BOOL = TypeAdapter(bool)

OF_A_TRAINED_TEACHER = (
    *("teacher_lora_r", "teacher_lora_alpha", "teacher_target_layers", "teacher_rank_pattern"),
    *("teacher_learning_rate", "teacher_num_epochs", "teacher_ensemble", "teacher_fit"),
    "teacher_self_training",
)
# Settings that what a teacher says of validation decides, and what each does with it.
BY_ITS_VALIDATION = {"teacher_calibrate": "fits a temperature to", "learn_from": "judges both by"}

# MiniLM's: 665,092 of a million parameters with a head of four classes, at a learning rate that suits its width.
_SMALL_ENCODER = {
    "student_base_model": "minilm",
    "target_modules": "all-linear",
    "student_lora_r": 16,
    "student_lora_alpha": 32,
    "alpha": 0.9,
    "learning_rate": 1e-3,
    "teacher_learning_rate": 3e-4,
}
PRESETS: dict[Preset, dict[str, Any]] = {
    "small_student": _SMALL_ENCODER | {"num_epochs": 8, "teacher_num_epochs": 3},
    # Few rows make few steps: many epochs for those who have no more than the labels, of which few validation rows are
    # not to choose one.
    # After so few, a teacher is less sure than it is right, and its student would learn to be; nor is it always better
    # than the control, which errs elsewhere.
    "few_labels": _SMALL_ENCODER
    | {"num_epochs": 2, "teacher_num_epochs": 20, "control_num_epochs": 30, "min_steps": 40, "keep_epoch": "last"}
    | {"teacher_calibrate": True, "learn_from": "both"},
}


def with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of their preset, if they name one: what is given wins.

    Of the preset is left out what would have nothing to act on: what is for a teacher that is trained where one is
    given, which also makes the student's encoder the base model; what needs answers for validation where the teacher is
    a file, which may have none; and what is the control's where there is none.
    """
    name = values.get("preset")
    preset = dict(PRESETS.get(name, {})) if isinstance(name, str) else {}  # type: ignore[call-overload] # any name
    if values.get("teacher_checkpoint") or values.get("teacher_predictions"):
        encoder = preset.pop("student_base_model", None)
        idle = {*OF_A_TRAINED_TEACHER, *(BY_ITS_VALIDATION if values.get("teacher_predictions") else ())}
        preset = {each: value for each, value in preset.items() if each not in idle}
        preset |= {"base_model": encoder} if encoder else {}
    if _is_true(values.get("no_control")):
        preset = {each: value for each, value in preset.items() if not is_of_control(each)}
        preset.pop("learn_from", None)
    return preset | dict(values)


def _is_true(value: object) -> bool:
    """What is read of it, "false" of a quoted false; what is neither is refused where it is validated."""
    try:
        return _BOOL.validate_python(value)
    except ValidationError:
        return False
