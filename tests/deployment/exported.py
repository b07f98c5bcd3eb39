"""An exported folder, written by hand in a moment: a bag of words as a real ONNX graph, with a real tokenizer.

It can be told which text of a pair a word is of, and then those of the second count twice.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lora_distill.data.long_text import LongText
from lora_distill.data.types import Text, parts
from lora_distill.deployment import exported
from lora_distill.deployment.engine import Forward

LABELS = ("garden", "kitchen", "space")
WORDS = ("tulip", "hedge", "oven", "butter", "orbit", "comet", "the", "a", "of")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MAX_LENGTH, TEMPERATURE = 16, 1.5
READING = {"max_length": MAX_LENGTH, "long_text": "truncate", "pairs": False, "segments": False}
# By word; two of them speak for each label. Sums of these are exact in any order, so that every batch gives the same.
WEIGHTS = np.zeros((len(SPECIALS) + len(WORDS), len(LABELS)), np.float32)
WEIGHTS[len(SPECIALS) + np.arange(6), np.arange(6) // 2] = [1, 2, 1, 2, 1, 2]
WEIGHTS[0] = 64.0  # padding that is read as text would show


def write_exported(folder: Path, form: str = "onnx", **about: Any) -> Path:  # noqa: ANN401 - any key of classifier.json
    """Write it; its logits are the sums of WEIGHTS over the tokens that the mask lets through."""
    (folder / "onnx").mkdir(parents=True)
    onnx.save(_graph(), folder / "onnx" / {"onnx": "model.onnx", "onnx-int8": "model_quantized.onnx"}[form])
    _tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "pad_token_id": 0}))
    told = {"form": form, "labels": LABELS, **READING, "temperature": TEMPERATURE, "made_from": {}, "made_with": {}}
    (folder / "classifier.json").write_text(json.dumps(told | about))
    return folder


def expected_logits(
    texts: Sequence[Text], long_text: LongText = "truncate", *, segments: bool = False
) -> NDArray[np.float32]:
    """What the model of `write_exported` says; of pairs that are short enough to be read whole."""
    return np.array([_expected(text, long_text, segments) for text in texts], np.float32).reshape(-1, len(LABELS))


def _expected(text: Text, long_text: LongText, segments: bool) -> NDArray[np.float32]:
    known = {word: index for index, word in enumerate([*SPECIALS, *WORDS])}
    first, *second = ([known.get(word, 1) for word in part.split()] for part in parts(text))
    room = MAX_LENGTH - 2
    if second:
        read = [first + (1 + segments) * second[0]]
    elif long_text == "chunk_mean":
        read = [first[at : at + room] for at in range(0, 8 * room, room) if at < max(len(first), 1)]
    elif long_text == "head_tail" and len(first) > room:
        read = [first[:3] + first[-11:]]
    else:
        read = [first[:room]]
    mean: NDArray[np.float32] = np.mean([WEIGHTS[words].sum(axis=0) for words in read], axis=0, dtype=np.float32)
    return mean


def _graph() -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["each"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["token_type_ids"], ["types"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["mask", "types"], ["read"]),
        helper.make_node("Unsqueeze", ["read", "last"], ["wide"]),
        helper.make_node("Mul", ["each", "wide"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["logits"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(WEIGHTS, "weights"),
        numpy_helper.from_array(np.array([2]), "last"),
        numpy_helper.from_array(np.array([1]), "middle"),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])
    graph = helper.make_graph(nodes, "bag of words", inputs, [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _tokenizer() -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate([*SPECIALS, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def watch_graphs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Threads of the graph that was asked, and texts of the batch; none of those of a graph that is opened."""
    found: list[tuple[int, int]] = []
    real = exported.open_graph

    def open_graph(folder: Path, file: str, labels: list[str], threads: int, *, segments: bool) -> Forward:
        forward = real(folder, file, labels, threads, segments=segments)
        found.append((threads, 0))

        def watched(given: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
            found.append((threads, len(given["input_ids"])))
            return forward(given)

        return watched

    monkeypatch.setattr(exported, "open_graph", open_graph)
    return found
