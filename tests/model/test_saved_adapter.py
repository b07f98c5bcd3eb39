"""Adapters that strangers made: whole, or refused. What we save and load ourselves: test_adapter.py."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from lora_distill.deployment.classifier import Classifier
from lora_distill.errors import UserError
from lora_distill.model.base import BaseModel, resolve_base_model
from lora_distill.model.saved_adapter import load_adapter
from tests.tiny import tiny_model

Tiny = Callable[[str], Path]
LABELS = ["up", "down", "level"]


def plain_adapter(base: Path, folder: Path, targets: list[str], head: list[str] | None = None) -> Path:
    """What a user of plain PEFT saves."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(LABELS))
    settings = LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=targets, modules_to_save=head, init_lora_weights=False
    )
    get_peft_model(model, settings).save_pretrained(folder)
    return folder


def base_of(folder: Path) -> BaseModel:
    return resolve_base_model(str(folder))


def test_a_plain_adapter_gives_the_logits_that_plain_peft_gives(tiny: Tiny, tmp_path: Path) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(tiny("roberta"), num_labels=len(LABELS))
    settings = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights=False)
    theirs = get_peft_model(base, settings).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_adapter(base_of(tiny("roberta")), LABELS, tmp_path)
    ids = torch.arange(5, 25)[None]
    assert torch.equal(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)


def test_a_freshly_drawn_layer_that_was_not_saved_would_answer_at_random(tmp_path: Path) -> None:
    # PEFT saves `classifier` unasked, but not the pooler that this BERT's checkpoint lacks.
    base = tiny_model("bert", tmp_path / "bert", layers=2, pooler=False)
    folder = plain_adapter(base, tmp_path / "lacking", ["query", "value"])
    with pytest.raises(UserError, match=r"lacks bert\.pooler\.dense\.\w+.*random\.\n.*modules_to_save"):
        load_adapter(base_of(base), LABELS, folder)
    whole = plain_adapter(base, tmp_path / "whole", ["query", "value"], ["bert.pooler", "classifier"])
    load_adapter(base_of(base), LABELS, whole)


def test_lora_weights_that_are_missing_or_have_no_place(tiny: Tiny, tmp_path: Path) -> None:
    folder = plain_adapter(tiny("roberta"), tmp_path / "adapter", ["query", "value"])
    shallow = base_of(tiny_model("roberta", tmp_path / "shallow", layers=2))
    with pytest.raises(UserError, match=r"holds roberta\.encoder\.layer\.2\..*has no place"):
        load_adapter(shallow, LABELS, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    del weights["base_model.model.roberta.encoder.layer.1.attention.self.query.lora_B.weight"]
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"lacks roberta\.encoder\.layer\.1\..*lora_B"):
        load_adapter(base_of(tiny("roberta")), LABELS, folder)


def test_an_adapter_of_another_width_or_another_family(tiny: Tiny, tmp_path: Path) -> None:
    folder = plain_adapter(tiny("roberta"), tmp_path / "adapter", ["query", "value"])
    wide = base_of(tiny_model("roberta", tmp_path / "wide", hidden=64))
    for base in (wide, base_of(tiny("distilbert"))):
        with pytest.raises(UserError, match="does not fit its base model") as error:
            load_adapter(base, LABELS, folder)
        assert len(str(error.value).splitlines()) <= 3


def test_a_config_that_peft_does_not_know(tiny: Tiny, tmp_path: Path) -> None:
    folder = plain_adapter(tiny("roberta"), tmp_path / "adapter", ["query", "value"])
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "TELEPATHY"}))
    with pytest.raises(UserError, match="does not fit"):
        load_adapter(base_of(tiny("roberta")), LABELS, folder)


@pytest.mark.parametrize(
    "settings",
    [
        LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], bias="all"),
        PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3),
        PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3),
    ],
    ids=["bias", "prefix", "prompt"],
)
def test_adapters_of_other_kinds(settings: PeftConfig, tiny: Tiny, tmp_path: Path) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(tiny("bert"), num_labels=len(LABELS))
    theirs = get_peft_model(base, settings).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_adapter(base_of(tiny("bert")), LABELS, tmp_path)
    assert not any(p.requires_grad for p in ours.parameters())
    ids = torch.arange(5, 25)[None]
    asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(ours(**asked).logits, theirs(**asked).logits)
    shutil.copytree(tiny("bert"), tmp_path, dirs_exist_ok=True, ignore=lambda *_: ["config.json", "model.safetensors"])
    assert Classifier.load(tmp_path).logits(["a text"]).shape == (1, len(LABELS))
