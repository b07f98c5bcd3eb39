"""Rows of unlike length without their padding, for all that works token by token."""

from typing import Any

import torch

from lora_distill.data.batches import to_device


class Packing:
    """Where the tokens of a padded batch lie: T of the B * L places.

    Args:
        mask: int64 [B, L], 0 at padding, which comes after a row's tokens.
        device: where the tensors are that will be packed.

    Attributes:
        batch: B.
        length: L.
        first: int64 [B], the first token of each row among the T.
    """

    def __init__(self, mask: torch.Tensor, device: torch.device) -> None:
        self.batch, self.length = mask.shape
        is_token = mask.flatten().bool()
        # Padding repeats the token before it: a number that nothing may read is still a number.
        places = is_token.cumsum(0) - 1
        self.first = to_device(places[:: self.length], device)
        is_padded = not bool(is_token.all())
        self._places = to_device(places, device) if is_padded else None
        self._tokens = to_device(is_token.nonzero()[:, 0], device) if is_padded else None

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """[B * L, ...] to [T, ...]; backwards padding gets zeros."""
        if self._tokens is None:
            return x
        packed: torch.Tensor = _Pack.apply(x, self._tokens)  # type: ignore[no-untyped-call]
        return packed

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """[T, ...] to [B * L, ...], with some token at padding, whose gradient, 0, is left out."""
        if self._tokens is None:
            return x
        padded: torch.Tensor = _Pad.apply(x, self._places, self._tokens)  # type: ignore[no-untyped-call]
        return padded


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        ctx.tokens, ctx.shape = tokens, x.shape
        return x.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401
        return gradient.new_zeros(ctx.shape).index_copy_(0, ctx.tokens, gradient), None


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, places: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        ctx.tokens = tokens
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # noqa: ANN401
        return gradient.index_select(0, ctx.tokens), None, None
