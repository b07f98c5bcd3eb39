"""A finished model's logits, computed once."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from lora_distill.data.batches import Batch, Batches, evaluation_order
from lora_distill.model.pooling import last_hidden, pool
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
        return batch.of_rows(model(**batch.inputs()).logits)

    return forward


def plain_pooled(model: PreTrainedModel | PeftModel) -> Forward:
    """The pooled vectors [B, H] of such a model, in place of its logits."""
    classifier: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
    answer = plain(model)

    def forward(batch: Batch) -> torch.Tensor:
        with last_hidden(classifier) as seen:
            answer(batch)
        batch = batch.to(seen[-1].device)
        return batch.of_rows(pool(classifier.config, seen[-1], batch.attention_mask))

    return forward


@torch.inference_mode()
def predict_logits(forward: Forward, batches: Batches, stage: str = "") -> NDArray[np.float32]:
    """The logits of every row, float32 [N, C], in the rows' order; or what else a forward gives, as pooled vectors.

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
