"""Dropout whose masks cost little: sixteen random bits an element, taken from whole random words."""

import math

import torch


class Dropout:
    """Sets elements to zero with some probability and scales the others up; off without a generator.

    Args:
        generator: of the random words; None: nothing is dropped.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def __call__(self, x: torch.Tensor, rate: float) -> torch.Tensor:
        """The tensor with about `rate` of its elements zero, in steps of 1/65536, without bias."""
        if self.generator is None or rate == 0:
            return x
        words = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64, device=x.device)
        # The whole range of a word: random_() alone leaves out the sign.
        words.random_(-(2**63), None, generator=self.generator)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        dropped = round(rate * 65536)
        kept = bits >= dropped - 32768
        return x * kept.to(x.dtype).mul_(65536 / (65536 - dropped))
