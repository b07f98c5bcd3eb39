"""A finished model's logits, computed once."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lora_distill.data.batches import Batch, assemble, evaluation_order
from lora_distill.data.tokens import Tokens
from lora_distill.progress import track

EVALUATION_BATCH = 64


@torch.inference_mode()
def batch_logits(model: nn.Module, batch: Batch) -> NDArray[np.float32]:
    """The logits of B rows, float32 [B, C]; as in `predict_logits`."""
    model.eval()
    device = next(model.parameters()).device
    out = model(input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device)).logits
    logits: NDArray[np.float32] = out.float().cpu().numpy()
    return logits


def predict_logits(model: nn.Module, tokens: Tokens, stage: str = "") -> NDArray[np.float32]:
    """The logits of every row, float32 [N, C], in the rows' order.

    Args:
        model: a sequence classification model; put into eval mode. Its precision is the caller's: see
            `ExecutionPlan.autocast`; outside of it, the model's own.
        tokens: N rows.
        stage: named in the progress line; empty shows none.
    """
    logits: NDArray[np.float32] | None = None
    with track(stage, len(tokens)) as advance:
        for rows in evaluation_order(tokens.lengths, EVALUATION_BATCH):
            out = batch_logits(model, assemble(tokens, rows))
            if logits is None:
                logits = np.empty((len(tokens), out.shape[1]), np.float32)
            logits[rows] = out
            advance(len(rows))
    if logits is None:
        raise ValueError("no rows to predict")
    return logits
