"""Batches of rows of like length, padded to their own longest row only."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lora_distill.seeding import generator

if TYPE_CHECKING:  # rows are put in order without torch, too
    from collections.abc import Callable

    import torch

# Rows are sorted by length inside windows of so many batches: long enough that padding nearly vanishes, short enough
# that a batch is still a random draw. Few rows make several windows, too: sorted as one, they would stand in the same
# batches in every epoch.
WINDOW_BATCHES = 50
LEAST_WINDOWS = 4


@dataclass(frozen=True)
class Batch:
    """B rows in K chunks, padded to L tokens. Mostly a row is one chunk, and K is B.

    Attributes:
        rows: int64 [B], their positions in the split.
        input_ids: int64 [K, L].
        attention_mask: int64 [K, L], 1 at tokens, 0 at padding.
        hidden: [K, L, H], what the frozen layers gave; None where that is not at hand.
        segments: int64 [K, L], 0 or 1: which text of a pair a token is of; None where the model is not told.
        shares: float32 [B, K], of each chunk in a row's answer; None: each row is one chunk.
    """

    rows: NDArray[np.int64]
    input_ids: "torch.Tensor"
    attention_mask: "torch.Tensor"
    hidden: "torch.Tensor | None" = None
    segments: "torch.Tensor | None" = None
    shares: "torch.Tensor | None" = None

    def to(self, device: "torch.device") -> "Batch":
        """The same with its tensors on a device."""
        return self._changed(lambda tensor: to_device(tensor, device))

    def repeated(self, times: int) -> "Batch":
        """The same rows, so many times over."""
        batch = self._changed(lambda tensor: tensor.repeat(times, *[1] * (tensor.ndim - 1)))
        return replace(batch, rows=np.tile(self.rows, times))

    def _changed(self, change: "Callable[[torch.Tensor], torch.Tensor]") -> "Batch":
        changed: dict[str, Any] = {
            name: change(each) for name, each in vars(self).items() if name != "rows" and each is not None
        }
        return replace(self, **changed)

    def inputs(self) -> "dict[str, torch.Tensor]":
        """What a model of transformers reads."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return inputs if self.segments is None else inputs | {"token_type_ids": self.segments}

    def of_rows(self, of_chunks: "torch.Tensor") -> "torch.Tensor":
        """Logits or pooled vectors of rows, float32 [B, W], from those of chunks, [K, W]: the mean of a row's."""
        of_chunks = of_chunks.float()
        if self.shares is None:
            return of_chunks
        import torch

        with torch.autocast(of_chunks.device.type, enabled=False):
            return self.shares @ of_chunks


def to_device(tensor: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """The same there; to a GPU it is copied while that computes, which is not waited for."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Batches(Protocol):
    """N rows that batches can be made of: their tokens, or what frozen layers gave for those."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [N], tokens that each row takes in a batch."""

    @property
    def at_hand(self) -> bool:
        """Whether a batch is only put together, and no model runs for it."""

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """The batch of these rows."""


@dataclass(frozen=True)
class TrainingOrder:
    """Which rows stand in which batch of an epoch: neighbours in length together, drawn anew each epoch.

    Where all rows have labels, each stands in one batch. Else each batch holds a fixed share of labelled rows, and an
    epoch is as long as it takes for every row to be read once; of the kind that is sooner through, rows are read again.

    Attributes:
        lengths: int64 [N], tokens of each row; those with labels come first.
        batch_size: rows in a batch.
        labelled: how many rows have labels.
        labelled_per_batch: of the rows in a batch, where some have none.
    """

    lengths: NDArray[np.int64]
    batch_size: int
    labelled: int
    labelled_per_batch: int

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        rows = len(self.lengths)
        if self.labelled == rows:
            return -(-rows // self.batch_size)
        others = self.batch_size - self.labelled_per_batch
        return max(-(-self.labelled // self.labelled_per_batch), -(-(rows - self.labelled) // others))

    @property
    def rows(self) -> int:
        """Rows that are read in an epoch, those that are read again counted again."""
        every = len(self.lengths)
        return every if self.labelled == every else self.steps * self.batch_size

    def epoch(self, seed: int, epoch: int) -> list[NDArray[np.int64]]:
        """The rows of each batch."""
        draw = generator(seed, "order", epoch)
        rows = len(self.lengths)
        if self.labelled == rows:
            batches = self._neighbours(draw.permutation(rows), self.batch_size)
        else:
            labelled = self._drawn(np.arange(self.labelled), self.labelled_per_batch, draw)
            others = self._drawn(np.arange(self.labelled, rows), self.batch_size - self.labelled_per_batch, draw)
            batches = [np.concatenate(parts) for parts in zip(labelled, others, strict=True)]
        return [batches[index] for index in draw.permutation(len(batches))]

    def _neighbours(self, shuffled: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        """Batches of so many; the rows that are left over, which weigh more in theirs, are any, not the longest."""
        full = len(shuffled) // size
        window = max(1, min(WINDOW_BATCHES, full // LEAST_WINDOWS)) * size
        whole, rest = np.split(shuffled, [full * size])
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(whole), window):
            part = whole[start : start + window]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[at : at + size] for at in range(0, len(part), size)]
        return [*batches, rest] if len(rest) else batches

    def _drawn(self, rows: NDArray[np.int64], size: int, draw: np.random.Generator) -> list[NDArray[np.int64]]:
        """This many of some rows for each batch, again and again; in each window from the short to the long."""
        every: list[NDArray[np.int64]] = []
        for start in range(0, self.steps * size, len(rows)):
            every += self._neighbours(draw.permutation(rows)[: self.steps * size - start], size)
        groups = np.concatenate(every).reshape(self.steps, size)
        longest = self.lengths[groups].max(axis=1)
        windows = np.arange(self.steps) // WINDOW_BATCHES
        return list(groups[np.lexsort((longest, windows))])


def evaluation_order(
    lengths: NDArray[np.int64], most_tokens: int, most_padding: int | None = None
) -> list[NDArray[np.int64]]:
    """The rows of each batch, neighbours in length, the longest first: what memory those take is enough for the rest.

    Args:
        lengths: int64 [N].
        most_tokens: of a batch, padding included, unless one row has more.
        most_padding: tokens of it in a batch; any number if None.
    """
    order = np.argsort(lengths, kind="stable")
    batches: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        ahead = lengths[order[start : start + most_tokens]]
        padded = ahead * np.arange(1, len(ahead) + 1)
        size = np.searchsorted(padded, most_tokens, side="right")
        if most_padding is not None:
            size = min(size, np.searchsorted(padded - np.cumsum(ahead), most_padding, side="right"))
        batches.append(order[start : start + max(1, int(size))])
        start += len(batches[-1])
    return batches[::-1]


def equal_length_groups(lengths: NDArray[np.int64], most_tokens: int) -> list[NDArray[np.int64]]:
    """Rows of one length each, shortest first, so that none is padded: every row once.

    Args:
        lengths: int64 [N].
        most_tokens: of a group, unless one row has more.
    """
    order = np.argsort(lengths, kind="stable")
    groups: list[NDArray[np.int64]] = []
    for same in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        size = max(1, most_tokens // int(lengths[same[0]])) if len(same) else 1
        groups += [same[at : at + size] for at in range(0, len(same), size)]
    return groups
