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


class _FirstTokensLogits(nn.Module):
    """The same of a model whose head reads the first token, the only one that the last layer then computes.

    Args:
        model: whose list of layers lacks the last.
        last: that one.
        names: of its parts.
    """

    def __init__(self, model: PreTrainedModel, last: nn.Module, names: LayerNames) -> None:
        super().__init__()
        self.model, self.last = model, last  # by which the exporter knows the weights of the parts
        self._parts = LayerParts.of(last, names)
        self._activation = activation_of(model.config)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        segments = {} if token_type_ids is None else {TYPES: token_type_ids}
        hidden = self.model.base_model(input_ids=input_ids, attention_mask=attention_mask, **segments)[0]
        bias, first, parts = attention_bias(self.model, attention_mask, hidden)[:, :, :1], hidden[:, :1], self._parts
        q, k, v = map(self._by_head, (parts.query(first), parts.key(hidden), parts.value(hidden)))
        context = attend_by_products(q, k, v, bias, 0.0, Dropout()).transpose(1, 2).flatten(2)
        x = parts.attention_norm(first + parts.out(context))
        x = parts.output_norm(x + parts.down(self._activation(parts.up(x))))
        return first_token_head(self.model, x[:, 0])

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], self.model.config.num_attention_heads, -1).transpose(1, 2)


@contextmanager
def _logits_of(model: PreTrainedModel) -> Iterator[nn.Module]:
    """What gives a model's logits with the least work, and is the model's own but while the block lasts."""
    if names := find_layer_names(model):
        path = layers_path(model)
        *lower, last = model.get_submodule(path)
        with layers_in_place(model, path, lower):
            yield _FirstTokensLogits(model, last, names)
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
    """Without the exporter's notes, which hold the paths of the machine that it ran on."""
    inside = graph.graph
    for noted in (graph, inside, *inside.node, *inside.input, *inside.output, *inside.initializer):
        del noted.metadata_props[:]
    del inside.value_info[:]
    for value, axes in [(each, ("batch", "length")) for each in inside.input] + [(inside.output[0], ("batch",))]:
        for dimension, name in zip(value.type.tensor_type.shape.dim, axes, strict=False):
            dimension.dim_param = name
    return graph


def save(graph: onnx.ModelProto, path: Path) -> None:
    """Write a graph, the weights of a very large one in a file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    large = sum(len(weight.raw_data) for weight in graph.graph.initializer) > MOST_BYTES
    onnx.save(graph, path, save_as_external_data=large, location=f"{path.name}_data", size_threshold=1024)


def save_as(form: str, graph: onnx.ModelProto, folder: Path) -> None:
    """Write a graph of `convert` in one of the ONNX forms, where that form has it in its folder."""
    save(graph if form == "onnx" else quantise(graph), folder / ONNX_FILES[form])
