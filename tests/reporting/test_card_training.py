"""A card says how its role was trained."""

from typing import Any

import pytest

from tests.reporting.cards import HUB, card, code_of
from tests.reporting.sample import sample_results


def test_a_self_trained_student_and_what_learned_without_labels() -> None:
    results = sample_results()
    results["self-trained"] = results["control"]
    results["agreement"]["self-trained_teacher"] = results["agreement"]["control_teacher"]
    results["student_minus_self-trained"] = results["student_minus_control"]
    results["data"]["unlabelled_rows"] = 321
    settings: dict[str, Any] = {"unlabelled": "more.csv", "labelled_per_batch": 5}
    taught, student, control = (
        card(role, results=results, **settings) for role in ("self-trained", "student", "control")
    )
    assert "- Teacher: the control, which is this student trained on the labels alone" in taught
    assert "Student minus self-trained (the same student taught by what it learned without one): +0.67" in student
    for text in (taught, student):
        assert "- 32 rows a step, 5 of them with labels, " in text
        assert "cross-entropy with the labels of the rows that have some + 0.5 × " in text
        assert "321 unlabelled" in text
    assert "of them with labels" not in control


def test_what_else_the_losses_hold_is_said() -> None:
    settings: dict[str, Any] = {"soft_loss": "mse", "class_weights": "balanced", "label_smoothing": 0.1, "alpha": 0.7}
    student, control = (card(role, **settings) for role in ("student", "control"))
    hard = "cross-entropy with the labels, each class of the same weight, smoothed by 0.1"
    assert f"- Loss: {hard}\n" in control
    assert f"- Loss: 0.3 × {hard} + 0.7 × the mean squared difference of the logits from the teacher's" in student


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"teacher_ensemble": 3}, "3 of other seeds"),
        (
            {"teacher_fit": "crossfit", "teacher_folds": 3},
            "one for each of 3 folds, which labels the rows that it has not seen",
        ),
    ],
)
def test_several_teachers(settings: dict[str, object], said: str) -> None:
    results = sample_results()
    results["teacher"] |= {"members": 3}
    for name in ("epochs", "kept_epoch"):
        del results["teacher"][name]
    teacher, student = (card(role, results, HUB, num_epochs=4, **settings) for role in ("teacher", "student"))
    assert (
        f"3 classifiers of texts into 5 classes that answer together, by the mean of their probabilities ({said})"
        in (teacher)
    )
    assert "folders = ['1', '2', '3']" in code_of(teacher)
    assert "- 3 trainings of 4 epochs at most, the best of each kept; seed 0" in teacher
    assert f"; 3 such, {said}: the mean of their probabilities" in student
    assert "as fast as" not in student


def test_a_teacher_that_was_trained_twice() -> None:
    results = sample_results()
    settings: dict[str, object] = {"teacher_self_training": True, "unlabelled": "texts", "alpha": 0.9}
    teacher, student, control = (card(role, results, HUB, **settings) for role in ("teacher", "student", "control"))
    assert "what a teacher of the labels alone had said of the unlabelled texts (self-training)" in teacher
    assert "- Teacher: what was trained on the labels alone\n" in teacher
    assert "8 of them with labels" in teacher
    assert ", trained twice: the second time with what it had said of the unlabelled texts" in student
    assert "twice" not in control
    several = card("teacher", results, HUB, **settings, teacher_ensemble=3)
    assert "the labels alone (3 of other seeds): the mean of their probabilities" in several


def test_a_student_of_calibrated_logits_says_so() -> None:
    results = sample_results()
    assert "divided by 1.5" not in card("student", results)
    results["student"]["teacher_temperature"] = 1.5
    assert "; its logits divided by 1.500, a temperature fitted on validation" in card("student", results)
    by_folds = card("student", results, teacher_fit="crossfit")
    assert "; its logits divided by 1.500, a temperature fitted on the rows' labels" in by_folds
    of_one = card("student", results, teacher_fit="crossfit", teacher_self_training=True)
    assert "; its logits divided by 1.500, a temperature fitted on validation" in of_one


def test_a_student_of_both_says_what_each_was_divided_by_and_of_which_rows() -> None:
    results = sample_results()
    results["student"]["learns_from_both"] = True
    said = "which is this student trained on the labels alone: the mean of their probabilities"
    assert said in card("student", results)
    results["student"] |= {"control_temperature": 1.25, "both_temperature": 0.875}
    divided = "alone, its logits divided by 1.250: the mean of their probabilities, its logarithm divided by 0.875"
    assert divided in card("student", results)
    assert f"{divided}, of the texts without labels" in card("student", results, teacher_fit="crossfit")
    assert "texts without labels" not in card("student", results)


def test_one_epoch_has_no_plural() -> None:
    results = sample_results()
    assert "- 3 epochs run, the weights of epoch 2 kept; seed 0" in card("student", results)
    results["student"] |= {"epochs": 1, "kept_epoch": 1}
    assert "- 1 epoch run, the weights of epoch 1 kept; seed 0" in card("student", results)
