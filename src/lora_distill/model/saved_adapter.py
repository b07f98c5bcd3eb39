"""Adapters on disk, in PEFT's own format, so that plain transformers and PEFT open them without us."""

import json
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoTokenizer

from lora_distill.errors import UserError
from lora_distill.model.adapter import load_classifier
from lora_distill.model.adapter_files import ADAPTER_WEIGHTS, LABELS_FILE
from lora_distill.model.base import BaseModel, brief


def save_adapter(model: PeftModel, base: BaseModel, label_names: list[str], folder: Path) -> None:
    """Write adapter and head in PEFT's format, the tokenizer, and the label names with the base's revision."""
    settings = model.peft_config["default"]
    settings.base_model_name_or_path = base.reference
    settings.revision = base.revision if base.kind == "hub" else None
    # PEFT keeps these as sets or with repeats; sorted, the same adapter is the same file.
    settings.target_modules = sorted(settings.target_modules)
    settings.modules_to_save = sorted(set(settings.modules_to_save))
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    AutoTokenizer.from_pretrained(base.folder).save_pretrained(folder)
    labels: dict[str, Any] = {
        "num_labels": len(label_names),
        "id2label": {str(index): name for index, name in enumerate(label_names)},
        "base_model": {"name": base.name, "kind": base.kind, "revision": base.revision},
    }
    text = json.dumps(labels, indent=2, ensure_ascii=False) + "\n"
    (folder / LABELS_FILE).write_text(text, encoding="utf-8")


def load_adapter(base: BaseModel, label_names: list[str], folder: Path) -> PeftModel:
    """The adapter and head of a folder on their base model, frozen, in eval mode, fp32.

    Raises:
        UserError: the adapter does not fit the base model, or leaves a part of the classifier to chance.
    """
    classifier = load_classifier(base, label_names, seed=0, keeps_head=True)
    try:
        # PEFT would read the weights onto an accelerator, if the machine has one.
        model = PeftModel.from_pretrained(classifier.model, folder, torch_device="cpu")
    except Exception as error:  # a stranger's files break PEFT in many ways
        raise UserError(f"adapter {folder}: does not fit its base model {base.name}: {brief(error)}.") from error
    _check_complete(model, classifier.fresh, base, folder)
    model.requires_grad_(requires_grad=False)  # of some kinds of adapters PEFT leaves biases or prompts to be trained
    return model.eval()


def _check_complete(model: PeftModel, fresh: frozenset[str], base: BaseModel, folder: Path) -> None:
    """PEFT says nothing where adapter and model do not cover each other; such a model answers at random."""
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
        saved = set(map(_own_name, file.keys()))
    wanted = set(map(_own_name, get_peft_model_state_dict(model, save_embedding_layers=False)))
    lacking = sorted((wanted | fresh) - saved)
    if lacking:
        raise UserError(
            f"adapter {folder}: lacks {lacking[0]}, which its base model {base.name} does not bring either: it would"
            " answer at random.\nTrain it with that in modules_to_save, or give a whole classifier."
        )
    strays = sorted(name for name in saved - wanted if "lora_" in name)
    if strays:
        raise UserError(f"adapter {folder}: holds {strays[0]}, for which its base model {base.name} has no place.")


def _own_name(name: str) -> str:
    """A weight's name without what PEFT puts before it: of adapters that are prompts it is less."""
    return name.removeprefix("base_model.").removeprefix("model.")
