"""Settings that exclude each other, or that would do nothing beside the others: refused before anything is read."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from lora_distill.config import Config
from lora_distill.errors import UserError
from lora_distill.presets import OF_A_TRAINED_TEACHER
from lora_distill.progress import ONCE

logger = logging.getLogger(__name__)

SEVERAL = ("teacher_ensemble", "teacher_fit")


class Need(NamedTuple):
    """What a setting that does nothing alone needs.

    Attributes:
        of: the setting that it does something with.
        is_met: whether a config has it.
        told: where it has not.
    """

    of: str
    is_met: Callable[[Config], object]
    told: str


_OF_THE_CONTROL = Need(
    "no_control",
    lambda config: not config.no_control,
    "is the control's, and --no_control trains none. Leave one of them out.",
)
NEEDS = {
    "preset": Need(
        "unlabelled",
        lambda config: config.preset != "few_labels" or config.unlabelled,
        "is for --unlabelled texts, of which the student learns most. Give those, too.",
    ),
    "student_keep": Need(
        "student_depth", lambda config: config.student_depth, "says which layers --student_depth keeps. Give that, too."
    ),
    "teacher_folds": Need(
        "teacher_fit",
        lambda config: config.teacher_fit == "crossfit",
        "is for --teacher_fit crossfit. Give that, too.",
    ),
    "teacher_self_training": Need(
        "unlabelled",
        lambda config: config.unlabelled,
        "is a second training, with --unlabelled texts. Give those, too.",
    ),
    "labelled_per_batch": Need(
        "unlabelled", lambda config: config.unlabelled, "is for --unlabelled texts. Give those, too."
    ),
    "learn_from": _OF_THE_CONTROL._replace(
        told="learns from the control, and --no_control trains none. Leave one of them out."
    ),
    "control_learning_rate": _OF_THE_CONTROL,
    "control_num_epochs": _OF_THE_CONTROL,
}


def without(settings: Mapping[str, Any], dropped: Collection[str]) -> dict[str, Any]:
    """What is left of settings without some of them, and without those that would do nothing then."""
    gone = {*dropped, *(name for name, need in NEEDS.items() if need.of in dropped)}
    if gone & {"teacher_checkpoint", "teacher_predictions"}:
        gone.add("teacher_label_map")
    return {name: value for name, value in settings.items() if name not in gone}


def check_combinations(config: Config) -> None:
    """Let settings pass that go together.

    Raises:
        UserError: some do not.
    """
    for name, need in NEEDS.items():
        if not config.is_default(name) and not need.is_met(config):
            raise UserError(f"--{name} {getattr(config, name)}: {need.told}")
    if config.unlabelled and config.batch_size == 1:
        raise UserError("--batch_size 1: leaves no room for --unlabelled texts beside labelled ones. Give 2 or more.")
    if config.text_pair_column and config.long_text != "truncate":
        raise UserError(
            f"--long_text {config.long_text}: is for single texts. Pairs are truncated, the longer text first: leave it"
            " out, or --text_pair_column."
        )
    _check_teacher(config)
    if config.soft_loss == "mse" and not config.is_default("temperature"):  # a grid or a search may vary both
        logger.warning(
            "--temperature %g does nothing, for --soft_loss mse has no temperature", config.temperature, extra=ONCE
        )


def _check_teacher(config: Config) -> None:
    given = [f"--{name}" for name in ("teacher_checkpoint", "teacher_predictions") if getattr(config, name)]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} are two teachers. Give one of them.")
    if not given and config.teacher_label_map:
        raise UserError(
            "--teacher_label_map: is for a --teacher_checkpoint or --teacher_predictions, and none was given."
        )
    if config.learn_from == "both" and config.teacher_fit == "crossfit" and not config.unlabelled:
        raise UserError(
            "--learn_from both: with --teacher_fit crossfit is for --unlabelled texts, for the control has seen the"
            " labels of all others. Give those, too, or leave one of the two out."
        )
    if given and config.student_base_model:
        raise UserError(f"--student_base_model: with {given[0]}, --base_model is the student's. Give it there.")
    if given and config.base_depth and config.student_depth:
        raise UserError(f"--base_depth: with {given[0]}, --student_depth says how deep the student is. Leave one out.")
    if given:
        of_training = next((name for name in OF_A_TRAINED_TEACHER if not config.is_default(name)), None)
        if of_training:
            raise UserError(
                f"--{of_training}: is for a teacher that is trained, and {given[0]} is one that is not."
                " Give one of them."
            )
    several = next((name for name in SEVERAL if not config.is_default(name)), None)
    if config.pooled_weight and (several or config.teacher_predictions):
        raise UserError(
            f"--pooled_weight: holds a student to one model's vectors, and --{several or 'teacher_predictions'} gives"
            " none. Leave one of them out."
        )
