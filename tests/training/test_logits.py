from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel

from lora_distill.data.tokenising import tokenise
from lora_distill.model.base import BaseModel
from lora_distill.training.logits import plain, predict_logits
from lora_distill.training.plan import ExecutionPlan
from lora_distill.training.recipe import Split


def test_logits_are_those_of_each_row_alone_in_the_rows_order(
    make_model: Callable[[], PeftModel], training_rows: Split
) -> None:
    model = make_model().train()  # dropout must be off all the same
    logits = predict_logits(plain(model), training_rows.rows)
    assert logits.dtype == np.float32
    assert logits.shape == (48, 2)
    with torch.no_grad():
        for row in range(len(training_rows.labels)):
            alone = model(**training_rows.rows.batch(np.array([row])).inputs()).logits
            assert logits[row] == pytest.approx(alone[0].numpy(), abs=1e-6)


def test_rows_of_several_chunks_have_the_mean_of_their_logits_in_any_precision(
    make_model: Callable[[], PeftModel], tiny_bert: BaseModel
) -> None:
    model = make_model()
    texts = ["rise and fall " * count for count in (1, 9, 30, 2)]
    tokens = tokenise(texts, tiny_bert.folder, 16, "chunk_mean")
    assert tokens.starts is not None
    chunks = predict_logits(plain(model), replace(tokens, starts=None))
    expected = np.add.reduceat(chunks, tokens.starts[:-1]) / np.diff(tokens.starts)[:, None]
    assert predict_logits(plain(model), tokens) == pytest.approx(expected, abs=1e-6)
    with ExecutionPlan("cpu", "bf16", 1).autocast():
        rounded = predict_logits(plain(model), replace(tokens, starts=None))
        expected = np.add.reduceat(rounded, tokens.starts[:-1]) / np.diff(tokens.starts)[:, None]
        assert predict_logits(plain(model), tokens) == pytest.approx(expected, abs=0.02)


def test_precision_is_the_callers(make_model: Callable[[], PeftModel], training_rows: Split) -> None:
    model = make_model()
    exact = predict_logits(plain(model), training_rows.rows)
    with ExecutionPlan("cpu", "bf16", 1).autocast():
        rounded = predict_logits(plain(model), training_rows.rows)
    assert not np.array_equal(exact, rounded)
    assert rounded == pytest.approx(exact, abs=0.05)
