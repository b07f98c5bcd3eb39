"""A finished model's logits, computed once."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lora_distill.data.batches import Batch, Batches, evaluation_order
from lora_distill.progress import track

EVALUATION_TOKENS = 4096  # of a batch, so that long texts take no more memory than short ones

# Token ids, or what frozen layers gave for them, to logits, float32 [B, C].
Forward = Callable[[Batch], torch.Tensor]


def plain(model: nn.Module) -> Forward:
    """A sequence classification model as it is, in eval mode, in its own precision or that of an autocast around it."""
    model.eval()
    device = next(model.parameters()).device

    def forward(batch: Batch) -> torch.Tensor:
        batch = batch.to(device)
        return batch.pooled(model(**batch.inputs()).logits)

    return forward


@torch.inference_mode()
def predict_logits(forward: Forward, batches: Batches, stage: str = "") -> NDArray[np.float32]:
    """The logits of every row, float32 [N, C], in the rows' order.

    Args:
        forward: of one batch.
        batches: of N rows.
        stage: named in the progress line; empty shows none.
    """
    logits: NDArray[np.float32] | None = None
    lengths = batches.lengths
    with track(stage, len(lengths)) as advance:
        for rows in evaluation_order(lengths, EVALUATION_TOKENS):
            out = forward(batches.batch(rows)).cpu().numpy()
            if logits is None:
                logits = np.empty((len(lengths), out.shape[1]), np.float32)
            logits[rows] = out
            advance(len(rows))
    if logits is None:
        raise ValueError("no rows to predict")
    return logits
