import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, log_loss, precision_recall_fscore_support

from lora_distill.evaluation.metrics import agreement, classification_metrics, temperature_scaling

NAMES = ["a", "b", "c"]
LOGITS = arrays(np.float32, (6, 3), elements=st.floats(-30, 30, width=32))
LABELS = arrays(np.int64, 6, elements=st.integers(0, 2))


def logits_of(*probabilities: list[float]) -> NDArray[np.float32]:
    return np.log(np.array(probabilities, dtype=np.float32))


def test_literal_values() -> None:
    logits = logits_of([0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.25, 0.25], [0.25, 0.5, 0.25])
    found = classification_metrics(logits, np.array([0, 1, 1, 1]), NAMES)
    assert found["rows"] == 4
    assert found["accuracy"] == 0.75
    assert found["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert found["per_class"] == {
        "a": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1},
        "b": {"precision": 1.0, "recall": pytest.approx(2 / 3), "f1": pytest.approx(0.8), "support": 3},
        "c": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    }
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)  # nothing is of class c, nor was anything put into it
    assert found["nll"] == pytest.approx(-(math.log(0.7) + math.log(0.8) + math.log(0.25) + math.log(0.5)) / 4)
    # Squared errors: .09 + .04 + .01; .01 + .04 + .01; .25 + .5625 + .0625; .0625 + .25 + .0625
    assert found["brier"] == pytest.approx((0.14 + 0.06 + 0.875 + 0.375) / 4)
    # Three bins: {0.7 right}, {0.8 right}, {0.5 wrong, 0.5 right}.
    assert found["ece"] == pytest.approx((0.3 + 0.2 + 0.0) / 4, abs=1e-6)
    assert found["ece_equal_mass"] == pytest.approx((0.3 + 0.2 + 0.0) / 4, abs=1e-6)
    # From the surest: right, right, then two that are as sure, one of them wrong.
    assert found["aurc"] == pytest.approx((0 + 0 + 0.5 / 3 + 1 / 4) / 4)


@given(logits=LOGITS, labels=LABELS)
def test_agrees_with_scikit_learn_and_torch(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    found = classification_metrics(logits, labels, NAMES)
    in_double = torch.from_numpy(logits.astype(np.float64))
    assert found["nll"] == pytest.approx(
        torch.nn.functional.cross_entropy(in_double, torch.from_numpy(labels)).item(), rel=1e-9, abs=1e-12
    )
    probabilities = in_double.softmax(dim=1).numpy()
    if probabilities.min() > 1e-12:  # scikit-learn clips what is smaller
        assert found["nll"] == pytest.approx(log_loss(labels, probabilities, labels=range(3)), rel=1e-6)
    predicted = logits.argmax(axis=1)
    assert found["accuracy"] == pytest.approx((predicted == labels).mean())
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    assert found["confusion"] == confusion_matrix(labels, predicted, labels=range(3)).tolist()
    scores = precision_recall_fscore_support(labels, predicted, labels=range(3), zero_division=0)
    for name, theirs in zip(("precision", "recall", "f1", "support"), scores, strict=True):
        assert [found["per_class"][each][name] for each in NAMES] == pytest.approx(theirs.tolist())


@given(logits=LOGITS, labels=LABELS)
def test_bounds(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    found = classification_metrics(logits, labels, NAMES)
    assert all(0 <= found[name] <= 1 for name in ("ece", "ece_equal_mass", "aurc"))
    assert 0 <= found["brier"] <= 2
    assert found["nll"] >= 0
    assert np.array(found["confusion"]).sum() == found["rows"] == 6
    assert np.trace(found["confusion"]) == pytest.approx(found["accuracy"] * 6)
    assert json.loads(json.dumps(found)) == found


def test_does_not_overflow_where_float32_would() -> None:
    logits = np.array([[3e38, -3e38], [1e4, 0]], dtype=np.float32)
    found = classification_metrics(logits, np.array([0, 1]), ["a", "b"])
    assert found["nll"] == pytest.approx(1e4 / 2)
    assert agreement(logits, logits[:, ::-1])["kl"] > 1e37


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_refuses_logits_that_are_not_finite(value: float) -> None:
    logits = np.zeros((3, 2), dtype=np.float32)
    logits[1, 0] = value
    with pytest.raises(ValueError, match="1 of 3 rows of logits hold a NaN or an infinity"):
        classification_metrics(logits, np.zeros(3, dtype=np.int64), ["a", "b"])
    with pytest.raises(ValueError, match="NaN"):
        agreement(logits, np.zeros((3, 2), dtype=np.float32))


def test_refuses_shapes_that_do_not_fit() -> None:
    logits = np.zeros((3, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        classification_metrics(logits, np.zeros(2, dtype=np.int64), ["a", "b"])
    with pytest.raises(ValueError, match="do not fit"):
        classification_metrics(logits, np.zeros(3, dtype=np.int64), NAMES)
    with pytest.raises(ValueError, match="at least one"):
        classification_metrics(logits[:0], np.zeros(0, dtype=np.int64), ["a", "b"])
    with pytest.raises(ValueError, match=r"logits must be \[rows, classes\]"):
        classification_metrics(logits[:, 0], np.zeros(3, dtype=np.int64), ["a", "b"])
    with pytest.raises(ValueError, match="differ"):
        agreement(logits, logits[:2])


def test_agreement_literal_values() -> None:
    teacher = logits_of([0.5, 0.5], [0.9, 0.1])
    student = logits_of([0.25, 0.75], [0.6, 0.4])
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    second = 0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.4)
    assert agreement(student, teacher) == {"rate": 0.5, "kl": pytest.approx((first + second) / 2, rel=1e-6)}


@given(student=LOGITS, teacher=LOGITS)
def test_agreement_is_perfect_with_oneself_and_ignores_a_shift(
    student: NDArray[np.float32], teacher: NDArray[np.float32]
) -> None:
    assert agreement(student, student) == {"rate": 1.0, "kl": 0.0}
    found = agreement(student, teacher)
    assert 0 <= found["rate"] <= 1
    torch_kl = torch.nn.functional.kl_div(
        torch.from_numpy(student.astype(np.float64)).log_softmax(dim=1),
        torch.from_numpy(teacher.astype(np.float64)).log_softmax(dim=1),
        reduction="batchmean",
        log_target=True,
    )
    assert found["kl"] == pytest.approx(torch_kl.item(), rel=1e-9, abs=1e-12)


@given(logits=LOGITS, labels=LABELS, temperature=st.floats(0.05, 20))
def test_a_temperature_changes_no_answer(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float
) -> None:
    before, found = classification_metrics(logits, labels, NAMES), temperature_scaling(logits, labels, NAMES, 1.0)
    assert found == {"temperature": 1.0} | {name: before[name] for name in ("nll", "brier", "ece", "ece_equal_mass")}
    scaled = torch.from_numpy(logits.astype(np.float64)) / temperature
    assert temperature_scaling(logits, labels, NAMES, temperature)["nll"] == pytest.approx(
        torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels)).item(), rel=1e-9, abs=1e-12
    )
