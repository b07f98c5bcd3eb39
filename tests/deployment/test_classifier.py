"""A classifier answers as its logits say, whatever the order and the company of its texts."""

import errno
import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.metrics import get_scorer

from lora_distill.data import reading
from lora_distill.data.long_text import LongText
from lora_distill.deployment import engine
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
    monkeypatch.setattr(engine, "BATCH_TOKENS", batch_tokens)
    monkeypatch.setattr(reading, "AT_ONCE", 3)
    found = Classifier.load(folder).logits(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected_logits(TEXTS))


def test_a_text_is_not_padded_where_a_batch_of_its_own_costs_less(folder: Path) -> None:
    shapes: list[tuple[int, ...]] = []

    def forward(given: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        shapes.append(given["input_ids"].shape)
        return opened.engine.forward(given)

    opened = open_onnx(folder, read_about(folder), 1)
    texts = ["tulip", "a comet", "of butter", "orbit " * 10]
    watched = replace(opened.engine, beside=forward, most_padding=9)
    found = Classifier(replace(opened, engine=watched)).logits(texts)
    np.testing.assert_array_equal(found, expected_logits(texts))
    assert sorted(shapes) == [(1, 12), (3, 4)]


@pytest.mark.parametrize("batch_tokens", [1, 20, 10_000])
@pytest.mark.parametrize("long_text", ["head_tail", "chunk_mean"])
def test_long_texts_are_read_as_it_was_trained(
    long_text: LongText, batch_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BATCH_TOKENS", batch_tokens)
    monkeypatch.setattr(reading, "AT_ONCE", 3)
    texts = [*TEXTS, f"oven {'a ' * 20}comet", "tulip " * 14, f"{'the ' * 14}hedge", f"{'of ' * 200}comet"]
    loaded = Classifier.load(write_exported(tmp_path / "model", long_text=long_text))
    expected = expected_logits(texts, long_text)
    found = loaded.logits(texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert not np.allclose(found, expected_logits(texts))  # what a beginning alone would give
    powers = np.exp(expected / TEMPERATURE)  # of the mean logits, not the mean of what chunks would get
    np.testing.assert_allclose(loaded.predict_proba(texts), powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)
    for text, row in zip(texts, found, strict=True):
        np.testing.assert_allclose(loaded.logits([text])[0], row, rtol=1e-6)
    assert loaded.logits([]).shape == (0, 3)


PAIRS = [("tulip", "comet"), ("the oven of butter", ""), ("", "orbit orbit"), ("a comet", "hedge hedge tulip")]


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("given", [list, lambda pairs: [list(pair) for pair in pairs], np.array, iter])
def test_pairs_in_whatever_they_come(segments: bool, given: Callable[[object], Any], tmp_path: Path) -> None:
    loaded = Classifier.load(write_exported(tmp_path / "model", pairs=True, segments=segments))
    expected = expected_logits(PAIRS, segments=segments)
    np.testing.assert_array_equal(loaded.logits(given(PAIRS)), expected)
    assert loaded.predict(given(PAIRS)).tolist() == [LABELS[index] for index in expected.argmax(axis=1)]
    assert loaded.predict_proba([]).shape == (0, 3)
    assert loaded.pairs


def test_of_a_long_pair_the_longer_text_is_cut(tmp_path: Path) -> None:
    loaded = Classifier.load(write_exported(tmp_path / "model", pairs=True, segments=True))
    found = loaded.logits([(f"{'tulip ' * 40}oven", "the comet"), ("oven oven", f"{'orbit ' * 40}tulip")])
    # Sixteen tokens, three of them special: eleven words beside two.
    read = [("tulip " * 11, "the comet"), ("oven oven", "orbit " * 11)]
    np.testing.assert_array_equal(found, expected_logits(read, segments=True))


def test_scikit_learn_is_told_of_pairs(folder: Path, tmp_path: Path) -> None:
    loaded = Classifier.load(write_exported(tmp_path / "model", pairs=True))
    assert get_scorer("accuracy")(loaded, np.array(PAIRS[:2]), ["space", "kitchen"]) == 1.0
    tags = [each.__sklearn_tags__().input_tags for each in (loaded, Classifier.load(folder))]
    assert [(tag.one_d_array, tag.two_d_array) for tag in tags] == [(False, True), (True, False)]


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


def test_scikit_learn_scores_labels_that_are_not_in_the_order_of_their_letters(tmp_path: Path) -> None:
    labels = ["space", "10", "9"]
    loaded, texts = Classifier.load(write_exported(tmp_path / "model", labels=labels)), ["tulip", "oven", "orbit"]
    assert (loaded.labels, loaded.classes_.tolist()) == (tuple(labels), ["10", "9", "space"])
    given = loaded.probabilities(loaded.logits(texts))
    np.testing.assert_array_equal(loaded.predict_proba(texts), given[:, [1, 2, 0]])
    assert loaded.predict(texts).tolist() == labels
    assert get_scorer("neg_log_loss")(loaded, texts, labels) == pytest.approx(np.log(np.diag(given)).mean(), rel=1e-6)


def test_the_share_that_is_answered_is_told_batch_by_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BATCH_TOKENS", 8)
    shares: list[float] = []
    Classifier.load(folder, threads=2).logits(["tulip", "oven", "the comet", "a hedge of the garden"], shares.append)
    assert len(shares) > 1
    assert shares == sorted(set(shares))
    assert shares[-1] == 1.0


def changed(**about: object) -> Callable[[str], str]:
    """What makes another classifier.json of one."""
    return lambda text: json.dumps(json.loads(text) | about)


TABLE = pa.table({"text": ["tulip"], "text_pair": ["comet"]}).to_pandas()


def test_the_columns_of_a_table(folder: Path, tmp_path: Path) -> None:
    loaded = Classifier.load(folder)
    np.testing.assert_array_equal(loaded.logits(TABLE["text"]), expected_logits(["tulip"]))
    loaded = Classifier.load(write_exported(tmp_path / "model", pairs=True))
    np.testing.assert_array_equal(loaded.logits(TABLE.to_numpy()), expected_logits([("tulip", "comet")]))


def test_no_texts(folder: Path) -> None:
    loaded = Classifier.load(folder)
    assert loaded.predict_proba([]).shape == (0, 3)
    assert loaded.predict([]).shape == (0,)


def test_it_says_what_it_is(folder: Path) -> None:
    assert repr(Classifier.load(folder)).startswith("<Classifier, onnx: ")


@pytest.mark.parametrize(
    ("pairs", "texts", "error", "told"),
    [
        (False, "one text", TypeError, "one string was given"),
        (False, {"text": "one text"}, TypeError, "a mapping was given; give a list of strings"),
        (False, TABLE, TypeError, r'a table was given; give its column of texts, as df\["text"\]$'),
        (True, TABLE, TypeError, r'give its columns of pairs, as df\[\["text", "text_pair"\]\].to_numpy\(\)$'),
        (False, ["a", None], TypeError, r"texts\[1\]: NoneType was given, not a string"),
        (False, ["\ud800"], ValueError, r"texts\[0\]: half of a surrogate pair"),
        (False, ["a", ("a", "b")], TypeError, r"texts\[1\]: tuple was given, not a string"),
        (True, ["a"], TypeError, r"texts\[0\]: str was given, not a pair of strings"),
        (True, [("a", "b"), ("a", "b", "c")], TypeError, r"texts\[1\]: tuple was given, not a pair of strings"),
        (True, [["a", None]], TypeError, r"texts\[0\]: NoneType was given, not a pair of strings"),
        (True, [("a", "\ud800")], ValueError, r"texts\[0\]: half of a surrogate pair"),
    ],
)
def test_what_is_no_text(pairs: bool, texts: list[Any], error: type[Exception], told: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=told):
        Classifier.load(write_exported(tmp_path / "model", pairs=pairs)).predict(texts)


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
        ("classifier.json", lambda text: text.replace('"truncate"', '"tail"'), 'long_text is "tail"'),
        ("classifier.json", lambda text: text.replace('"pairs": false', '"pairs": null'), "pairs is null"),
        ("classifier.json", lambda text: text.replace('"segments": false', '"segments": true'), "segments is true"),
        ("classifier.json", lambda text: text.replace('"kitchen", ', ""), "3 logits for 2 labels"),
        ("classifier.json", lambda _: "[]", "damaged"),
        *(
            ("classifier.json", changed(**{key: value}), f"missing or damaged: {key} is ")
            for key, value in [
                ("labels", "abc"),
                ("labels", ["a", "a", "b"]),
                ("labels", ["a", 1, 2]),
                ("max_length", "16"),
                ("made_from", None),
            ]
        ),
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


def test_a_folder_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)  # root may read all
    with pytest.raises(UserError, match=r"^model .*: Permission denied\. Let this user read the folder\.$"):
        Classifier.load(folder)
