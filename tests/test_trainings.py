"""Which teacher an experiment has, and of which models it is made."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_distill.config import make_config
from lora_distill.preparation import prepare
from lora_distill.training.filed_teacher import FiledTeacher
from lora_distill.training.role import RoleTraining
from lora_distill.training.self_taught import SelfTaughtTeacher
from lora_distill.training.several import SeveralTeachers
from lora_distill.training.teacher_reading import TeacherReading
from lora_distill.trainings import models_of, splits_of, trainings
from tests.end_to_end.conftest import small_values, write_rows
from tests.test_forecast import whole_classifier

# The defaults again: what is for a teacher that is trained goes with no other.
UNTAUGHT = {"teacher_lora_r": 16, "teacher_target_layers": 8}


@pytest.mark.parametrize(
    ("settings", "kind", "models"),
    [
        ({}, RoleTraining, 1),
        ({"teacher_ensemble": 3}, SeveralTeachers, 3),
        ({"teacher_fit": "crossfit"}, SeveralTeachers, 5),
        ({"teacher_fit": "crossfit", "teacher_folds": 2, "teacher_ensemble": 3}, SeveralTeachers, 6),
        ({"teacher_self_training": True, "unlabelled": "others.csv"}, SelfTaughtTeacher, 2),
        ({"teacher_self_training": True, "unlabelled": "others.csv", "teacher_ensemble": 2}, SelfTaughtTeacher, 3),
        ({"teacher_checkpoint": "given", **UNTAUGHT}, TeacherReading, 1),
        ({"teacher_predictions": "rows.csv", **UNTAUGHT}, FiledTeacher, 0),
    ],
)
def test_a_teacher_is_what_was_asked_for(
    settings: dict[str, object],
    kind: type,
    models: int,
    tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = write_rows(tmp_path / "rows.csv", 60)
    write_rows(tmp_path / "others.csv", 20, seed=1)
    whole_classifier(tiny("roberta"), tmp_path / "given")
    prepared = prepare(make_config(small_values(tiny("roberta"), rows) | settings, {}))
    wanted = trainings(prepared)
    assert list(wanted)[:3] == ["teacher", "student", "control"]
    teacher, student = wanted["teacher"], wanted["student"]
    assert isinstance(teacher, kind)
    assert isinstance(student, RoleTraining)
    assert student.teacher is not None
    assert student.teacher.key == teacher.artefact().key
    found = models_of(teacher, splits_of(prepared, teacher))
    assert len({model.artefact().key for model, _ in found}) == len(found) == models
    for model, splits in found:
        rows_of = {name: len(each) for name, each in model.dataset.splits().items()}
        assert {name: len(each) for name, each in splits.items()} == rows_of
