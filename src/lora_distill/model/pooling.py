"""The vector of a text that a classifier's head reads of its last layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lora_distill.errors import UserError
from lora_distill.model.layers import FAMILIES


def check_pools(config: PreTrainedConfig) -> None:
    """Let a classifier pass whose pooled vector can be had.

    Raises:
        UserError: it is of another family.
    """
    if config.model_type not in FAMILIES:
        raise UserError(
            f"--pooled_weight: which vector the head of {config.model_type} reads is not known here; it is of"
            f" {', '.join(FAMILIES)}.\nTake teacher and student of these, or leave it at 0."
        )


def pool(config: PreTrainedConfig, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The pooled vectors, float32 [B, H]: the first token's, but for ModernBERT's where its config says the mean.

    Args:
        config: of the classifier.
        hidden: [B, L, H], what its encoder gives.
        mask: int64 [B, L], 0 at padding.
    """
    if getattr(config, "classifier_pooling", "cls") != "mean":
        return hidden[:, 0].float()
    weights = mask[:, :, None].float()
    return (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)


@contextmanager
def last_hidden(classifier: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """What the classifier's encoder gives while the block runs, [B, L, H] each time."""
    seen: list[torch.Tensor] = []

    def see(_encoder: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401 - transformers' own
        seen.append(output[0])

    hook = classifier.base_model.register_forward_hook(see)
    try:
        yield seen
    finally:
        hook.remove()
