"""An ONNX graph in eight bits: weights, and activations that are rounded to them, each token by itself.

The usual dynamic quantisation takes one scale for a whole batch, so that an answer depends on the other texts in it; a
static one takes a scale from other texts, which the few large activations of an encoder make coarse. Here each token
has a scale of its own, and each column of a weight (Yao et al., ZeroQuant, NeurIPS 2022). The products are ONNX
Runtime's own on integers: `MatMulIntegerToFloat` of its domain com.microsoft, which its builds for browsers and Node
have, too.

Weights of products take seven of their bits. x86-64 processors without VNNI add two products of an unsigned and a
signed byte in 16 bits: 2 * 255 * 63 fits, 2 * 255 * 127 would be cut off there, and an answer be another one.
"""

from collections.abc import Sequence
from math import isclose, sqrt
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

MICROSOFT = "com.microsoft"
MOST, ZERO = 127, 128  # of an eight-bit number without its sign, and what stands for zero in one of 0 to 255
MOST_OF_FACTOR = 63  # of a weight of a product
LEAST_ROWS = 256  # of a table of embeddings: smaller ones weigh little, and what all tokens share must be exact
TINY = 1e-12  # more than the scale of a token that is all zeros


def quantise(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in eight bits: its products of tokens with weights, and its tables of embeddings.

    All else stays in fp32, the head's products on one vector a text too, which are `Gemm` in a graph of `convert`.

    Args:
        graph: of `convert`.
    """
    return _Quantiser(graph).run()


class _Quantiser:
    def __init__(self, graph: onnx.ModelProto) -> None:
        self._before = graph
        self._weights = {each.name: each for each in graph.graph.initializer}
        self._makers = {name: node for node in graph.graph.node for name in node.output}
        shapes = {each.name: each.type.tensor_type.shape.dim for each in graph.graph.value_info}
        self._matrices = {name: shape[0].dim_param for name, shape in shapes.items() if len(shape) == 2}  # their rows
        self._nodes: list[onnx.NodeProto] = []
        self._new: dict[str, onnx.TensorProto] = {}
        self._rounded: dict[str, str] = {}  # activations that several products read are rounded once
        self._flattened: dict[str, str] = {}
        self._zeros_of: dict[str, str] = {}

    def run(self) -> onnx.ModelProto:
        inside = self._before.graph
        for node in inside.node:
            if node.op_type == "MatMul" and self._is_matrix(node.input[1]):
                self._product(node.input[0], node.input[1], node.output[0])
            elif node.op_type == "Gather" and self._is_matrix(node.input[0], LEAST_ROWS):
                self._embedding(node.input[0], node.input[1], node.output[0])
            elif node.op_type == "LayerNormalization":
                self._normalisation(node)
            elif of := self._gelu_of(node):
                self._add("Gelu", [of], node.output[0], domain=MICROSOFT)
            else:
                self._nodes.append(node)
        graph = helper.make_graph(self._needed(), inside.name, inside.input, inside.output)
        read = {name for node in graph.node for name in node.input}
        graph.initializer.extend(each for name, each in (self._weights | self._new).items() if name in read)
        opsets = [*self._before.opset_import, helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self._before.ir_version)

    def _product(self, of: str, weight: str, output: str) -> None:
        columns = f"{weight}_int8", f"{weight}_scale"
        if columns[0] not in self._new:
            values, scales = _round(numpy_helper.to_array(self._weights[weight]), axis=0, most=MOST_OF_FACTOR)
            self._constant(columns[0], values)
            self._constant(columns[1], scales)
        rounded = self._rounded_by_token(of, self._weights[weight].dims[0])
        zero, one = self._constant("zero_uint8", np.uint8(ZERO)), self._constant("one", np.float32(1))
        product = [rounded, columns[0], one, columns[1], zero]
        self._add("MatMulIntegerToFloat", product, f"{output}_unscaled", domain=MICROSOFT)
        if of in self._matrices:
            self._add("Mul", [f"{output}_unscaled", f"{of}_scale"], output)
        else:
            self._add("Mul", [f"{output}_unscaled", f"{of}_scale"], f"{output}_flat")
            self._reshape_as(of, f"{output}_flat", output, width=self._weights[weight].dims[1])

    def _rounded_by_token(self, of: str, width: int) -> str:
        """Activations as [tokens, width], uint8, and `of`_scale, [tokens, 1]."""
        rounded = f"{of}_uint8"
        if of not in self._rounded:
            last, line = self._constant("last_axis", np.array([-1])), self._constant("line", np.array([-1]))
            flat = of if of in self._matrices else self._flat(of, width)
            # Twice as fast as the greatest of the absolute values, which would be written out.
            high = self._add("ReduceMax", [flat, last], f"{of}_high", keepdims=1)
            low = self._add("Neg", [self._add("ReduceMin", [flat, last], f"{of}_low", keepdims=1)], f"{of}_depth")
            tiny = self._constant("tiny", np.float32(TINY))
            most = self._add("Max", [high, low, tiny], f"{of}_most")
            scale = self._add("Mul", [most, self._constant("step", np.float32(1 / MOST))], f"{of}_scale")
            scales = self._add("Reshape", [scale, line], f"{of}_scales")
            self._add("QuantizeLinear", [flat, scales, self._zeros(of, scales)], rounded, axis=0)
            self._rounded[of] = rounded
        return rounded

    def _zeros(self, of: str, scales: str) -> str:
        """As many as there are scales; one for all matrices with so many rows."""
        rows = self._matrices.get(of) or of
        if rows not in self._zeros_of:
            zero = self._constant("zeros_uint8", np.array([ZERO], np.uint8))
            tokens = self._add("Shape", [scales], f"{rows}_tokens")
            self._zeros_of[rows] = self._add("Expand", [zero, tokens], f"{rows}_zeros")
        return self._zeros_of[rows]

    def _embedding(self, table: str, ids: str, output: str) -> None:
        rows, scale = f"{table}_int8", f"{table}_scale"
        if rows not in self._new:
            values, scales = _round(numpy_helper.to_array(self._weights[table]), axis=1, most=MOST)
            self._constant(rows, values)
            self._constant(scale, scales[:, None])
        found = self._add("Cast", [self._add("Gather", [rows, ids], f"{output}_int8")], f"{output}_whole", to=1)
        self._add("Mul", [found, self._add("Gather", [scale, ids], f"{output}_scale")], output)

    def _normalisation(self, node: onnx.NodeProto) -> None:
        """On a matrix: ONNX Runtime would join it with the sum before it, in an operator that is many times as slow."""
        if node.input[0] in self._matrices:
            self._nodes.append(node)
            return
        width = self._weights[node.input[1]].dims[0]
        flat = self._flat(node.input[0], width)
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        normal = self._add("LayerNormalization", [flat, *node.input[1:]], f"{node.output[0]}_normal", **attributes)
        self._reshape_as(node.input[0], normal, node.output[0], width)

    def _gelu_of(self, node: onnx.NodeProto) -> str | None:
        """What a node takes the GELU of, if it ends x * (0.5 * (1 + erf(x / sqrt(2)))), which nobody fuses."""
        half = self._made(node.input[1], "Mul") if node.op_type == "Mul" else None
        one_more = self._made(half.input[1], "Add") if half and self._is(half.input[0], 0.5) else None
        erf = self._made(one_more.input[0], "Erf") if one_more and self._is(one_more.input[1], 1) else None
        part = self._made(erf.input[0], "Div") if erf else None
        if part and self._is(part.input[1], sqrt(2)) and part.input[0] == node.input[0]:
            return str(node.input[0])
        return None

    def _made(self, name: str, operator: str) -> onnx.NodeProto | None:
        node = self._makers.get(name)
        return node if node and node.op_type == operator else None

    def _is(self, name: str, value: float) -> bool:
        found = self._weights.get(name)
        return found is not None and not found.dims and isclose(numpy_helper.to_array(found), value, rel_tol=1e-6)

    def _is_matrix(self, name: str, least_rows: int = 1) -> bool:
        found = self._weights.get(name)
        if found is None or found.data_type != onnx.TensorProto.FLOAT or len(found.dims) != 2:
            return False
        return bool(found.dims[0] >= least_rows)

    def _flat(self, of: str, width: int) -> str:
        """As [tokens, width]; made once, whoever reads it."""
        if of not in self._flattened:
            rows = self._constant(f"rows_of_{width}", np.array([-1, width]))
            self._flattened[of] = self._add("Reshape", [of, rows], f"{of}_flat")
        return self._flattened[of]

    def _reshape_as(self, of: str, flat: str, output: str, width: int) -> None:
        """Give rows back the leading axes of `of`, and a name."""
        lead = self._add("Shape", [of], f"{output}_lead", end=-1)
        shape = self._add(
            "Concat", [lead, self._constant(f"width_{width}", np.array([width]))], f"{output}_shape", axis=0
        )
        self._add("Reshape", [flat, shape], output)

    def _add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:  # noqa: ANN401 - ONNX's own
        self._nodes.append(helper.make_node(operator, inputs, [output], name=f"{operator} {output}", **attributes))
        return output

    def _constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        self._new[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _needed(self) -> list[onnx.NodeProto]:
        """The nodes that lead to the output, in their order: what a GELU was made of does no longer."""
        wanted, kept = {each.name for each in self._before.graph.output}, []
        for node in reversed(self._nodes):
            if wanted & set(node.output):
                wanted |= set(node.input)
                kept.append(node)
        return kept[::-1]


def _round(matrix: NDArray[np.float32], axis: int, most: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """To whole numbers of at most `most`, with a scale for each column (axis 0) or row (axis 1)."""
    scale = np.maximum(np.abs(matrix).max(axis=axis, keepdims=True), TINY) / most
    return np.rint(matrix / scale).astype(np.int8), scale.squeeze(axis).astype(np.float32)
