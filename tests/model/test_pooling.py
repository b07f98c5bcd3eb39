"""The pooled vector is what the head reads, in every family, lean or not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel, XLNetConfig

from lora_distill.data.batches import Batch
from lora_distill.errors import UserError
from lora_distill.model.layers import FAMILIES as KNOWN
from lora_distill.model.pooling import check_pools
from lora_distill.training.logits import plain_pooled
from tests.model.test_split import LEAN, assert_close, batch_of, settings, split
from tests.tiny import FAMILIES

Tiny = Callable[[str], Path]


def what_the_head_reads(classifier: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """[B, H]: the input of the first module after the last layer that mixes a vector's elements."""
    pooler = getattr(classifier.base_model, "pooler", None)
    outside = [each for name, each in classifier.named_children() if name != classifier.base_model_prefix]
    first = pooler or next(each for each in outside if any(True for _ in each.parameters()))
    read: list[torch.Tensor] = []
    hook = first.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    classifier(**batch.inputs())
    hook.remove()
    return read[0][:, 0] if read[0].ndim == 3 else read[0]


def check(folder: Path, *, lean: bool) -> None:
    batch = batch_of(folder)
    network = split(folder, settings(), lean=lean)
    network.eval()
    expected = what_the_head_reads(network.classifier, batch)
    logits, pooled = network.logits_and_pooled(batch)
    assert pooled.dtype == torch.float32
    assert_close(pooled, expected)
    assert_close(logits, network.logits(batch))
    assert_close(plain_pooled(network.model)(batch), expected)
    assert_close(gradient_of(pooled, network.model), gradient_of(expected, network.model))


def gradient_of(vectors: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """That of the first layer's LoRA."""
    (up,) = [p for name, p in model.named_parameters() if "lora_B" in name][:1]
    weights = torch.linspace(-1, 1, vectors.numel()).view_as(vectors)
    return torch.autograd.grad((vectors * weights).sum(), up)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_the_head_reads(family: str, tiny: Tiny) -> None:
    assert family in KNOWN
    check_pools(AutoConfig.from_pretrained(tiny(family)))
    check(tiny(family), lean=False)
    if family in LEAN:
        check(tiny(family), lean=True)


def test_it_is_the_mean_where_modernbert_s_head_reads_that(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny("modernbert"), tmp_path / "mean")
    file = tmp_path / "mean" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"classifier_pooling": "mean"}))
    check(tmp_path / "mean", lean=False)


def test_a_family_whose_head_reads_something_unknown_is_refused() -> None:
    with pytest.raises(UserError, match=r"--pooled_weight: which vector the head of xlnet reads"):
        check_pools(XLNetConfig())
