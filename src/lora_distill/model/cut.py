"""A base model cut to some of its layers, saved as a base model of its own that plain transformers opens."""

import copy
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig

from lora_distill.config import Config, Keep, Role
from lora_distill.data.wording import counted
from lora_distill.errors import UserError
from lora_distill.model.base import BaseModel, encoder_files, resolve_base_model
from lora_distill.model.layers import count_layers, layers_path
from lora_distill.store import Artefact, fingerprint, read_json, write_json

# What a config.json says of each layer apart: ModernBERT's and Longformer's.
_BY_LAYER = ("layer_types", "attention_window")


@dataclass(frozen=True)
class Cut:
    """Which layers a base model is cut to.

    Attributes:
        depth: how many; None for all.
        keep: the first, the last, or as evenly as can be from the first to the last ("spread").
        setting: that asks for it.
    """

    depth: int | None
    keep: Keep
    setting: str

    @classmethod
    def of(cls, config: Config, role: Role) -> "Cut":
        """What a config asks of a role's encoder; the control's is the student's."""
        if role != "teacher" and (config.student_depth or config.student_base_model):
            return cls(config.student_depth, config.student_keep, "student_depth")
        return cls(config.base_depth, "first", "base_depth")

    def layers(self, total: int) -> tuple[int, ...]:
        """Indices of the layers that are kept of so many."""
        depth = self.depth or total
        match self.keep:
            case "first":
                return tuple(range(depth))
            case "last":
                return tuple(range(total - depth, total))
            case "spread":
                return tuple(np.linspace(0, total - 1, depth).round().astype(int).tolist())


def cut_base(base: BaseModel, cut: Cut, output_dir: Path) -> BaseModel:
    """Some layers of a base model, in a folder of their own that all runs beside each other share.

    Args:
        base: whole.
        cut: which.
        output_dir: that the runs lie in.

    Raises:
        UserError: the model's weights cannot be told apart by layers.
    """
    total = AutoConfig.from_pretrained(base.folder).num_hidden_layers
    kept = cut.layers(total)
    if len(kept) == total:
        return base
    source = fingerprint(Path(__file__).read_text(encoding="utf-8"))
    artefact = Artefact(output_dir, "base", {"whole": base.fingerprint, "layers": kept, "source": source})
    if not artefact.finished:  # asked without the lock, for a finished run may lie where nothing can be written
        with artefact.lock():
            if not artefact.finished:
                with artefact.fill() as folder:
                    _write(base, cut, folder)
    found = resolve_base_model(str(artefact.folder))
    return replace(found, name=f"{_named(kept, total)} of {base.name}", cut_from=base, kept=kept)


def _named(kept: tuple[int, ...], total: int) -> str:
    for end, indices in (("first", range(len(kept))), ("last", range(total - len(kept), total))):
        if kept == tuple(indices):
            return f"the {end} {counted(len(kept), 'layer')}"
    *most, last = (str(index + 1) for index in kept)
    return f"layers {', '.join(most)} and {last}" if most else f"layer {last}"


def cut_config(config: PreTrainedConfig, cut: Cut) -> PreTrainedConfig:
    """The config of a model's kept layers."""
    shorter = copy.deepcopy(config)
    for name, value in _changes(config, cut.layers(config.num_hidden_layers)).items():
        try:
            setattr(shorter, name, value)
        except NotImplementedError:  # Funnel, whose layers are in blocks
            raise UserError(
                f"--{cut.setting} {cut.depth}: a {config.model_type} cannot be cut by layers. Leave it out."
            ) from None
    return shorter


def _changes(config: PreTrainedConfig, kept: tuple[int, ...]) -> dict[str, Any]:
    lists = {name: value for name in _BY_LAYER if isinstance(value := getattr(config, name, None), list)}
    number = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    return {number: len(kept)} | {name: [value[index] for index in kept] for name, value in lists.items()}


def _write(base: BaseModel, cut: Cut, folder: Path) -> None:
    """All files as they are, but for the layers that are left out and what config.json says of them."""
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
    layer = re.compile(rf"((?:^|.*\.){re.escape(path)}\.)(\d+)(\..*)")
    found = {name: match for name in weights if (match := layer.fullmatch(name))}
    own, run = count_layers(model), config.num_hidden_layers
    if {int(match[2]) for match in found.values()} != set(range(own)) or own not in (1, run):
        raise UserError(
            f"--{cut.setting} {cut.depth}: the weights of {base.name} cannot be told apart by layers. Leave it out."
        )
    kept = cut.layers(run)
    parts: dict[int, set[str]] = {}
    for match in found.values():
        parts.setdefault(int(match[2]), set()).add(match[3])
    place = {index: number for number, index in enumerate(kept if own == run else range(own))}
    for index, number in place.items():
        if parts[index] != parts[number]:  # ModernBERT's first layer has no norm before its attention
            raise UserError(
                f"--student_keep {cut.keep}: layer {index + 1} of {base.name} cannot take the place of layer"
                f" {number + 1}, which is built otherwise. Ask for first or spread."
            )
    taken = {
        f"{match[1]}{place[int(match[2])]}{match[3]}" if match else name: weights[name]
        for name in weights
        if (match := found.get(name)) is None or int(match[2]) in place
    }
    write_json(folder / "config.json", read_json(folder / "config.json") | _changes(config, kept))
    save_file(taken, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors lets nobody else read
