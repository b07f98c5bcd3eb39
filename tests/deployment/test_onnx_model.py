"""A graph answers as the model that it was made from, in every family, for every shape, whatever the padding."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime import InferenceSession
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lora_distill.deployment.int8_model import quantise
from lora_distill.deployment.onnx_model import convert, save
from lora_distill.errors import UserError
from tests.tiny import FAMILIES, tiny_model

Batch = dict[str, NDArray[np.int64]]


def classifier(folder: Path) -> PreTrainedModel:
    """Three classes, the head as far from zero as a trained one's."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("classifier") and weight.ndim == 2:
                weight.normal_(std=0.3)
    return model.eval()


def batch(model: PreTrainedModel, rows: int, length: int, *, segments: bool = False) -> Batch:
    """Rows of random tokens, all but the first shorter than the batch; with segments, of two texts each."""
    draw = np.random.default_rng([rows, length])
    lengths = np.append(length, draw.integers(2, length + 1, rows - 1))
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    ids = np.where(mask, draw.integers(5, 300, (rows, length)), model.config.pad_token_id)
    given = {"input_ids": ids, "attention_mask": mask}
    return given | {"token_type_ids": mask * (np.arange(length) >= lengths[:, None] // 2)} if segments else given


def answer(graph: ModelProto, given: Batch) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = InferenceSession(graph.SerializeToString()).run(["logits"], given)[0]
    return logits


@pytest.mark.parametrize(
    ("family", "segments"),
    [*((family, False) for family in FAMILIES), *((family, True) for family in ("bert", "electra", "albert"))],
)
def test_every_family_answers_as_before(family: str, segments: bool, tiny: Callable[[str], Path]) -> None:
    model = classifier(tiny(family))
    graph = convert(model, segments=segments)
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    assert [each.name for each in graph.graph.input] == inputs[: 2 + segments]
    assert b"site-packages" not in graph.SerializeToString()
    session = InferenceSession(graph.SerializeToString())
    for rows, length in ((1, 3), (2, 9), (7, 40), (3, 200), (1, 400)):
        given = batch(model, rows, length, segments=segments)
        with torch.inference_mode():
            expected = model(**{name: torch.from_numpy(each) for name, each in given.items()}).logits.numpy()
        found = session.run(["logits"], given)[0]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
    # Alone, with neither the padding nor the other rows.
    given = batch(model, 7, 40, segments=segments)
    together, lengths = session.run(["logits"], given)[0], given["attention_mask"].sum(axis=1)
    for row in range(7):
        alone = {name: each[row : row + 1, : lengths[row]] for name, each in given.items()}
        np.testing.assert_allclose(session.run(["logits"], alone)[0], together[row : row + 1], atol=1e-5)


@pytest.mark.parametrize(("family", "layers"), [("distilbert", 3), ("mpnet", 1), ("roberta", 2)])
def test_of_the_last_layer_only_what_the_head_reads_is_computed(family: str, layers: int, tmp_path: Path) -> None:
    model = classifier(tiny_model(family, tmp_path, layers=layers))
    graph = convert(model)
    shapes = {each.name: tuple(each.dims) for each in graph.graph.initializer}
    wide = [node.output[0] for node in graph.graph.node if any(shapes.get(name) == (32, 64) for name in node.input)]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wide)
    given = batch(model, 4, 9)
    logits, *inner = InferenceSession(graph.SerializeToString()).run(None, given)
    # Of lower layers what the feed-forward widens; of the last one keys and values together, and what it widens.
    assert [each.shape for each in inner] == [(4 * 9, 64)] * layers + [(4, 64)]
    with torch.inference_mode():  # the model has all of its layers again
        expected = model(**{name: torch.from_numpy(each) for name, each in given.items()}).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_tokens_are_the_rows_of_one_matrix_and_stay_so(tmp_path: Path) -> None:
    graph = convert(classifier(tiny_model("bert", tmp_path, layers=2)))
    weights = {each.name for each in graph.graph.initializer}
    shapes = {
        each.name: [size.dim_param or size.dim_value for size in each.type.tensor_type.shape.dim]
        for each in graph.graph.value_info
    }
    products = [node for node in graph.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    assert [len(shapes[node.input[0]]) for node in products] == [2] * len(products) == [2] * (4 + 5)
    assert len({shapes[node.input[0]][0] for node in products}) == 2  # all tokens, and the first ones
    small = quantise(graph)
    operators = Counter(node.op_type for node in small.graph.node)
    assert operators["MatMulIntegerToFloat"] == operators["QuantizeLinear"] == len(products)
    assert operators["Expand"] <= 2 + Counter(node.op_type for node in graph.graph.node)["Expand"]


def test_a_large_graph_lies_in_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 32])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 32])],
        [onnx.numpy_helper.from_array(2 * np.eye(32, dtype=np.float32), "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    monkeypatch.setattr("lora_distill.deployment.onnx_model.MOST_BYTES", 1000)
    save(model, tmp_path / "onnx" / "model.onnx")
    assert [path.name for path in sorted((tmp_path / "onnx").iterdir())] == ["model.onnx", "model.onnx_data"]
    given = np.arange(32, dtype=np.float32)[None]
    found = InferenceSession(tmp_path / "onnx" / "model.onnx").run(["y"], {"x": given})[0]
    np.testing.assert_array_equal(found, 2 * given)


def test_what_the_exporter_cannot_convert_is_told(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(UserError, match="a bert cannot be converted to ONNX: no such operator"):
        convert(classifier(tiny("bert")))
