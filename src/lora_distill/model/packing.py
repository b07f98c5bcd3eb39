"""Rows of unlike length without their padding, for all that works token by token."""

from typing import Any

import torch
from torch.nn import functional

from lora_distill.data.batches import to_device


class Packing:
    """Where the tokens of a padded batch lie: T of the B * L places.

    The last of them may stand there several times, so that few values of T come: see `rounded`.

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
        tokens = is_token.nonzero()[:, 0]
        self._different = len(tokens)
        repeated = rounded(self._different) - self._different
        is_as_it_comes = self._different == len(is_token) and not repeated
        tokens = functional.pad(tokens, (0, repeated), value=int(tokens[-1]))
        self._places = None if is_as_it_comes else to_device(places, device)
        self._tokens = None if is_as_it_comes else to_device(tokens, device)

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """[B * L, ...] to [T, ...]; backwards padding gets zeros, and nothing comes of a token that is repeated."""
        if self._tokens is None:
            return x
        packed: torch.Tensor = _Pack.apply(x, self._tokens, self._different)  # type: ignore[no-untyped-call]
        return packed

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """[T, ...] to [B * L, ...], with some token at padding, whose gradient, 0, is left out."""
        if self._tokens is None:
            return x
        padded: torch.Tensor = _Pad.apply(x, self._places, self._tokens, self._different)  # type: ignore[no-untyped-call]
        return padded


def rounded(tokens: int) -> int:
    """So many or a little more, by an eighth at most: one of eight numbers between a power of two and the next.

    For each shape that it has not met of late, oneDNN compiles its products anew, which may take as long as they do.
    """
    step = 1 << max(0, tokens.bit_length() - 4)
    return -(-tokens // step) * step


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, tokens: torch.Tensor, different: int) -> torch.Tensor:  # noqa: ANN401
        ctx.tokens, ctx.shape = tokens[:different], x.shape
        return x.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # noqa: ANN401
        return gradient.new_zeros(ctx.shape).index_copy_(0, ctx.tokens, gradient[: len(ctx.tokens)]), None, None


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: torch.Tensor,
        places: torch.Tensor,
        tokens: torch.Tensor,
        different: int,
    ) -> torch.Tensor:
        ctx.tokens, ctx.different = tokens, different
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:  # noqa: ANN401
        packed = gradient.index_select(0, ctx.tokens)
        packed[ctx.different :] = 0
        return packed, None, None, None
