import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from lora_distill.evaluation.intervals import bootstrap_intervals
from lora_distill.evaluation.metrics import classification_metrics, scores_by_row

FIGURES = ("macro_f1", "nll", "brier", "ece", "ece_equal_mass")


def drawn(seed: int, rows: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels; the model is calibrated where sharpness is 1."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2, size=(rows, 3)).astype(np.float32)
    chances = softmax(logits.astype(np.float64), axis=1).cumsum(axis=1)
    labels = (generator.random((rows, 1)) > chances).sum(axis=1)
    return logits * np.float32(sharpness), labels


def test_means_have_the_interval_that_the_central_limit_gives_them() -> None:
    logits, labels = drawn(0, 1500)
    found = bootstrap_intervals(logits, labels, np.random.default_rng(1))
    for name in ("nll", "brier"):
        scores = scores_by_row(logits, labels)[name]
        expected = stats.norm.interval(0.95, scores.mean(), scores.std(ddof=1) / np.sqrt(len(scores)))
        assert found[name] == pytest.approx(expected, rel=0.03)


def test_they_hold_the_figure_and_stay_within_what_it_can_be() -> None:
    logits, labels = drawn(0, 300, sharpness=3)
    metrics = classification_metrics(logits, labels, list("abc"))
    found = bootstrap_intervals(logits, labels, np.random.default_rng(1))
    assert list(found) == list(FIGURES)
    for name, (low, high) in found.items():
        assert 0 <= low <= metrics[name] <= high
    assert found["macro_f1"][1] <= 1
    assert found == bootstrap_intervals(logits, labels, np.random.default_rng(1))


def test_a_calibrated_model_s_error_may_be_zero_and_a_sharp_one_s_may_not() -> None:
    cases = [bootstrap_intervals(*drawn(seed, 400), np.random.default_rng(seed)) for seed in range(10)]
    assert sum(case[name][0] <= 0.003 for case in cases for name in ("ece", "ece_equal_mass")) >= 17
    sharp = bootstrap_intervals(*drawn(0, 400, sharpness=3), np.random.default_rng(0))
    assert min(sharp["ece"][0], sharp["ece_equal_mass"][0]) > 0.05


def test_what_is_the_same_in_every_draw_has_no_interval() -> None:
    alike = np.array([[5, 0]] * 20, np.float32)
    assert bootstrap_intervals(alike, np.zeros(20, np.int64), np.random.default_rng(0)) == {}
    all_right = np.array([[1 + row, 0] for row in range(20)], np.float32)
    found = bootstrap_intervals(all_right, np.zeros(20, np.int64), np.random.default_rng(0))
    assert found.keys() == {"nll", "brier", "ece", "ece_equal_mass"}
