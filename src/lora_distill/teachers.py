"""The teacher that an experiment was given, if it was: a model, or a file of answers."""

from collections.abc import Mapping
from typing import Any

from lora_distill.config import Config
from lora_distill.data.answers import Answers, read_answers
from lora_distill.data.types import Dataset
from lora_distill.errors import UserError
from lora_distill.model.given_teacher import GivenTeacher, open_again, open_teacher
from lora_distill.remembering import once
from lora_distill.run_folder import RunFolder, changed_since

OF_A_TRAINED_TEACHER = (
    *("teacher_lora_r", "teacher_lora_alpha", "teacher_target_layers", "teacher_rank_pattern"),
    *("teacher_learning_rate", "teacher_num_epochs", "teacher_ensemble", "teacher_fit"),
)
SEVERAL = ("teacher_ensemble", "teacher_fit")


def check_teacher(config: Config) -> None:
    """Find settings of teachers that exclude each other.

    Raises:
        UserError: there are some.
    """
    given = [f"--{name}" for name in ("teacher_checkpoint", "teacher_predictions") if getattr(config, name)]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} are two teachers. Give one of them.")
    if not given and config.teacher_label_map:
        raise UserError(
            "--teacher_label_map: is for a --teacher_checkpoint or --teacher_predictions, and none was given."
        )
    if given and config.student_base_model:
        raise UserError(f"--student_base_model: with {given[0]}, --base_model is the student's. Give it there.")
    if given:
        settings = OF_A_TRAINED_TEACHER if config.teacher_predictions else SEVERAL
        if of_training := next((name for name in settings if not _is_default(config, name)), None):
            raise UserError(
                f"--{of_training}: is for a teacher that is trained, and {given[0]} is one that is not."
                " Give one of them."
            )
    several = next((name for name in SEVERAL if not _is_default(config, name)), None)
    if config.pooled_weight and (several or config.teacher_predictions):
        raise UserError(
            f"--pooled_weight: holds a student to one model's vectors, and --{several or 'teacher_predictions'} gives"
            " none. Leave one of them out."
        )
    if config.teacher_fit == "whole" and not _is_default(config, "teacher_folds"):
        raise UserError(f"--teacher_folds {config.teacher_folds}: is for --teacher_fit crossfit. Give that, too.")


def _is_default(config: Config, name: str) -> bool:
    return bool(getattr(config, name) == Config.model_fields[name].default)


def open_answers(config: Config, dataset: Dataset, begun: Mapping[str, Any] | None) -> Answers | None:
    """The file that a config names as its teacher, read.

    Args:
        config: as it was asked for.
        dataset: whose rows it answers.
        begun: environment.json of a run that is resumed.

    Raises:
        UserError: it cannot be used, or has changed since the run was begun.
    """
    if config.teacher_predictions is None:
        return None
    location = config.teacher_predictions
    columns: dict[str, Any] = {
        name: getattr(config, name) for name in ("text_column", "text_pair_column", "label_column")
    }
    key = ("answers", location, dataset.fingerprint, *columns.values(), *config.teacher_label_map.items())
    answers = once(key, lambda: read_answers(location, dataset, label_map=config.teacher_label_map, **columns))
    if config.teacher_calibrate and "validation" not in answers.logits:
        raise UserError(
            f"--teacher_calibrate: fits a temperature to a teacher's answers to validation, and {location} lacks some."
            "\nAdd them, or leave the flag out."
        )
    if begun and begun["answers"]["revision"] != answers.revision:
        raise changed_since(RunFolder.of(config).path, location)
    return answers


def open_given_teacher(config: Config, dataset: Dataset, begun: Mapping[str, Any] | None) -> GivenTeacher | None:
    """The model that a config names as its teacher, opened; the parameters as in `open_answers`."""
    if config.teacher_checkpoint is None:
        return None
    if begun:
        return open_again(begun["given_teacher"], dataset.label_names, config.teacher_label_map)
    return open_teacher(config.teacher_checkpoint, dataset.label_names, config.teacher_label_map)
