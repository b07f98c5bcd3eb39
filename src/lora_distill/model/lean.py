"""Encoder layers with less work, for the family of BERT, which normalises after each block.

What the modules of transformers and PEFT leave undone is done here: query, key and value as one product; frozen
weights converted once, and packed as the processor likes them; no gradients of frozen weights; attention by plain
products, since torch's fused kernel is slow backwards on a processor; dropout masks from whole random words; padding
in attention only; of the last layer, what the head reads: the first token. The parameters are PEFT's own: saving knows
nothing of it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from lora_distill.model.dropout import Dropout
from lora_distill.model.frozen import Frozen
from lora_distill.model.packing import Packing

SHORT = 256  # tokens; beyond, a row's scores are worth saving where nothing goes backwards
MASKED = -1e4  # a score whose weight is 0 in every dtype, and which may be added to


class LayerNames(NamedTuple):
    """Where a family keeps the parts of a layer."""

    query: str
    key: str
    value: str
    out: str
    attention_norm: str
    up: str
    down: str
    output_norm: str


_BERT = LayerNames(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
)
_MPNET = _BERT._replace(
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    out="attention.attn.o",
    attention_norm="attention.LayerNorm",
)
_DISTILBERT = LayerNames(
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    out="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    output_norm="output_layer_norm",
)
_FAMILIES = {
    "bert": _BERT,
    "camembert": _BERT,
    "distilbert": _DISTILBERT,
    "electra": _BERT,
    "mpnet": _MPNET,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
}


def find_layer_names(classifier: PreTrainedModel) -> LayerNames | None:
    """Where the parts of this model's layers are; None where layers cannot be run lean."""
    if getattr(classifier.config, "is_decoder", False):  # each token then reads those before it only
        return None
    return _FAMILIES.get(classifier.config.model_type)


class Projection:
    """One or more linear modules that read the same, as one product; each may carry LoRA, or DoRA."""

    def __init__(self, modules: Sequence[nn.Linear | LoraLinear], dtype: torch.dtype) -> None:
        self._plain = [module.base_layer if isinstance(module, LoraLinear) else module for module in modules]
        self._frozen = Frozen(self._plain, dtype)
        self._device = self._plain[0].weight.device
        self._adapters = [module if isinstance(module, LoraLinear) else None for module in modules]
        self._dropout = max((a.lora_dropout["default"].p for a in self._adapters if a and _drops(a)), default=0.0)

    def __call__(self, x: torch.Tensor, dropout: Dropout) -> torch.Tensor:
        """[T, in] to [T, all out]. Modules that share the input share the dropout mask before LoRA's A, too."""
        y = self._frozen(x)
        if not any(self._adapters):
            return y
        dropped, scale = dropout.thin(x, self._dropout)
        down, up = self._low_rank(scale)
        if any(adapter.lora_magnitude_vector for adapter in self._adapters if adapter):
            longer = self._longer()
            turned = y if dropped is x else self._frozen(dropped)
            y = y + (scale * (longer - 1)).to(x.dtype) * (turned - self._frozen.bias)
            up = up * longer
        return y.addmm_(dropped @ down.to(x.dtype).t(), up.to(x.dtype))

    def _low_rank(self, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """A's of all modules [ranks, in], and their B's as blocks [ranks, all out], with their scale and this one."""
        downs, ups = [], []
        for plain, adapter in zip(self._plain, self._adapters, strict=True):
            if adapter is None:
                ups.append(torch.zeros(0, plain.out_features, device=self._device))
            else:
                downs.append(adapter.lora_A["default"].weight)
                ups.append(adapter.lora_B["default"].weight.t() * (scale * adapter.scaling["default"]))
        return torch.cat(downs), torch.block_diag(*ups)  # type: ignore[no-untyped-call]

    def _longer(self) -> torch.Tensor:
        """How many times as long DoRA makes the rows of the weights, [all out]; 1 without it.

        Their own lengths are constants for the gradient (section 4.3 of its paper).
        """
        factors = []
        for plain, adapter in zip(self._plain, self._adapters, strict=True):
            if adapter is None:
                factors.append(torch.ones(plain.out_features, device=self._device))
                continue
            with torch.no_grad():
                turned = plain.weight + adapter.get_delta_weight("default")
                lengths = torch.linalg.vector_norm(turned, dim=1)
            factors.append(adapter.lora_magnitude_vector["default"].weight / lengths)
        return torch.cat(factors)


def _drops(adapter: LoraLinear) -> bool:
    return isinstance(adapter.lora_dropout["default"], nn.Dropout)


class LeanLayer:
    """One layer of an encoder.

    Args:
        layer: transformers' own.
        names: where its parts are.
        config: of the model.
        dtype: of activations and frozen weights.
        first_token_only: whether only the first token's output is wanted.
    """

    def __init__(
        self,
        layer: nn.Module,
        names: LayerNames,
        config: PreTrainedConfig,
        dtype: torch.dtype,
        *,
        first_token_only: bool,
    ) -> None:
        parts = LayerParts.of(layer, names)
        reading = (
            [[parts.query], [parts.key, parts.value]] if first_token_only else [[parts.query, parts.key, parts.value]]
        )
        self._reading = [Projection(modules, dtype) for modules in reading]
        self._out, self._up, self._down = (Projection([part], dtype) for part in (parts.out, parts.up, parts.down))
        self._norms = parts.attention_norm, parts.output_norm
        self._first_token_only = first_token_only
        self._heads, self._activation = config.num_attention_heads, activation_of(config)
        if config.model_type == "distilbert":
            self._rates = (config.attention_dropout, 0.0, config.dropout)
        else:
            self._rates = (config.attention_probs_dropout_prob, config.hidden_dropout_prob, config.hidden_dropout_prob)

    def __call__(self, x: torch.Tensor, packing: Packing, bias: torch.Tensor, dropout: Dropout) -> torch.Tensor:
        """[T, H] to the same, or to [B, H] where only the first token is wanted.

        Args:
            x: what the layer below gave for the tokens of all rows.
            packing: where they lie in the batch.
            bias: `attention_bias`.
            dropout: on or off.
        """
        width = x.shape[1]
        batch, length = packing.batch, packing.length
        if self._first_token_only:
            k, v = packing.pad(self._reading[1](x, dropout)).view(batch, length, 2, self._heads, -1).unbind(2)
            x = x[packing.first]
            q = self._reading[0](x, dropout).view(batch, 1, self._heads, -1)
            bias = bias[:, :, :1]
        else:
            q, k, v = packing.pad(self._reading[0](x, dropout)).view(batch, length, 3, self._heads, -1).unbind(2)
        on_weights, on_out, on_down = self._rates
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        by_products = x.device.type == "cpu" and (torch.is_grad_enabled() or length <= SHORT)
        attend = attend_by_products if by_products else attend_fused
        context = attend(q, k, v, bias, on_weights, dropout).transpose(1, 2).reshape(-1, width)
        if not self._first_token_only:
            context = packing.pack(context)
        x = _norm(self._norms[0], x + dropout(self._out(context, dropout), on_out))
        inner = self._activation(self._up(x, dropout))
        return _norm(self._norms[1], x + dropout(self._down(inner, dropout), on_down))


def attend_by_products(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, rate: float, dropout: Dropout
) -> torch.Tensor:
    """Softmax(q k^T / sqrt(D) + bias) v, [B, heads, Q, D], with dropout on the weights.

    Args:
        q: [B, heads, Q, D].
        k: [B, heads, L, D].
        v: [B, heads, L, D].
        bias: as in `attention_bias`.
        rate: of dropout.
        dropout: on or off.
    """
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2) + bias
    return dropout(scores.softmax(-1), rate) @ v


