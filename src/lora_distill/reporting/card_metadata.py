"""The metadata at the head of a model card, in the hub's fields."""

import re
from pathlib import PurePath
from typing import Any

from lora_distill.reporting.sentences import one_line


def card_metadata(role: str, results: dict[str, Any], base: dict[str, str], library: str | None) -> dict[str, Any]:
    """The hub's fields. What has no id on the hub is left out, and so is the licence, which is not known.

    Args:
        role: as the card's, and so are the next two.
        results: what metrics.json holds.
        base: of the base model.
        library: that opens a model that is no adapter, by the hub's name for it.
    """
    metadata: dict[str, Any] = {"pipeline_tag": "text-classification", "tags": ["lora-distill"]}
    if library:
        metadata["library_name"] = library
    if results[role]["trainable_parameters"] is not None:
        metadata.setdefault("library_name", "peft")
        metadata["tags"].append("lora")
        if base["kind"] == "hub":
            metadata["base_model"] = base["reference"]
            if library:
                metadata["base_model_relation"] = "finetune"
    if role == "student":
        metadata["tags"].append("knowledge-distillation")
    data, test = results["data"], results[role]["test"]
    dataset = {"name": one_line(data["name"]), "type": _slug(data["name"]), "split": "test"}
    if data["source"]["kind"] == "hub":
        repository, _, subset = data["source"]["location"].partition(":")
        metadata["datasets"] = [repository]
        dataset |= {"type": repository, "revision": data["source"]["revision"]}
        if subset:
            dataset["config"] = subset
    metrics = [
        {"type": "accuracy", "name": "Accuracy", "value": round(test["accuracy"], 6)},
        {"type": "f1", "name": "Macro F1", "value": round(test["macro_f1"], 6), "args": {"average": "macro"}},
    ]
    task = {"type": "text-classification", "name": "Text classification"}
    judged = {"task": task, "dataset": dataset, "metrics": metrics}
    metadata["model-index"] = [{"name": one_line(f"{results['exp_name']}-{role}"), "results": [judged]}]
    return metadata


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", PurePath(name).name) or "data"
