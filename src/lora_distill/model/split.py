"""A classifier in two parts: the frozen layers below the first adapted one, and the rest, which is trained."""

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from lora_distill.data.batches import Batch
from lora_distill.memory import give_back_memory
from lora_distill.model.dropout import Dropout
from lora_distill.model.layers import FAMILIES, layers_in_place, layers_path
from lora_distill.model.lean import LeanLayer, attention_bias, find_layer_names, first_token_head
from lora_distill.model.packing import Packing
from lora_distill.model.pooling import last_hidden, pool


class _Reached(Exception):  # noqa: N818 - no error: how a forward pass is left half-way
    """Carries what a layer would have read."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class SplitClassifier:
    """Runs prefix and suffix apart, so that the prefix's outputs can be kept.

    Layers are run lean (`model.lean`) where that knows the family and the adapter is plain LoRA, else as transformers
    and PEFT do. In fp32 without dropout both compute the same. With dropout, lean query, key and value share the mask
    before LoRA's A, where PEFT draws three; in bfloat16, lean hidden states and norms are rounded, where autocast keeps
    some in fp32. The prefix's outputs are rounded to `dtype` after each layer, so that it may be entered at any.

    A forward pass that is not lean swaps the model's list of layers: one thread at a time.

    Attributes:
        model: with its adapter; its parameters are trained in place.
        dtype: float32 or bfloat16, of activations and matrix products.
        depth: layers of the prefix; with 0, as where a family is not known to be what its layers are, there is nothing
            to keep, and all of the model runs each time.
        lean: whether layers are run lean.
    """

    def __init__(self, model: PeftModel, dtype: torch.dtype, *, lean: bool = True) -> None:
        self.model, self.dtype = model, dtype
        self.classifier = model.get_base_model()
        self._path = layers_path(self.classifier)
        self._layers: list[nn.Module] = list(self.classifier.get_submodule(self._path))
        self._first_adapted = self._find_first_adapted()
        self.depth = self._first_adapted if self._can_be_split() else 0
        self._names = find_layer_names(self.classifier) if lean and is_plain_lora(model) else None
        self.lean = self._names is not None
        self._lean_layers: dict[int, LeanLayer] = {}
        self._dropout = Dropout()

    def _can_be_split(self) -> bool:
        """Whether the layers are all that comes after the embeddings, and each of them comes once."""
        config = self.classifier.config
        shared = len(self._layers) < config.num_hidden_layers  # ALBERT: the same weights everywhere
        encoder = getattr(self.classifier.base_model, "encoder", None)
        convolves = getattr(encoder, "conv", None) is not None  # the large DeBERTa: beside its first layer
        return config.model_type in FAMILIES and not shared and not convolves

    def _find_first_adapted(self) -> int:
        trained = [any(p.requires_grad for p in layer.parameters()) for layer in self._layers]
        # A loaded adapter is frozen as a whole, and shows by its modules where it sits.
        adapted = [any("lora_" in name for name, _ in layer.named_parameters()) for layer in self._layers]
        return (trained if any(trained) else adapted).index(True)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def facts(self) -> dict[str, Any]:
        """How it computes, for metrics.json."""
        return {"lean": self.lean, "frozen_layers": self.depth}

    def train(self, seed: int) -> None:
        """Dropout on, from the first adapted layer upwards, drawn from the seed."""
        torch.manual_seed(seed)
        self.model.eval()
        for layer in self._layers[self._first_adapted :]:
            layer.train()
        for name, module in self.classifier.named_children():
            if name != self.classifier.base_model_prefix:
                module.train()
        self._dropout = Dropout.of(seed, self.device)

    def eval(self) -> None:
        """Dropout off."""
        self.model.eval()
        self._dropout = Dropout()

    @torch.no_grad()
    def prefix(self, batch: Batch, start: int = 0) -> torch.Tensor:
        """What the frozen layers give, [B, L, H] in `dtype`.

        Args:
            batch: B rows; its `hidden` is what the first `start` layers gave.
            start: 0 to `depth`; 0 begins with the token ids.
        """
        mask, batch = batch.attention_mask, batch.to(self.device)
        hidden = (
            batch.hidden.to(self.dtype) if start and batch.hidden is not None else self._run(batch, 0, None, stop=0)
        )
        if start == self.depth:
            return hidden
        if not self.lean:
            return self._run(batch, start, hidden, self.depth)
        packing, bias = Packing(mask, self.device), attention_bias(self.classifier, batch.attention_mask, hidden)
        x = packing.pack(hidden.flatten(0, 1))
        for index in range(start, self.depth):
            x = self._lean_layer(index)(x, packing, bias, Dropout())
        return packing.pad(x).view(hidden.shape)

    def forget_prefix(self) -> None:
        """Let go of the memory that only the prefix needs."""
        for index in range(self.depth):
            self._lean_layers.pop(index, None)
        give_back_memory()

    def forget(self) -> None:
        """Let go of what was made of the model's weights; it is made again when it is needed."""
        self._lean_layers.clear()
        gc.collect()  # models before this one hold themselves in circles
        give_back_memory()

    def logits(self, batch: Batch) -> torch.Tensor:
        """float32 [B, C]; where the batch lacks what the frozen layers give, these are run too."""
        return self.logits_and_pooled(batch)[0]

    def logits_and_pooled(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and float32 [B, H]: of a family that `pooling` knows, what the head reads of the last layer."""
        if batch.hidden is None and (self.depth or self.lean):
            batch = replace(batch, hidden=self.prefix(batch))  # before the mask is on a GPU, which would be waited for
        packing, batch = Packing(batch.attention_mask, self.device), batch.to(self.device)
        if not self.lean or batch.hidden is None:
            with self._from(self.depth, batch.hidden), self._autocast(), last_hidden(self.classifier) as seen:
                logits: torch.Tensor = self.classifier(**batch.inputs()).logits
            pooled = pool(self.classifier.config, seen[-1], batch.attention_mask)
            return batch.of_rows(logits), batch.of_rows(pooled)
        hidden = batch.hidden.to(self.dtype)
        bias = attention_bias(self.classifier, batch.attention_mask, hidden)
        x = packing.pack(hidden.flatten(0, 1))
        for index in range(self.depth, len(self._layers)):
            x = self._lean_layer(index)(x, packing, bias, self._dropout)
        with self._autocast():
            logits = first_token_head(self.classifier, x)
        return batch.of_rows(logits), batch.of_rows(x)

    def _lean_layer(self, index: int) -> LeanLayer:
        if index not in self._lean_layers:
            if self._names is None:
                raise AssertionError("this family has no lean layers")
            is_last = index == len(self._layers) - 1
            self._lean_layers[index] = LeanLayer(
                self._layers[index], self._names, self.classifier.config, self.dtype, first_token_only=is_last
            )
        return self._lean_layers[index]

    def _autocast(self) -> AbstractContextManager[object]:
        is_bf16 = self.dtype == torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16) if is_bf16 else nullcontext()

    def _run(self, batch: Batch, start: int, hidden: torch.Tensor | None, stop: int) -> torch.Tensor:
        """What comes to layer `stop`, in `dtype`."""

        def leave(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
            raise _Reached(arguments[0])

        def round_off(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            return (arguments[0].to(self.dtype), *arguments[1:])

        hooks = [layer.register_forward_pre_hook(round_off) for layer in self._layers[start:stop]]
        hooks.append(self._layers[stop].register_forward_pre_hook(leave))
        try:
            with self._from(start, hidden), self._autocast():
                self.classifier(**batch.inputs())
        except _Reached as reached:
            return reached.hidden.to(self.dtype)
        finally:
            for hook in hooks:
                hook.remove()
        raise AssertionError(f"layer {stop} was never reached")

    @contextmanager
    def _from(self, start: int, hidden: torch.Tensor | None) -> Iterator[None]:
        """Let a forward pass begin at layer `start`, as if the layers below had given `hidden`."""
        if hidden is None:
            yield
            return

        def enter(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            return (hidden, *arguments[1:])

        hook = self._layers[start].register_forward_pre_hook(enter, prepend=True)
        try:
            with layers_in_place(self.classifier, self._path, self._layers[start:]):
                yield
        finally:
            hook.remove()


def is_plain_lora(model: PeftModel) -> bool:
    """Whether the adapter is of the kind that this program trains: LoRA or DoRA on layers, and the head as a whole."""
    settings = model.peft_config.get("default")
    if type(settings) is not LoraConfig or len(model.peft_config) > 1 or settings.bias != "none":
        return False
    if settings.layer_replication:  # whose layers below the adapter are in other places than the base model's
        return False
    classifier = model.get_base_model()
    inside, layers = f"{classifier.base_model_prefix}.", f"{layers_path(classifier)}."
    for name, module in classifier.named_modules():
        if isinstance(module, LoraLayer):
            variants = {type(each) for each in module.lora_variant.values()} - {DoraLinearVariant}
            odd = variants or module.merged or any(module.lora_bias.values()) or settings.fan_in_fan_out
            if odd or type(module) is not LoraLinear or not name.startswith(layers):
                return False
        # Of modules, or of single tokens' embeddings, which would be taken for the base model's.
        if isinstance(module, AuxiliaryTrainingWrapper) and name.startswith(inside) and "pooler" not in name:
            return False
    return True
