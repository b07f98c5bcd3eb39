"""A base model cut to its first layers, saved as a base model of its own that plain transformers opens."""

import copy
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig

from lora_distill.data.wording import counted
from lora_distill.errors import UserError
from lora_distill.model.adapter import count_layers, layers_path
from lora_distill.model.base import BaseModel, encoder_files, resolve_base_model
from lora_distill.store import Artefact, read_json, write_json

# What a config.json says of each layer apart: ModernBERT's and Longformer's.
_BY_LAYER = ("layer_types", "attention_window")


def cut_base(base: BaseModel, depth: int | None, output_dir: Path) -> BaseModel:
    """The first layers of a base model, in a folder of its own that all runs beside each other share.

    Args:
        base: whole.
        depth: layers that are kept; None for all.
        output_dir: that the runs lie in.

    Raises:
        UserError: the model's weights cannot be told apart by layers.
    """
    if depth is None or depth == AutoConfig.from_pretrained(base.folder).num_hidden_layers:
        return base
    artefact = Artefact(output_dir, "base", {"whole": base.fingerprint, "depth": depth})
    if not artefact.finished:  # asked without the lock, for a finished run may lie where nothing can be written
        with artefact.lock():
            if not artefact.finished:
                with artefact.fill() as folder:
                    _write(base, depth, folder)
    cut = resolve_base_model(str(artefact.folder))
    return replace(cut, name=f"the first {counted(depth, 'layer')} of {base.name}", cut_from=base)


def cut_config(config: PreTrainedConfig, depth: int) -> PreTrainedConfig:
    """The config of the first layers of a model."""
    shorter = copy.deepcopy(config)
    for name, value in _changes(config, depth).items():
        setattr(shorter, name, value)
    return shorter


def _changes(config: PreTrainedConfig, depth: int) -> dict[str, Any]:
    lists = {name: value for name in _BY_LAYER if isinstance(value := getattr(config, name, None), list)}
    number = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    return {number: depth} | {name: value[:depth] for name, value in lists.items()}


def _write(base: BaseModel, depth: int, folder: Path) -> None:
    """All files as they are, but for the layers past the depth and what config.json says of them."""
    config = AutoConfig.from_pretrained(base.folder)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    path = layers_path(model).removeprefix(f"{model.base_model_prefix}.")
    weights: dict[str, torch.Tensor] = {}
    for file in encoder_files(base.folder):
        if file.suffix == ".safetensors":
            weights |= load_file(file)
        else:
            shutil.copyfile(file, folder / file.name)
    layer_of = {
        name: int(found[1]) for name in weights if (found := re.search(rf"(?:^|\.){re.escape(path)}\.(\d+)\.", name))
    }
    own, run = count_layers(model), config.num_hidden_layers
    if set(layer_of.values()) != set(range(own)) or own not in (1, run):
        raise UserError(
            f"--base_depth {depth}: the weights of {base.name} cannot be told apart by layers. Leave it out."
        )
    kept = {name: tensor for name, tensor in weights.items() if layer_of.get(name, 0) < depth}
    write_json(folder / "config.json", read_json(folder / "config.json") | _changes(config, depth))
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors lets nobody else read
