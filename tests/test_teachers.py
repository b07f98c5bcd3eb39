"""Settings of teachers that exclude each other."""

from pathlib import Path

import pytest

from lora_distill.config import Config, make_config
from lora_distill.data.sources import load_dataset
from lora_distill.errors import UserError
from lora_distill.teachers import check_teacher, open_answers
from tests.end_to_end.conftest import write_rows


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
        ({"teacher_checkpoint": "t", "teacher_fit": "crossfit"}, "--teacher_fit: is for a teacher that is trained"),
        ({"teacher_ensemble": 3, "pooled_weight": 1.0}, "--pooled_weight: .* and --teacher_ensemble gives none"),
        ({"teacher_predictions": "p", "pooled_weight": 1.0}, "--pooled_weight: .* --teacher_predictions gives none"),
        ({"teacher_folds": 3}, "--teacher_folds 3: is for --teacher_fit crossfit"),
        ({"teacher_checkpoint": "t", "student_base_model": "b"}, "--student_base_model: with --teacher_checkpoint,"),
    ],
)
def test_what_excludes_each_other_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_teacher(make_config(settings, {}))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"teacher_checkpoint": "t", "teacher_label_map": {"a": "b"}, "teacher_lora_r": 4},
        {"teacher_predictions": "p", "teacher_calibrate": True},
        {"teacher_ensemble": 2, "teacher_fit": "crossfit", "teacher_folds": 3, "student_base_model": "b"},
    ],
)
def test_what_goes_together_is_not(settings: dict[str, object]) -> None:
    check_teacher(make_config(settings, {}))


def test_a_temperature_is_fitted_to_answers_that_are_there(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.csv", 30)
    dataset = load_dataset(
        str(rows), text_column="text", label_column="label", seed=0, validation_fraction=0.2, test_fraction=0.2
    )
    answers = tmp_path / "answers.csv"
    names = [dataset.label_names[label] for label in dataset.train.labels]
    lines = [f"{text},{name}" for text, name in zip(dataset.train.texts, names, strict=True)]
    answers.write_text("\n".join(["text,prediction", *lines]))
    config = Config(teacher_predictions=str(answers))
    assert open_answers(config, dataset, None) is not None
    with pytest.raises(UserError, match=r"--teacher_calibrate: fits .* to validation, and .*answers.csv lacks some"):
        open_answers(config.model_copy(update={"teacher_calibrate": True}), dataset, None)
