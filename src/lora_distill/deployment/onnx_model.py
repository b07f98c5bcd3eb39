"""A classifier as an ONNX graph."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import nn
from transformers import PreTrainedModel

from lora_distill.data.tokens import TYPES
from lora_distill.deployment.forms import ONNX_FILES
from lora_distill.deployment.int8_model import quantise
from lora_distill.errors import UserError
from lora_distill.model.base import brief
from lora_distill.model.dropout import Dropout
from lora_distill.model.layers import layers_in_place, layers_path
from lora_distill.model.lean import (
    LayerNames,
    LayerParts,
    activation_of,
    attend_by_products,
    attention_bias,
    find_layer_names,
    first_token_head,
)

INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"
OPSET = 18
MOST_BYTES = 2**31 - 2**24  # of one protobuf message; what weighs more lies beside the graph


class _Logits(nn.Module):
    """A classifier that takes and gives tensors, not a library's own classes."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        segments = {} if token_type_ids is None else {TYPES: token_type_ids}  # not every model takes them
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **segments).logits
        return logits


class _LeanLogits(nn.Module):
    """The same with less work, of a model whose layers can be run lean and whose head reads the first token.

    Layers read tokens as the rows of one matrix, so that nothing is shaped anew around a product; query, key and value
    are one product; and of the last layer only the first token is computed.

    Args:
        model: whose list of layers is empty.
        layers: those that were in it.
        names: of their parts.
    """

    def __init__(self, model: PreTrainedModel, layers: list[nn.Module], names: LayerNames) -> None:
        super().__init__()
        self.model, self.layers = model, nn.ModuleList(layers)  # by which the exporter knows the weights of the parts
        *self._lower, self._last = (LayerParts.of(layer, names) for layer in layers)
        self.joined = nn.ModuleList(_joined(parts.query, parts.key, parts.value) for parts in self._lower)
        self.last_joined = _joined(self._last.key, self._last.value)
        self._activation = activation_of(model.config)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        segments = {} if token_type_ids is None else {TYPES: token_type_ids}
        hidden = self.model.base_model(input_ids=input_ids, attention_mask=attention_mask, **segments)[0]
        bias, (batch, length, width) = attention_bias(self.model, attention_mask, hidden), hidden.shape
        x = hidden.reshape(-1, width)
        for parts, joined in zip(self._lower, self.joined, strict=True):
            q, k, v = (self._by_head(each, length) for each in torch.split(_product(joined, x), width, dim=1))
            x = self._behind(parts, x, attend_by_products(q, k, v, bias, 0.0, Dropout()))
        k, v = (self._by_head(each, length) for each in torch.split(_product(self.last_joined, x), width, dim=1))
        first = x.view(batch, length, width)[:, 0]
        q = self._by_head(_product(self._last.query, first), 1)
        context = attend_by_products(q, k, v, bias[:, :, :1], 0.0, Dropout())
        return first_token_head(self.model, self._behind(self._last, first, context))

    def _by_head(self, x: torch.Tensor, length: int) -> torch.Tensor:
        """[B * L, H] as [B, heads, L, D]."""
        heads = int(self.model.config.num_attention_heads)
        return x.view(-1, length, heads, x.shape[1] // heads).transpose(1, 2)

    def _behind(self, parts: LayerParts, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """What a layer gives, [rows, H], from what it read, and what its attention gave, [B, heads, L, D]."""
        x = parts.attention_norm(x + _product(parts.out, context.transpose(1, 2).reshape(x.shape)))
        y: torch.Tensor = parts.output_norm(x + _product(parts.down, self._activation(_product(parts.up, x))))
        return y


def _joined(*modules: nn.Module) -> nn.Linear:
    """Linear modules that read the same, as one."""
    weight, bias = (torch.cat([each.get_parameter(name) for each in modules]) for name in ("weight", "bias"))
    one = nn.Linear(weight.shape[1], weight.shape[0])
    one.weight.data, one.bias.data = weight, bias
    return one


def _product(linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Not by calling the module, which would be a Gemm in the graph: those are the head's, which keep their bits."""
    return x @ linear.get_parameter("weight").T + linear.get_parameter("bias")


@contextmanager
def _logits_of(model: PreTrainedModel) -> Iterator[nn.Module]:
    """What gives a model's logits with the least work, and is the model's own but while the block lasts."""
    if names := find_layer_names(model):
        path = layers_path(model)
        layers = [*model.get_submodule(path).children()]
        with layers_in_place(model, path, []):
            yield _LeanLogits(model, layers, names)
    else:
        yield _Logits(model)


def convert(model: PreTrainedModel, *, segments: bool = False) -> onnx.ModelProto:
    """A classifier as a graph, by torch's exporter.

    Args:
        model: in fp32, on the CPU, in eval mode; its attention is set to the plain form, which gives the fewest nodes.
        segments: whether it is told which text of a pair a token is of.

    Returns:
        A graph that takes `input_ids`, `attention_mask` and, with segments, `token_type_ids`, int64 [B, L] with any B
        and L, and gives `logits`, float32 [B, C].

    Raises:
        UserError: the exporter cannot convert this architecture.
    """
    model.set_attn_implementation("eager")
    # Two rows of more than two tokens, with padding: the exporter takes sizes of 0 and 1 for constants.
    ids = torch.full((2, 5), int(model.config.pad_token_id))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    given = dict(zip(INPUTS, (ids, mask), strict=True))
    if segments:
        given[TYPES] = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]])
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # what the exporter tells those who work on it
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad(), _logits_of(model) as logits:
            program = torch.onnx.export(
                logits,
                kwargs=given,
                input_names=list(given),
                output_names=[OUTPUT],
                dynamic_shapes=dict.fromkeys(given, dynamic),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # an architecture breaks the exporter in many ways
        raise UserError(
            f"a {model.config.model_type} cannot be converted to ONNX: {brief(error)}.\nTake the form merged."
        ) from error
    finally:
        logging.disable(level)
    if program is None:
        raise AssertionError("the exporter gives a program where it writes no file")
    return _tidy(program.model_proto)


def _tidy(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes, which hold the paths of the machine that it ran on; its sizes by their names."""
    inside = graph.graph
    values = [*inside.input, *inside.output, *inside.value_info]
    for noted in (graph, inside, *inside.node, *inside.initializer, *values):
        del noted.metadata_props[:]
    given = [dimension.dim_param for dimension in inside.input[0].type.tensor_type.shape.dim]
    names = dict(zip(given, ("batch", "length"), strict=True))
    for dimension in (dimension for value in values for dimension in value.type.tensor_type.shape.dim):
        if dimension.dim_param:
            dimension.dim_param = names.get(dimension.dim_param, dimension.dim_param)
    return graph


def save(graph: onnx.ModelProto, path: Path) -> None:
    """Write a graph, the weights of a very large one in a file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    large = sum(len(weight.raw_data) for weight in graph.graph.initializer) > MOST_BYTES
    onnx.save(graph, path, save_as_external_data=large, location=f"{path.name}_data", size_threshold=1024)


def save_as(form: str, graph: onnx.ModelProto, folder: Path) -> None:
    """Write a graph of `convert` in one of the ONNX forms, where that form has it in its folder."""
    save(graph if form == "onnx" else quantise(graph), folder / ONNX_FILES[form])
