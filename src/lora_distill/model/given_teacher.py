"""A teacher that was trained elsewhere: a run's, a PEFT adapter or a whole classifier."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from lora_distill.data.wording import listing
from lora_distill.errors import UserError
from lora_distill.hub import fetch_model
from lora_distill.model.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LABELS_FILE
from lora_distill.model.base import (
    BaseModel,
    brief,
    encoder_files,
    hash_files,
    model_files,
    resolve_base_model,
)
from lora_distill.model.saved_adapter import load_adapter
from lora_distill.store import fingerprint, read_json

logger = logging.getLogger(__name__)
FLAG = "--teacher_checkpoint"
WHAT_WORKS = "Give the folder of a run, of a PEFT adapter or of a whole classifier, or a hub name of the latter two."


@dataclass(frozen=True)
class GivenTeacher:
    """A finished classifier with a backbone and a tokenizer of its own.

    Attributes:
        location: as the user gave it.
        reference: how it is found again: the hub's name, or the folder.
        revision: SHA of the hub's commit; None for a folder.
        folder: of the adapter or of the whole model.
        base: the adapter's base model; None for a whole model.
        labels: the teacher's own label names, in the order of its logits.
        columns: int64 [C], which of its logits belongs to each label of the data.
        matched_by_index: its labels have no names, so their order was taken for the data's.
        fingerprint: of all that its logits depend on.
    """

    location: str
    reference: str
    revision: str | None
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

    def recorded(self) -> dict[str, Any]:
        """For environment.json: enough to find this very teacher again; under `models`, what `has_changed` takes."""
        own = {
            "name": self.location,
            "kind": "hub" if self.revision else "folder",
            "reference": self.reference,
            "fingerprint": hash_files(encoder_files(self.folder)),
        }
        found = {name: getattr(self, name) for name in ("location", "reference", "revision", "fingerprint")}
        return found | {"models": [own, self.base.recorded()] if self.base else [own]}

    def load(self) -> nn.Module:
        """The model, frozen, in eval mode, fp32.

        Raises:
            UserError: its weights are not whole.
        """
        if self.base:
            adapter: nn.Module = load_adapter(self.base, self.labels, self.folder)
            return adapter
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                self.folder,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except Exception as error:  # a stranger's files break transformers in many ways
            raise UserError(f"{FLAG} {self.location}: cannot be loaded: {brief(error)}.") from error
        faults = [f"lack {name}" for name in sorted(info["missing_keys"])]
        faults += [f"hold {name} in another size than its config.json says" for name, *_ in info["mismatched_keys"]]
        if faults:
            raise UserError(
                f"{FLAG} {self.location}: its weights {faults[0]}; it is no finished classifier."
                " Give one that was trained on these labels."
            )
        if getattr(model.config, "pad_token_id", None) is None:  # decoders find a text's end by it
            model.config.pad_token_id = AutoTokenizer.from_pretrained(self.folder).pad_token_id
            if model.config.pad_token_id is None:
                raise UserError(
                    f"{FLAG} {self.location}: has no padding token, which batches need. Give its tokenizer one."
                )
        teacher: nn.Module = model.requires_grad_(False).eval()
        return teacher


def open_teacher(
    location: str, label_names: list[str] | None, label_map: Mapping[str, str], revision: str | None = None
) -> GivenTeacher:
    """Find a teacher and fit its labels to the data's, by name.

    Args:
        location: a run's folder, a PEFT adapter, a whole sequence classification model, or one on the hub.
        label_names: the data's, in the order of its classes; None takes the teacher's own.
        label_map: the teacher's names for the data's, where they differ.
        revision: of the hub; None is the main branch.

    Raises:
        UserError: there is none, or its labels do not fit.
    """
    folder, revision = _find(location, revision)
    if (folder / ADAPTER_CONFIG).is_file():
        base, labels = _read_adapter(location, folder)
        files = hash_files([folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS])
        contents = fingerprint([files, base.fingerprint, labels])
    elif (folder / "config.json").is_file():
        base, labels = None, _read_model(location, folder)
        contents = hash_files(model_files(f"{FLAG} {location}", folder, any_classifier=True))
    else:
        raise UserError(f"{FLAG} {location}: holds neither {ADAPTER_CONFIG} nor config.json. {WHAT_WORKS}")
    columns, by_index = match_labels(labels, labels if label_names is None else label_names, label_map)
    reference = location if revision else str(folder)
    return GivenTeacher(location, reference, revision, folder, base, labels, columns, by_index, contents)


def open_again(recorded: Mapping[str, Any], label_names: list[str], label_map: Mapping[str, str]) -> GivenTeacher:
    """The very teacher that a run was begun with.

    Args:
        recorded: `given_teacher` of the run's environment.json.
        label_names: as in `open_teacher`.
        label_map: as in `open_teacher`.

    Raises:
        UserError: it cannot be had, or has changed since.
    """
    teacher = open_teacher(recorded["reference"], label_names, label_map, recorded["revision"])
    if teacher.fingerprint != recorded["fingerprint"]:
        raise UserError(
            f"{FLAG} {recorded['reference']}: has changed since this run was begun with it.\n"
            "Put its files back, or train anew under another --exp_name."
        )
    return replace(teacher, location=recorded["location"])


def _find(location: str, revision: str | None) -> tuple[Path, str | None]:
    """The folder, and the hub's commit if it came from there."""
    try:
        path = Path(location).expanduser()
        is_folder, is_path = path.is_dir(), path.exists() or location.startswith((".", "/", "~"))
    except (OSError, RuntimeError) as error:  # a name too long, no access, no home
        raise UserError(f"{FLAG} {location[:80]}: cannot be read: {error}.") from None
    if is_folder and (path / "environment.json").is_file():
        path /= "teacher"
        if not (path / ADAPTER_CONFIG).is_file():
            raise UserError(
                f"{FLAG} {location}: this run holds no teacher of its own: it has not finished, was given one, or has"
                " several, in teacher/1 and so on.\nGive that one, one of several, or a finished run."
            )
    if is_folder:
        return path.resolve(), None
    if is_path:
        raise UserError(f"{FLAG} {location}: {'is a file' if path.exists() else 'no such folder'}. {WHAT_WORKS}")
    try:
        fetched = fetch_model(location, revision)
    except UserError as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{FLAG} {location}: no such folder, and the hub: {first}\n{WHAT_WORKS}") from None
    return fetched.folder, fetched.revision


