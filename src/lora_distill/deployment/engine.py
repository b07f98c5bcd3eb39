"""What turns tokens into logits, in the batches that are the fastest."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lora_distill.data.batches import evaluation_order
from lora_distill.data.tokens import Tokens

BATCH_TOKENS = 512  # padding included: what stays in a processor's cache is the fastest
# What `Tokens.padded` gives, int64 [B, L] by name, to logits, float32 [B, C].
Forward = Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]]


@dataclass(frozen=True)
class Engine:
    """A model's forward pass, and how it is asked. Several threads may ask at once.

    Attributes:
        forward: of one batch, with all threads; several threads may call it at once.
        beside: of one of several batches, on the thread that calls it.
        at_once: batches that are answered side by side the fastest.
        most_padding: tokens of padding in a batch that cost no more than a batch of its own.
        classes: C.
    """

    forward: Forward
    beside: Forward
    at_once: int
    most_padding: int
    classes: int
    _pool: ThreadPoolExecutor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Its threads begin when they have something to do."""
        object.__setattr__(self, "_pool", ThreadPoolExecutor(self.at_once))

    def logits(self, tokens: Tokens, told: Callable[[float], None] | None = None) -> NDArray[np.float32]:
        """Logits, float32 [N, C]; of a text that is read in chunks the mean of theirs.

        Args:
            tokens: of N texts.
            told: is called after each batch with the share of all that is answered.
        """
        found = np.empty((len(tokens.chunk_lengths), self.classes), np.float32)
        batches = evaluation_order(tokens.chunk_lengths, BATCH_TOKENS, self.most_padding)
        for_all = len(batches) >= self.at_once  # else some threads would have none
        forward, each = (self.beside, self._pool.map) if for_all else (self.forward, map)

        def answer(chunks: NDArray[np.int64]) -> None:
            found[chunks] = forward(tokens.padded(chunks))

        answered = 0
        for chunks, _ in zip(batches, each(answer, batches), strict=True):  # raises what a thread raises
            answered += len(chunks)
            if told:
                told(answered / len(found))
        return tokens.of_texts(found)
