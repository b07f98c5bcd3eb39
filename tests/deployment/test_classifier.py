"""A classifier answers as its logits say, whatever the order and the company of its texts."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import get_scorer

from lora_distill.deployment import classifier
from lora_distill.deployment.classifier import Classifier
from lora_distill.deployment.exported import open_onnx, read_about
from lora_distill.errors import UserError
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


def test_a_text_is_not_padded_where_a_batch_of_its_own_costs_less(folder: Path) -> None:
    shapes: list[tuple[int, ...]] = []

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        shapes.append(ids.shape)
        return opened.forward(ids, mask)

    opened = open_onnx(folder, read_about(folder), 1)
    texts = ["tulip", "a comet", "of butter", "orbit " * 10]
    found = Classifier(replace(opened, forward=forward, most_padding=9)).logits(texts)
    np.testing.assert_array_equal(found, expected_logits(texts))
    assert sorted(shapes) == [(1, 12), (3, 4)]


def test_it_is_used_as_scikit_learn_s(folder: Path) -> None:
    loaded = Classifier.load(folder, threads=1)
    powers = np.exp(expected_logits(TEXTS) / TEMPERATURE)
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), powers / powers.sum(axis=1, keepdims=True), rtol=1e-6)
    assert loaded.predict(np.array(["tulip", "comet"])).tolist() == ["garden", "space"]
    assert (loaded.labels, loaded.classes_.tolist()) == (LABELS, list(LABELS))


def test_scikit_learn_scores_it(folder: Path) -> None:
    loaded, texts = Classifier.load(folder), ["tulip", "oven", "orbit", "comet"]
    truth = ["garden", "kitchen", "space", "garden"]
    assert get_scorer("accuracy")(loaded, texts, truth) == 0.75
    assert get_scorer("neg_log_loss")(loaded, texts, truth) == pytest.approx(
        np.log(loaded.predict_proba(texts)[np.arange(4), [0, 1, 2, 0]]).mean(), rel=1e-6
    )


def test_no_texts(folder: Path) -> None:
    loaded = Classifier.load(folder)
    assert loaded.predict_proba([]).shape == (0, 3)
    assert loaded.predict([]).shape == (0,)


@pytest.mark.parametrize(
    ("texts", "error", "told"),
    [
        ("one text", TypeError, "one string was given"),
        (["a", None], TypeError, r"texts\[1\]: NoneType was given"),
        (["\ud800"], ValueError, r"texts\[0\]: half of a surrogate pair"),
    ],
)
def test_what_is_no_text(folder: Path, texts: list[str], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        Classifier.load(folder).predict(texts)


def test_threads_may_ask_at_once(folder: Path) -> None:
    loaded, texts = Classifier.load(folder), TEXTS * 20
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda shift: loaded.logits(texts[shift:]), range(32)))
    for shift, logits in enumerate(found):
        np.testing.assert_array_equal(logits, expected_logits(texts[shift:]))


def test_int8_lies_in_a_file_of_its_own(tmp_path: Path) -> None:
    found = Classifier.load(write_exported(tmp_path / "int8", "onnx-int8"))
    np.testing.assert_array_equal(found.logits(TEXTS), expected_logits(TEXTS))
    assert found.about["form"] == "onnx-int8"


def test_the_fingerprint_is_that_of_all_that_decides(folder: Path, tmp_path: Path) -> None:
    one = Classifier.load(folder).fingerprint()
    assert Classifier.load(shutil.copytree(folder, tmp_path / "copy")).fingerprint() == one
    for number, name in enumerate(["classifier.json", "tokenizer.json", "onnx/model.onnx"]):
        other = shutil.copytree(folder, tmp_path / str(number))
        loaded = Classifier.load(other)
        (other / name).write_bytes((other / name).read_bytes() + b" ")
        assert loaded.fingerprint() != one


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("classifier.json", lambda text: text[:-9], "its classifier.json is missing or damaged"),
        ("classifier.json", lambda text: text.replace('"onnx"', '"pickle"'), 'form is "pickle"'),
        ("classifier.json", lambda text: text.replace('"temperature": 1.5', '"temperature": 0'), "temperature is 0"),
        ("classifier.json", lambda text: text.replace("max_length", "length"), "KeyError: 'max_length'"),
        ("classifier.json", lambda text: text.replace('"kitchen", ', ""), "3 logits for 2 labels"),
        ("classifier.json", lambda _: "[]", "damaged"),
        ("config.json", lambda _: "", "its config.json is missing or damaged"),
        ("tokenizer.json", lambda text: text[:99], "its tokenizer.json is missing or damaged"),
        ("tokenizer.json", None, "its tokenizer.json is missing or damaged"),
        ("onnx/model.onnx", None, "its onnx/model.onnx is missing or damaged"),
        ("onnx/model.onnx", lambda text: text[: len(text) // 2], "its onnx/model.onnx is missing or damaged"),
    ],
)
def test_a_damaged_folder(
    name: str, change: Callable[[str], str] | None, told: str, folder: Path, tmp_path: Path
) -> None:
    file = shutil.copytree(folder, tmp_path / "model") / name
    if change:
        file.write_text(change(file.read_text("latin-1")), "latin-1")
    else:
        file.unlink()
    with pytest.raises(UserError, match=told) as error:
        Classifier.load(tmp_path / "model")
    assert str(error.value).endswith("\nExport it again.")
    assert len(str(error.value).splitlines()) == 2
