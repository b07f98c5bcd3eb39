"""An exported model that answers otherwise is found out."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_distill.deployment.engine import Forward
from lora_distill.deployment.exported import Opened, open_onnx, read_about
from lora_distill.deployment.verification import BARS, verify
from lora_distill.errors import UserError
from tests.deployment.exported import WORDS, expected_logits, write_exported

DRAW = np.random.default_rng(0)
TEXTS = [" ".join(DRAW.choice(WORDS, DRAW.integers(1, 12))) for _ in range(400)]
BEFORE = expected_logits(TEXTS)
LABELS = BEFORE.argmax(axis=1)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    folder = write_exported(tmp_path_factory.mktemp("exported") / "model")
    return open_onnx(folder, read_about(folder), 1)


def through(opened: Opened, change: Forward) -> Opened:
    """A model whose logits are those of `change` instead, which is given what goes in."""
    return replace(opened, engine=replace(opened.engine, forward=change, beside=change))


def with_others(rows: int) -> NDArray[np.float32]:
    """Logits before with which so many rows were of another class."""
    before = BEFORE.copy()
    before[:rows] = 100 * np.eye(BEFORE.shape[1])[(LABELS[:rows] + 1) % BEFORE.shape[1]]
    return before


@pytest.mark.parametrize("form", BARS)
def test_a_faithful_model_passes(opened: Opened, form: str) -> None:
    found = verify(opened, TEXTS, BEFORE, LABELS, BARS[form])
    assert found["faults"] == []
    assert (found["rows"], found["same_class"], found["other_class"], found["largest_difference"]) == (400, 1.0, 0, 0.0)
    assert (found["accuracy"], found["accuracy_before"], found["mcnemar_p"]) == (1.0, 1.0, 1.0)
    assert found["batchmates"] == {"rows": 200, "largest_difference": 0.0, "other_class": 0}
    assert found["texts_per_second"] > 0


def test_a_logit_that_is_off_is_allowed_in_eight_bits_only(opened: Opened) -> None:
    off = through(opened, lambda given: opened.engine.forward(given) + np.float32(2e-4))
    assert verify(off, TEXTS, BEFORE, LABELS, BARS["onnx"])["faults"] == [
        "a logit differs by 0.0002, and 0.0001 is allowed"
    ]
    assert verify(off, TEXTS, BEFORE, LABELS, BARS["onnx-int8"])["faults"] == []


@pytest.mark.parametrize("scale", [0.2, 0.8, 1.25, 5.0])
def test_answers_that_are_surer_or_less_sure_than_before_fail(opened: Opened, scale: float) -> None:
    scaled = through(opened, lambda given: opened.engine.forward(given) * np.float32(scale))
    found = verify(scaled, TEXTS, BEFORE, LABELS, BARS["onnx-int8"])
    (fault,) = found["faults"]
    assert re.fullmatch(r"the confidence differs by [\d.]+ on average, and 0.015 is allowed", fault)
    assert found["confidence_difference"] > 0.015


def test_logits_that_are_no_numbers_pass_nowhere_and_by_no_force(opened: Opened) -> None:
    broken = through(opened, lambda given: opened.engine.forward(given) * np.float32(np.nan))
    for bar in BARS.values():
        with pytest.raises(UserError, match="logits are no numbers"):
            verify(broken, TEXTS, BEFORE, LABELS, bar)


@pytest.mark.parametrize(
    ("others", "form", "passes"), [(1, "onnx", False), (4, "onnx-int8", True), (5, "onnx-int8", False)]
)
def test_few_rows_may_change_their_class_in_eight_bits_and_none_else(
    opened: Opened, others: int, form: str, passes: bool
) -> None:
    before, bar = with_others(others), replace(BARS[form], difference=None)
    faults = verify(opened, TEXTS, before, before.argmax(axis=1), bar)["faults"]
    told = "1 row of 400 gets another class; all" if others == 1 else f"{others} rows of 400 get another class; 99%"
    assert faults == ([] if passes else [f"{told} must keep theirs"])


@pytest.mark.parametrize(("rows", "passes"), [(99, False), (100, True)])
def test_of_fewer_than_a_hundred_rows_none_may_change_its_class(opened: Opened, rows: int, passes: bool) -> None:
    before = with_others(1)[:rows]
    faults = verify(opened, TEXTS[:rows], before, before.argmax(axis=1), BARS["onnx-int8"])["faults"]
    told = "1 row of 99 gets another class; 99% must keep theirs, and of fewer than 100 rows that is all"
    assert faults == ([] if passes else [told])


def test_a_loss_of_accuracy_that_is_no_chance_fails(opened: Opened) -> None:
    before, bar = with_others(8), replace(BARS["onnx-int8"], same_class=0.9)
    found = verify(opened, TEXTS, before, before.argmax(axis=1), bar)
    assert found["mcnemar_p"] == pytest.approx(2 / 2**8)
    (fault,) = found["faults"]
    assert fault == "accuracy falls from 100.00% to 98.00% (McNemar's exact test, p = 0.0078)"
    # The other way round it is no fault.
    assert verify(opened, TEXTS, before, LABELS, bar)["faults"] == []


def test_an_answer_that_depends_on_batchmates_fails(opened: Opened) -> None:
    def leaning(given: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        return opened.engine.forward(given) + np.float32(2e-3) * np.float32(len(given["input_ids"]) > 16)

    (fault,) = verify(through(opened, leaning), TEXTS, BEFORE, LABELS, BARS["onnx-int8"])["faults"]
    assert fault == ("an answer depends on the other texts of its batch: a logit by 0.002, the class of 0 rows of 200")


@pytest.mark.parametrize("about", [{"pairs": True, "segments": True}, {"long_text": "chunk_mean"}])
def test_pairs_and_chunks_are_asked_about_as_they_are_read(about: dict[str, Any], tmp_path: Path) -> None:
    folder = write_exported(tmp_path / "model", **about)
    pairs = [(text, "a comet") for text in TEXTS]
    texts = pairs if "pairs" in about else [f"{text} {text}" for text in TEXTS]
    before = expected_logits(texts, about.get("long_text", "truncate"), segments="pairs" in about)
    found = verify(open_onnx(folder, read_about(folder), 1), texts, before, before.argmax(axis=1), BARS["onnx"])
    assert found["faults"] == []
    assert (found["rows"], found["batchmates"]) == (400, {"rows": 200, "largest_difference": 0.0, "other_class": 0})
