"""A classifier answers as its logits say, whatever the order and the company of its texts."""

from pathlib import Path

import numpy as np
import pytest

from lora_distill.deployment import classifier
from lora_distill.deployment.classifier import Classifier
from tests.deployment.exported import LABELS, TEMPERATURE, expected_logits, write_exported

TEXTS = ["tulip", "the oven of butter", "orbit " * 40, "", "a comet", "unknown words", "butter hedge hedge"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exported(tmp_path_factory.mktemp("exported") / "model")


@pytest.mark.parametrize("batch_tokens", [1, 20, 10_000])
def test_logits_are_each_text_s_own(folder: Path, batch_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "BATCH_TOKENS", batch_tokens)
    monkeypatch.setattr(classifier, "TOKENISED_AT_ONCE", 3)
    found = Classifier.load(folder).logits(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected_logits(TEXTS))


def test_it_is_used_as_scikit_learn_s(folder: Path) -> None:
    loaded = Classifier.load(folder, threads=1)
    powers = np.exp(expected_logits(TEXTS) / TEMPERATURE)
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), powers / powers.sum(axis=1, keepdims=True), rtol=1e-6)
    assert loaded.predict(np.array(["tulip", "comet"])).tolist() == ["garden", "space"]
    assert (loaded.labels, loaded.classes_.tolist()) == (LABELS, list(LABELS))
