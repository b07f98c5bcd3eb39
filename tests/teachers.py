"""Finished classifiers as strangers leave them: plain transformers, plain PEFT, nothing of ours."""

from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from tests.end_to_end.conftest import WORDS

STEPS, ROWS_IN_A_STEP = 150, 24


def train_whole(base: Path, folder: Path, topics: list[str], names: list[str] | None = None) -> Path:
    """Train a whole classifier of the words of `WORDS` and save it with its tokenizer.

    Args:
        base: the encoder.
        folder: to save it in.
        topics: keys of WORDS in the order of the logits.
        names: what config.json calls them; None leaves LABEL_0 and so on.
    """
    model = _with_head(base, topics)
    if names:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: index for index, name in enumerate(names)}
    _train(model, base, topics, 3e-3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def train_adapter(base: Path, folder: Path, topics: list[str], targets: list[str]) -> Path:
    """Train a LoRA adapter of the words of `WORDS` and save it, as PEFT does: without names of labels."""
    settings = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=targets)
    model = get_peft_model(_with_head(base, topics), settings)
    _train(model, base, topics, 1e-2)
    model.save_pretrained(folder)
    return folder


def _with_head(base: Path, topics: list[str]) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(topics))
    return model


def _train(model: torch.nn.Module, base: Path, topics: list[str], rate: float) -> None:
    tokenizer, draw = AutoTokenizer.from_pretrained(base), np.random.default_rng(0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    model.train()
    for _ in range(STEPS):
        labels = draw.integers(0, len(topics), ROWS_IN_A_STEP)
        texts = [" ".join(draw.choice(WORDS[topics[label]], size=draw.integers(3, 12))) for label in labels]
        loss = model(**tokenizer(texts, padding=True, return_tensors="pt"), labels=torch.from_numpy(labels)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
