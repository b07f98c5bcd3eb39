import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import softmax

from lora_distill.evaluation.calibration import (
    CALIBRATION_BINS,
    calibration_bins,
    calibration_error,
    confidence_of,
    fit_temperature,
    reliability_bins,
)
from lora_distill.evaluation.metrics import classification_metrics

CONFIDENCES = arrays(np.float64, st.integers(1, 60), elements=st.floats(0.25, 1))


def drawn(rows: int, sharpness: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits whose probabilities are true, and then multiplied, and labels drawn from the true ones."""
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=2, size=(rows, 4)).astype(np.float32)
    chances = softmax(logits.astype(np.float64), axis=1).cumsum(axis=1)
    labels = (generator.random((rows, 1)) > chances).sum(axis=1)
    return (logits * np.float32(sharpness)), labels


def test_a_confident_model_s_error_is_its_share_of_wrong_rows() -> None:
    logits = np.array([[50, 0, 0]] * 4, dtype=np.float32)
    found = classification_metrics(logits, np.array([0, 0, 0, 1]), ["a", "b", "c"])
    assert found["ece"] == pytest.approx(0.25)
    assert found["ece_equal_mass"] == pytest.approx(0.25)
    assert found["brier"] == pytest.approx(2 / 4)


def test_bins_are_kept_apart() -> None:
    # In one bin the two errors would cancel: 0.55 is right half the time too little, 0.95 too much.
    error = calibration_error(np.array([0.55, 0.95]), np.array([True, False]))
    assert error == pytest.approx((0.45 + 0.95) / 2)


def test_bins_are_closed_on_the_right() -> None:
    # 0.2 is the right edge of the bin that holds 0.15 too, so that the two gaps partly cancel.
    error = calibration_error(np.array([0.2, 0.15]), np.array([True, False]))
    assert error == pytest.approx((0.8 - 0.15) / 2)
    assert calibration_error(np.array([1.0]), np.array([True])) == 0


def test_bins_of_equal_mass_hold_as_many_rows() -> None:
    confidence = np.random.default_rng(0).random(30)
    assert np.bincount(calibration_bins(confidence, "mass")).tolist() == [2] * CALIBRATION_BINS
    # All rows lie in one bin of equal width, where their gaps cancel; those of equal mass tell them apart.
    confidence, right = np.array([0.91] * 15 + [0.92] * 15), np.array([True] * 15 + [False] * 15)
    assert calibration_error(confidence, right) == pytest.approx(abs(15 * 0.09 - 15 * 0.92) / 30)
    mass = calibration_bins(confidence, "mass")
    assert calibration_error(confidence, right, mass) == pytest.approx((0.09 + 0.92) / 2)


@given(confidence=CONFIDENCES, order=st.randoms())
def test_equal_mass_parts_no_equals_and_asks_for_no_order(confidence: NDArray[np.float64], order: object) -> None:
    bins = calibration_bins(confidence, "mass")
    assert all(len(set(bins[confidence == value])) == 1 for value in confidence)
    places = list(range(len(confidence)))
    order.shuffle(places)  # type: ignore[attr-defined]  # hypothesis says only that it is an object
    assert calibration_bins(confidence[places], "mass").tolist() == bins[places].tolist()
    assert (np.diff(bins[np.argsort(confidence, kind="stable")]) >= 0).all()


def test_the_diagram_s_bins_give_the_error() -> None:
    logits, labels = drawn(500, 1.7)
    bins = reliability_bins(logits, labels)
    assert sum(rows for _, _, rows in bins) == 500
    error = sum(rows * abs(right - confidence) for confidence, right, rows in bins) / 500
    assert error == pytest.approx(calibration_error(confidence_of(logits), logits.argmax(axis=1) == labels))


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 2.5])
def test_the_temperature_that_was_there_is_found_and_mends_the_calibration(sharpness: float) -> None:
    logits, labels = drawn(20_000, sharpness)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(sharpness, rel=0.04)
    mended = (logits / temperature).astype(np.float32)
    assert calibration_error(confidence_of(mended), logits.argmax(axis=1) == labels) < 0.01
    nll = [classification_metrics(each, labels, list("abcd"))["nll"] for each in (logits, mended)]
    assert nll[1] <= nll[0] + 1e-9


@pytest.mark.parametrize(("labels", "likeliest"), [([0, 0, 0, 1], 0.7), ([0, 0, 0, 0], 0.9)])
def test_few_rows_have_a_temperature_that_can_be_worked_out(labels: list[int], likeliest: float) -> None:
    # Of four rows and one that is spread over both classes, 3.5 or 4.5 of 5 are right, with logits 2 and 0:
    # best is sigmoid(2 / T) = 0.7 or 0.9.
    logits = np.array([[2, 0]] * 4, np.float32)
    found = fit_temperature(logits, np.array(labels))
    assert found == pytest.approx(2 / np.log(likeliest / (1 - likeliest)), rel=1e-5)


@given(rows=st.integers(1, 60), margin=st.floats(0.5, 30), classes=st.integers(2, 9))
def test_however_right_few_rows_are_it_is_no_surer_than_their_number_allows(
    rows: int, margin: float, classes: int
) -> None:
    logits = np.zeros((rows, classes), np.float32)
    logits[:, 0] = margin
    confidence = confidence_of(logits / fit_temperature(logits, np.zeros(rows, np.int64)))
    assert confidence.mean() <= 1 - (classes - 1) / classes / (rows + 1) + 1e-6


def test_what_is_always_wrong_is_within_bounds() -> None:
    logits = np.array([[0.3, 0]] * 4, np.float32)
    assert fit_temperature(logits, np.ones(4, np.int64)) == pytest.approx(20, rel=1e-3)
