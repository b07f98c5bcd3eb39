"""In eight bits a graph answers nearly as before, and as before whatever the batchmates."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime import InferenceSession

from lora_distill.deployment.int8_model import _round, quantise
from lora_distill.deployment.onnx_model import convert
from tests.deployment.test_onnx_model import answer, batch, classifier


@pytest.mark.parametrize(
    ("family", "segments"),
    [("bert", False), ("bert", True), ("albert", False), ("deberta-v2", False), ("modernbert", False)],
)
def test_it_answers_nearly_as_before_and_each_text_by_itself(
    family: str, segments: bool, tiny: Callable[[str], Path]
) -> None:
    model = classifier(tiny(family))
    graph = convert(model, segments=segments)
    small = quantise(graph)
    onnx.checker.check_model(small)
    given = batch(model, 16, 60, segments=segments)
    before, after = answer(graph, given), answer(small, given)
    assert after.dtype == np.float32
    assert 0 < np.abs(after - before).max() < 0.05 * before.std()
    session, lengths = InferenceSession(small.SerializeToString()), given["attention_mask"].sum(axis=1)
    for row in range(16):
        alone = {name: each[row : row + 1, : lengths[row]] for name, each in given.items()}
        np.testing.assert_allclose(session.run(["logits"], alone)[0], after[row : row + 1], atol=1e-5)

    # No weight of a product of tokens is left in fp32, and none lies there twice.
    weights = {each.name: each for each in small.graph.initializer}
    operators = [node.op_type for node in small.graph.node]
    assert not [node for node in small.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    assert "Erf" not in operators
    assert ("Gelu" in operators) is (family != "albert")  # whose activation is another
    parameters = sum(each.numel() for each in model.parameters())
    floats = sum(np.prod(each.dims) for each in weights.values() if each.data_type == onnx.TensorProto.FLOAT)
    assert floats < 0.2 * parameters


def test_weights_are_rounded_by_column_and_tables_by_row() -> None:
    matrix = np.array([[1.0, -0.5], [-2.54, 0.254]], np.float32)
    values, scales = _round(matrix, axis=0, most=127)
    assert values.tolist() == [[50, -127], [-127, 65]]
    np.testing.assert_allclose(scales, [0.02, 0.5 / 127], rtol=1e-6)
    values, scales = _round(matrix, axis=1, most=127)
    assert values.tolist() == [[127, -64], [-127, 13]]
    zeros, _ = _round(np.zeros((2, 2), np.float32), axis=0, most=63)
    assert not zeros.any()


def product(weight: NDArray[np.float32]) -> onnx.ModelProto:
    """A graph in eight bits that multiplies `x` by these weights."""
    of, output = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", "length", width])
        for name, width in zip("xy", weight.shape, strict=True)
    )
    node, weights = onnx.helper.make_node("MatMul", ["x", "w"], ["y"]), numpy_helper.from_array(weight, "w")
    graph = onnx.helper.make_graph([node], "product", [of], [output], [weights])
    return quantise(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10))


def test_a_product_is_exact_where_eight_bits_are_enough() -> None:
    """By hand: one token all zeros, one that is far larger than the others."""
    tokens = np.array([[[127, -1, 64], [0, 0, 0]], [[12.7, 12.7, -0.1], [1270, 10, 0]]], np.float32)
    weight = np.array([[63, 1], [0, -63], [-2, 32]], np.float32)
    found = InferenceSession(product(weight).SerializeToString()).run(["y"], {"x": tokens})[0]
    np.testing.assert_allclose(found, tokens @ weight, rtol=1e-6, atol=1e-4)


def test_no_two_products_overflow_sixteen_bits() -> None:
    """Some processors would cut off the largest that there are; elsewhere a look at the weights must do."""
    tokens, weight = np.full((1, 2, 64), 127, np.float32), np.full((64, 8), -63, np.float32)
    small = product(weight)
    found = InferenceSession(small.SerializeToString()).run(["y"], {"x": tokens})[0]
    np.testing.assert_allclose(found, tokens @ weight, rtol=1e-6)
    (factor,) = [each for each in small.graph.initializer if each.data_type == onnx.TensorProto.INT8]
    largest = int(np.abs(numpy_helper.to_array(factor).astype(np.int32)).max())
    assert 2 * 255 * largest < 2**15


def test_what_norms_and_products_read_alike_is_made_a_matrix_once() -> None:
    weight = np.eye(4, dtype=np.float32)
    constants = [numpy_helper.from_array(each, name) for name, each in (("w", weight), ("ones", weight[0] * 0 + 1))]
    x, *given_back = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", "length", 4]) for name in "xabc"
    )
    nodes = [
        onnx.helper.make_node("LayerNormalization", ["x", "ones"], ["a"]),
        onnx.helper.make_node("LayerNormalization", ["x", "ones"], ["b"]),
        onnx.helper.make_node("MatMul", ["x", "w"], ["c"]),
    ]
    graph = onnx.helper.make_graph(nodes, "alike", [x], given_back, constants)
    small = quantise(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10))
    onnx.checker.check_model(small)
    given = np.array([[[1, 2, 3, 4], [0, 0, 1, 0]]], np.float32)
    a, b, c = InferenceSession(small.SerializeToString()).run(None, {"x": given})
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(c, given, atol=0.02)
