"""Batches of rows of like length, padded to their own longest row only."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lora_distill.data.tokens import Tokens
from lora_distill.seeding import generator

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
    """

    rows: NDArray[np.int64]
    input_ids: torch.Tensor
    attention_mask: torch.Tensor


def training_order(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """The rows of each batch of an epoch: every row once, drawn anew each epoch, neighbours in length together."""
    draw = generator(seed, "order", epoch)
    shuffled = draw.permutation(len(lengths))
    window = WINDOW_BATCHES * batch_size
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(shuffled), window):
        part = shuffled[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[at : at + batch_size] for at in range(0, len(part), batch_size)]
    return [batches[index] for index in draw.permutation(len(batches))]


def evaluation_order(lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """The rows of each batch, shortest first: every row once."""
    order = np.argsort(lengths, kind="stable")
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


def assemble(tokens: Tokens, rows: NDArray[np.int64]) -> Batch:
    """The batch of these rows."""
    lengths = tokens.lengths[rows]
    columns = np.arange(lengths.max())
    is_token = columns < lengths[:, None]
    places = np.where(is_token, tokens.offsets[rows][:, None] + columns, 0)
    ids = np.where(is_token, tokens.flat[places], tokens.pad_id)
    return Batch(
        rows,
        torch.from_numpy(ids.astype(np.int64)),
        torch.from_numpy(is_token.astype(np.int64)),
    )