def _read_adapter(location: str, folder: Path) -> tuple[BaseModel, list[str]]:
    """The base model of an adapter, and its label names."""
    settings = _read_mapping(location, folder / ADAPTER_CONFIG)
    if settings.get("task_type") != "SEQ_CLS":
        raise UserError(f"{FLAG} {location}: its task_type is {settings.get('task_type')!r}; a teacher needs SEQ_CLS.")
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="np") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{FLAG} {location}: its {ADAPTER_WEIGHTS} cannot be read: {error}. Save it with PEFT's save_pretrained."
        ) from None
    saved = _read_mapping(location, folder / LABELS_FILE) if (folder / LABELS_FILE).is_file() else {}
    trained_on = saved.get("base_model")
    try:
        if isinstance(trained_on, dict) and trained_on.get("kind") == "packaged":
            base = resolve_base_model(str(trained_on.get("name")))
        else:
            base = resolve_base_model(str(settings.get("base_model_name_or_path")), settings.get("revision"))
    except UserError as error:
        raise UserError(
            f"{FLAG} {location}: is an adapter, and the model that it was trained on cannot be had:\n"
            f"{str(error).splitlines()[0]}\n"
            f"Put that model back, or say where it lies as base_model_name_or_path in {ADAPTER_CONFIG}."
        ) from None
    if saved:
        try:
            return base, [str(saved["id2label"][str(index)]) for index in range(saved["num_labels"])]
        except (KeyError, TypeError):
            raise UserError(f"{FLAG} {location}: its {LABELS_FILE} holds no label names as id2label.") from None
    # A stranger's adapter: its number of classes is the height of its last layer, the least of the head's.
    heights = [shape[0] for name, shape in shapes.items() if re.search(r"(classifier|score|out_proj)\.weight$", name)]
    if not heights:
        raise UserError(f"{FLAG} {location}: the adapter holds no classification head. Save it with its head.")
    return base, [f"LABEL_{index}" for index in range(min(heights))]


def _read_mapping(location: str, file: Path) -> dict[str, Any]:
    try:
        read = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{FLAG} {location}: its {file.name} cannot be read: {error}.") from None
    if not isinstance(read, dict):
        raise UserError(f"{FLAG} {location}: its {file.name} holds no settings.")
    return read


def _read_model(location: str, folder: Path) -> list[str]:
    """The label names of a whole classifier."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a stranger's JSON breaks transformers in many ways
        raise UserError(f"{FLAG} {location}: its config.json cannot be used: {brief(error)}.") from None
    architectures = config.architectures or []
    if not any("ForSequenceClassification" in name for name in architectures):
        raise UserError(
            f"{FLAG} {location}: is a {', '.join(architectures) or 'model without a head'}, not a finished classifier."
            " Give one that was trained on these labels."
        )
    if config.problem_type not in (None, "single_label_classification"):
        raise UserError(
            f"{FLAG} {location}: its problem_type is {config.problem_type!r}, and a teacher gives each text one label."
            " Give one that was trained for that."
        )
    return [str(config.id2label.get(index, f"LABEL_{index}")) for index in range(config.num_labels)]


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
    both = f"The teacher's: {listing(theirs, 50)}. The data's: {listing(ours, 50)}."
    unknown = [name for name in label_map if name not in theirs] + [n for n in label_map.values() if n not in ours]
    if unknown:
        raise UserError(
            f"--teacher_label_map: {', '.join(map(repr, unknown))} is no such label.\n{both}\n"
            "Labels with commas: in a --config file, as teacher_label_map: {theirs: ours}."
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
        f"{FLAG}: the teacher has other labels than the data.\n{both}\nIf they mean the same, say so with"
        " --teacher_label_map theirs=ours,… or, in a --config file, teacher_label_map: {theirs: ours}."
    )


def check_order(given: GivenTeacher, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Refuse a teacher, its labels matched by their order, that does worse than the commonest class.

    Args:
        given: the teacher.
        logits: float32 [N, C], its own on the validation rows, in the data's order of labels.
        labels: int64 [N].

    Raises:
        UserError: it does worse.
    """
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    commonest = float(np.bincount(labels).max() / len(labels))
    if accuracy < commonest:
        raise UserError(
            f"{FLAG} {given.location}: its labels have no names, and in the data's order it gets {accuracy:.1%} of the"
            f" validation rows right, less than the commonest class ({commonest:.1%}).\n"
            "The order is wrong: say which is which with --teacher_label_map LABEL_0=…,LABEL_1=…"
        )