def attend_fused(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, rate: float, dropout: Dropout
) -> torch.Tensor:
    """The same in one kernel, which is slow backwards on a processor and fast elsewhere; it draws from torch's seed.

    Backwards on a GPU it adds in no fixed order, so that what is trained there is the same within rounding only.
    """
    rate = rate if dropout.is_on else 0.0
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=rate)


class LayerParts(NamedTuple):
    """The modules that `LayerNames` names."""

    query: nn.Linear | LoraLinear
    key: nn.Linear | LoraLinear
    value: nn.Linear | LoraLinear
    out: nn.Linear | LoraLinear
    attention_norm: nn.LayerNorm
    up: nn.Linear | LoraLinear
    down: nn.Linear | LoraLinear
    output_norm: nn.LayerNorm

    @classmethod
    def of(cls, layer: nn.Module, names: LayerNames) -> "LayerParts":
        """Those of a layer."""
        return cls(*(layer.get_submodule(name) for name in names))  # type: ignore[arg-type]


def activation_of(config: PreTrainedConfig) -> nn.Module:
    """What a layer has between its two large products."""
    activation: nn.Module = ACT2FN[config.activation if config.model_type == "distilbert" else config.hidden_act]
    return activation


def _norm(norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    shape = list(norm.normalized_shape)
    return functional.layer_norm(x, shape, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps)


@torch.no_grad()
def attention_bias(classifier: PreTrainedModel, mask: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """What is added to the attention's scores, [B, 1 or heads, 1 or L, L] in the dtype of `hidden`.

    Args:
        classifier: may know a bias for positions.
        mask: int64 [B, L], 0 at padding.
        hidden: [B, L, H].
    """
    bias = (1 - mask[:, None, None, :]).to(hidden.dtype) * MASKED
    positions = getattr(getattr(classifier.base_model, "encoder", None), "compute_position_bias", None)
    return bias + positions(hidden[:1]).to(hidden.dtype) if positions else bias


def first_token_head(classifier: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Logits [B, C] from the last layer's output for the first token, [B, H]."""
    logits: torch.Tensor
    if classifier.config.model_type == "distilbert":
        pooled = classifier.dropout(functional.relu(classifier.pre_classifier(hidden)))
        logits = classifier.classifier(pooled)
    elif classifier.config.model_type == "bert":
        logits = classifier.classifier(classifier.dropout(classifier.base_model.pooler(hidden[:, None])))
    else:
        logits = classifier.classifier(hidden[:, None])
    return logits
