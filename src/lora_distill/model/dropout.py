"""Dropout whose masks cost little: sixteen random bits an element, taken from whole random words."""

import math
from collections.abc import Callable

import numpy as np
import torch

from lora_distill.seeding import derive_seed

Words = Callable[[int], torch.Tensor]


class Dropout:
    """Sets elements to zero with some probability and scales the others up; off without a source of bits.

    Args:
        words: gives so many random 64-bit words, as int16 [4 * count] where they are needed; None: nothing is dropped.
    """

    def __init__(self, words: Words | None = None) -> None:
        self._words = words

    @classmethod
    def of(cls, seed: int, device: torch.device) -> "Dropout":
        """Drawn from a seed."""
        return cls(words_by_numpy(seed) if device.type == "cpu" else words_by_torch(seed, device))

    @property
    def is_on(self) -> bool:
        """Whether anything is dropped."""
        return self._words is not None

    def __call__(self, x: torch.Tensor, rate: float) -> torch.Tensor:
        """The tensor with about `rate` of its elements zero, in steps of 1/65536, without bias."""
        kept, scale = self.thin(x, rate)
        return x if kept is x else kept.mul_(scale)

    def thin(self, x: torch.Tensor, rate: float) -> tuple[torch.Tensor, float]:
        """The same but for its scale, which comes beside it: for who multiplies something smaller by it."""
        if self._words is None or rate == 0:
            return x, 1.0
        bits = self._words(math.ceil(x.numel() / 4))[: x.numel()].view(x.shape)
        dropped = min(round(rate * 65536), 65535)
        # Compared straight into the dtype of x: by way of a boolean it would take four times as long.
        mask = torch.ge(bits, dropped - 32768, out=torch.empty(x.shape, dtype=x.dtype, device=x.device))
        return x * mask, 65536 / (65536 - dropped)  # the scale has no exact place in a bfloat16 mask


def words_by_numpy(seed: int) -> Words:
    """On a processor, where numpy's generators are faster than torch's."""
    source = np.random.PCG64DXSM(seed)
    return lambda count: torch.from_numpy(source.random_raw(count)).view(torch.int16)


def words_by_torch(seed: int, device: torch.device) -> Words:
    """On any device."""
    # Another seed, for torch's own generator, which draws the other masks, begins with this one and is of this kind.
    generator = torch.Generator(device).manual_seed(derive_seed(seed, "masks"))

    def words(count: int) -> torch.Tensor:
        drawn = torch.empty(4 * count, dtype=torch.int16, device=device)
        return drawn.random_(-32768, 32768, generator=generator)  # whole words of 64 bits are not to be had on mps

    return words
