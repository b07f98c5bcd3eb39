"""A teacher that was trained elsewhere: a run's, a PEFT adapter or a whole classifier."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from lora_distill.errors import UserError
from lora_distill.hub import Unavailable, fetch_model
from lora_distill.model.base import BaseModel, hash_files, resolve_base_model
from lora_distill.model.saved_adapter import LABELS_FILE, load_adapter
from lora_distill.store import fingerprint

logger = logging.getLogger(__name__)
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FLAG = "--teacher_checkpoint"


@dataclass(frozen=True)
class GivenTeacher:
    """A finished classifier with a backbone and a tokenizer of its own.

    Attributes:
        location: as the user gave it.
        folder: of the adapter or of the whole model.
        base: the adapter's base model; None for a whole model.
        labels: the teacher's own label names, in the order of its logits.
        columns: int64 [C], which of its logits belongs to each label of the data.
        matched_by_index: its labels have no names, so their order was taken for the data's.
        fingerprint: of its weights.
    """

    location: str
    folder: Path
    base: BaseModel | None
    labels: list[str]
    columns: NDArray[np.int64]
    matched_by_index: bool
    fingerprint: str

    @property
    def tokenizer_folder(self) -> Path:
        """Where its tokenizer lies."""
        return self.base.folder if self.base else self.folder

    def load(self) -> nn.Module:
        """The model, frozen, in eval mode, fp32."""
        if self.base:
            adapter: nn.Module = load_adapter(self.base, self.labels, self.folder)
            return adapter
        model, info = AutoModelForSequenceClassification.from_pretrained(
            self.folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        if info["missing_keys"]:
            raise UserError(
                f"{FLAG} {self.location}: its weights lack {sorted(info['missing_keys'])[0]}; it is no finished"
                " classifier. Give one that was trained on these labels."
            )
        teacher: nn.Module = model.requires_grad_(False).eval()
        return teacher


def open_teacher(location: str, label_names: list[str], label_map: Mapping[str, str]) -> GivenTeacher:
    """Find a teacher and fit its labels to the data's, by name.

    Args:
        location: a run's folder, a PEFT adapter, a whole sequence classification model, or one on the hub.
        label_names: the data's, in the order of its classes.
        label_map: the teacher's names for the data's, where they differ.

    Raises:
        UserError: there is none, or its labels do not fit.
    """
    folder = _find(location)
    if (folder / ADAPTER_CONFIG).is_file():
        base, labels = _read_adapter(location, folder)
        weights = fingerprint([hash_files([folder / ADAPTER_WEIGHTS]), base.fingerprint])
    elif (folder / "config.json").is_file():
        base, labels = None, _read_model(location, folder)
        weights = hash_files(sorted(folder.glob("*.safetensors")))
    else:
        raise UserError(
            f"{FLAG} {location}: holds neither {ADAPTER_CONFIG} nor config.json."
            " Give a run's folder, a PEFT adapter or a whole classifier."
        )
    columns, by_index = match_labels(labels, label_names, label_map)
    return GivenTeacher(location, folder, base, labels, columns, by_index, weights)


def _find(location: str) -> Path:
    path = Path(location).expanduser()
    if path.is_dir():
        if (path / "environment.json").is_file():
            if not (path / "teacher" / ADAPTER_CONFIG).is_file():
                raise UserError(f"{FLAG} {location}: this run holds no teacher adapter; it may not have finished.")
            return path / "teacher"
        return path
    try:
        return Path(fetch_model(location).folder)
    except Unavailable as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{FLAG} {location}: no such folder, and the hub has not given it either: {first}") from None


def _read_adapter(location: str, folder: Path) -> tuple[BaseModel, list[str]]:
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if settings.get("task_type") != "SEQ_CLS":
        raise UserError(f"{FLAG} {location}: its task_type is {settings.get('task_type')!r}; a teacher needs SEQ_CLS.")
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="np") as weights:
            heads = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{FLAG} {location}: {ADAPTER_WEIGHTS} cannot be read: {error}.") from None
    named = folder / LABELS_FILE
    saved = json.loads(named.read_text(encoding="utf-8")) if named.is_file() else {}
    base_name = settings["base_model_name_or_path"]
    if saved.get("base_model", {}).get("kind") == "packaged":
        base_name = saved["base_model"]["name"]
    base = resolve_base_model(base_name, settings.get("revision"))
    if saved:
        return base, [saved["id2label"][str(index)] for index in range(saved["num_labels"])]
    # A stranger's adapter: its number of classes is its last layer's width, the layer without LoRA that is not square.
    widths = [shape[0] for name, shape in heads.items() if re.search(r"(classifier|score|out_proj)\.weight$", name)]
    if not widths:
        raise UserError(f"{FLAG} {location}: the adapter holds no classification head. Save it with its head.")
    return base, [f"LABEL_{index}" for index in range(min(widths))]


def _read_model(location: str, folder: Path) -> list[str]:
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{FLAG} {location}: config.json cannot be read: {str(error).splitlines()[0]}") from None
    architectures = config.architectures or []
    if not any("ForSequenceClassification" in name for name in architectures):
        raise UserError(
            f"{FLAG} {location}: is a {', '.join(architectures) or 'model without a head'}, not a finished classifier."
            " Give one that was trained on these labels."
        )
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"{FLAG} {location}: has no weights in safetensors. Save it with save_pretrained again.")
    return [config.id2label[index] for index in range(config.num_labels)]


def match_labels(theirs: list[str], ours: list[str], label_map: Mapping[str, str]) -> tuple[NDArray[np.int64], bool]:
    """Which of the teacher's logits belongs to each of the data's labels.

    Args:
        theirs: the teacher's label names in the order of its logits.
        ours: the data's.
        label_map: theirs to ours, for those that differ.

    Returns:
        int64 [C], and whether the order had to be trusted because the teacher's labels have no names.

    Raises:
        UserError: they do not fit, or the map names labels that are not there.
    """
    unknown = [name for name in label_map if name not in theirs] + [n for n in label_map.values() if n not in ours]
    if unknown:
        raise UserError(
            f"--teacher_label_map: {', '.join(map(repr, unknown))} is no such label.\n"
            f"The teacher's: {', '.join(theirs)}. The data's: {', '.join(ours)}."
        )
    renamed = [label_map.get(name, name) for name in theirs]
    for fold in (str, str.casefold):
        if sorted(map(fold, renamed)) == sorted(map(fold, ours)) and len({*map(fold, ours)}) == len(ours):
            places = {fold(name): place for place, name in enumerate(renamed)}
            return np.array([places[fold(name)] for name in ours], dtype=np.int64), False
    if len(theirs) == len(ours) and all(re.fullmatch(r"LABEL_\d+", name) for name in renamed):
        pairs = ", ".join(f"{their} = {our}" for their, our in zip(theirs, ours, strict=True))
        logger.warning("the teacher's labels have no names and were taken in the data's order: %s", pairs)
        return np.arange(len(ours)), True
    raise UserError(
        f"the teacher has other labels than the data.\nThe teacher's: {', '.join(theirs)}. The data's:"
        f" {', '.join(ours)}.\nIf they mean the same, say so with --teacher_label_map theirs=ours,theirs=ours."
    )


def check_order(given: GivenTeacher, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Refuse a teacher whose labels were matched by their order when it does worse than the commonest class.

    Args:
        given: the teacher.
        logits: float32 [N, C], its own on the validation rows, in the data's order of labels.
        labels: int64 [N].

    Raises:
        UserError: it does worse.
    """
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    commonest = float(np.bincount(labels).max() / len(labels))
    if given.matched_by_index and accuracy < commonest:
        raise UserError(
            f"{FLAG} {given.location}: its labels have no names, and in the data's order it gets {accuracy:.1%} of the"
            f" validation rows right, less than the commonest class ({commonest:.1%}).\n"
            "The order is wrong: say which is which with --teacher_label_map LABEL_0=…,LABEL_1=…"
        )
