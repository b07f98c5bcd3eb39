"""The teacher that an experiment was given, if it was: a model, or a file of answers."""

from collections.abc import Mapping
from typing import Any

from lora_distill.config import Config
from lora_distill.data.answers import Answers, read_answers
from lora_distill.data.types import Dataset
from lora_distill.errors import UserError, about
from lora_distill.model.given_teacher import GivenTeacher, open_again, open_teacher
from lora_distill.presets import BY_ITS_VALIDATION
from lora_distill.remembering import once
from lora_distill.run_folder import RunFolder, changed_since


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
    with about("teacher_predictions"):
        answers = once(key, lambda: read_answers(location, dataset, label_map=config.teacher_label_map, **columns))
    used = next((name for name in BY_ITS_VALIDATION if not config.is_default(name)), None)
    if used and "validation" not in answers.logits:
        raise UserError(
            f"--{used}: {BY_ITS_VALIDATION[used]} the teacher's answers to validation, and {location} lacks some."
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
    with about("teacher_checkpoint"):
        return open_teacher(config.teacher_checkpoint, dataset.label_names, config.teacher_label_map)
