"""Batches of rows of like length, padded to their own longest row only."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lora_distill.seeding import generator

if TYPE_CHECKING:  # whoever predicts without torch orders rows here, too
    import torch

# Rows are sorted by length inside windows of this many batches: long enough that padding nearly vanishes,
# short enough that a batch is still a random draw.
WINDOW_BATCHES = 50


@dataclass(frozen=True)
class Batch:
    """B rows, padded to L tokens.

    Attributes:
        rows: int64 [B], their positions in the split.
        input_ids: int64 [B, L].
        attention_mask: int64 [B, L], 1 at tokens, 0 at padding.
        hidden: [B, L, H], what the frozen layers gave; None where that is not at hand.
    """

    rows: NDArray[np.int64]
    input_ids: "torch.Tensor"
    attention_mask: "torch.Tensor"
    hidden: "torch.Tensor | None" = None

    def to(self, device: "torch.device") -> "Batch":
        """The same with its tensors on a device; to a GPU they are copied while that computes."""

        def move(tensor: "torch.Tensor") -> "torch.Tensor":
            if device.type == "cuda" and tensor.device.type == "cpu":
                return tensor.pin_memory().to(device, non_blocking=True)
            return tensor.to(device)

        hidden = None if self.hidden is None else move(self.hidden)
        return Batch(self.rows, move(self.input_ids), move(self.attention_mask), hidden)

    def inputs(self) -> "dict[str, torch.Tensor]":
        """What a model of transformers reads."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}


class Batches(Protocol):
    """N rows that batches can be made of: their tokens, or what frozen layers gave for those."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [N], tokens of each row."""

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
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(shuffled), WINDOW_BATCHES * size):
            part = shuffled[start : start + WINDOW_BATCHES * size]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[at : at + size] for at in range(0, len(part), size)]
        return batches

    def _drawn(self, rows: NDArray[np.int64], size: int, draw: np.random.Generator) -> list[NDArray[np.int64]]:
        """This many of some rows for each batch, again and again; in each window from the short to the long."""
        every: list[NDArray[np.int64]] = []
        for start in range(0, self.steps * size, len(rows)):
            every += self._neighbours(draw.permutation(rows)[: self.steps * size - start], size)
        groups = np.concatenate(every).reshape(self.steps, size)
        longest = self.lengths[groups].max(axis=1)
        windows = np.arange(self.steps) // WINDOW_BATCHES
        return list(groups[np.lexsort((longest, windows))])


def evaluation_order(lengths: NDArray[np.int64], most_tokens: int) -> list[NDArray[np.int64]]:
    """The rows of each batch, neighbours in length, the longest first: what memory those take is enough for the rest.

    Args:
        lengths: int64 [N].
        most_tokens: of a batch, padding included, unless one row has more.
    """
    order = np.argsort(lengths, kind="stable")
    batches: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        ahead = lengths[order[start : start + most_tokens]]
        padded = ahead * np.arange(1, len(ahead) + 1)
        batches.append(order[start : start + max(1, int(np.searchsorted(padded, most_tokens, side="right")))])
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
