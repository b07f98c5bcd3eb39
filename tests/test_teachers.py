"""Teachers that are given: a file of answers."""

from pathlib import Path

import pytest

from lora_distill.config import Config
from lora_distill.data.sources import load_dataset
from lora_distill.errors import UserError
from lora_distill.teachers import open_answers
from tests.end_to_end.conftest import write_rows


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
    with pytest.raises(UserError, match=r"--learn_from: judges both by .* to validation, and .*lacks some"):
        open_answers(config.model_copy(update={"learn_from": "both"}), dataset, None)
