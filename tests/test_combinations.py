"""Settings that exclude each other, or do nothing beside the others."""

import pytest

from lora_distill.combinations import NEEDS, check_combinations
from lora_distill.config import Config, make_config
from lora_distill.errors import UserError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"teacher_checkpoint": "t", "teacher_predictions": "p"},
            "--teacher_checkpoint and --teacher_predictions are two teachers",
        ),
        (
            {"teacher_label_map": {"a": "b"}},
            "--teacher_label_map: is for a --teacher_checkpoint or",
        ),
        (
            {"teacher_predictions": "p", "teacher_lora_r": 4},
            "--teacher_lora_r: is for a teacher that is trained, and --teacher_predictions is one that is not",
        ),
        (
            {"teacher_checkpoint": "t", "teacher_ensemble": 3},
            "--teacher_ensemble: is for a teacher that is trained, and --teacher_checkpoint is one that is not",
        ),
        (
            {"teacher_checkpoint": "t", "teacher_learning_rate": 1e-3},
            "--teacher_learning_rate: is for a teacher that is trained",
        ),
        ({"teacher_checkpoint": "t", "teacher_fit": "crossfit"}, "--teacher_fit: is for a teacher that is trained"),
        ({"teacher_ensemble": 3, "pooled_weight": 1.0}, "--pooled_weight: .* and --teacher_ensemble gives none"),
        ({"teacher_predictions": "p", "pooled_weight": 1.0}, "--pooled_weight: .* --teacher_predictions gives none"),
        (
            {"teacher_predictions": "p", "base_depth": 4, "student_depth": 2},
            "--base_depth: with --teacher_predictions, ",
        ),
        ({"teacher_checkpoint": "t", "student_base_model": "b"}, "--student_base_model: with --teacher_checkpoint,"),
        (
            {"teacher_predictions": "p", "teacher_self_training": True, "unlabelled": "texts"},
            "--teacher_self_training: is for a teacher that is trained",
        ),
        ({"teacher_self_training": True}, "--teacher_self_training True: .* with --unlabelled texts. Give those, too"),
        ({"preset": "few_labels"}, "--preset few_labels: is for --unlabelled texts, of which the student learns most."),
        ({"teacher_folds": 3}, "--teacher_folds 3: is for --teacher_fit crossfit. Give that, too"),
        ({"student_keep": "last"}, "--student_keep last: says which layers --student_depth keeps. Give that, too"),
        ({"labelled_per_batch": 4}, "--labelled_per_batch 4: is for --unlabelled texts. Give those, too"),
        ({"control_num_epochs": 4, "no_control": True}, "--control_num_epochs 4: .* --no_control trains none"),
        ({"control_learning_rate": 0.1, "no_control": True}, "--control_learning_rate 0.1: .* --no_control trains"),
        ({"learn_from": "both", "no_control": True}, "--learn_from both: .* --no_control trains none"),
        ({"learn_from": "both", "teacher_fit": "crossfit"}, "--learn_from both: .* crossfit is for --unlabelled texts"),
        ({"unlabelled": "texts", "batch_size": 1}, "--batch_size 1: leaves no room for --unlabelled texts"),
        ({"text_pair_column": "b", "long_text": "head_tail"}, "--long_text head_tail: is for single texts"),
    ],
)
def test_what_excludes_each_other_or_would_do_nothing_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        check_combinations(make_config(settings, {}))
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"teacher_checkpoint": "t", "teacher_label_map": {"a": "b"}, "teacher_calibrate": True},
        {"teacher_predictions": "p", "teacher_calibrate": True},
        {"teacher_ensemble": 2, "teacher_fit": "crossfit", "teacher_folds": 3, "student_base_model": "b"},
        {"student_depth": 2, "student_keep": "spread", "unlabelled": "texts", "labelled_per_batch": 4},
        {"teacher_self_training": True, "unlabelled": "texts", "teacher_ensemble": 3, "teacher_calibrate": True},
        {"control_learning_rate": 0.1, "control_num_epochs": 3},
        {"learn_from": "both", "teacher_checkpoint": "t"},
        {"learn_from": "both", "teacher_fit": "crossfit", "unlabelled": "texts"},
        {"text_pair_column": "b"},
        {"long_text": "head_tail"},
    ],
)
def test_what_goes_together_is_not(settings: dict[str, object]) -> None:
    check_combinations(make_config(settings, {}))


def test_a_temperature_beside_a_loss_that_has_none_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Not refused: a grid or a search may vary both."""
    for settings in ({"soft_loss": "mse"}, {"temperature": 4.0}):
        check_combinations(make_config(settings, {}))
    assert caplog.messages == []
    check_combinations(make_config({"soft_loss": "mse", "temperature": 4.0}, {}))
    assert caplog.messages == ["--temperature 4 does nothing, for --soft_loss mse has no temperature"]


def test_a_config_that_names_every_default_goes_through() -> None:
    """As config.yaml does, which is there to be given again."""
    for changes in ({}, {"no_control": True}, {"teacher_checkpoint": "t"}):
        check_combinations(make_config(Config(**changes).model_dump(mode="json"), {}))
    assert NEEDS.keys() <= Config.model_fields.keys()
