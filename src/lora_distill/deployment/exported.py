"""An exported model, read without torch: onnxruntime, tokenizers and numpy are all that it takes."""

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from lora_distill.data.long_text import LongText
from lora_distill.data.reading import Reading, Tokeniser
from lora_distill.data.tokens import TYPES
from lora_distill.deployment.engine import Engine, Forward
from lora_distill.deployment.forms import ADAPTER, CLASSIFIER, MERGED, ONNX_FILES
from lora_distill.errors import UserError
from lora_distill.store import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A run of a graph costs as much as so many tokens before it reads any, with MiniLM in eight bits.
MOST_PADDING = 16


@dataclass(frozen=True)
class Opened:
    """A model that is ready to answer.

    Attributes:
        about: what it says of itself, in the keys of classifier.json.
        tokeniser: reads texts for it.
        engine: answers for it.
        files: all that its answers depend on.
    """

    about: dict[str, Any]
    tokeniser: Tokeniser
    engine: Engine
    files: list[Path]


def about_model(
    form: str, labels: list[str], reading: Reading, base_model: str, role: str, results: Mapping[str, Any]
) -> dict[str, Any]:
    """What classifier.json says of a finished run's model: how it answers, and what it was made from.

    Args:
        form: of its files.
        labels: in the order of its logits.
        reading: how it reads texts.
        base_model: its name.
        role: of the run's models.
        results: what the run's metrics.json holds.
    """
    facts = results[role]
    metrics = {name: facts["test"][name] for name in ("rows", "accuracy", "macro_f1", "nll", "ece")}
    return {
        "form": form,
        "labels": labels,
        **asdict(reading),
        "temperature": facts["temperature_scaling"]["temperature"],
        "made_from": {"run": results["exp_name"], "role": role, "base_model": base_model, "metrics": metrics},
    }


def read_about(folder: Path) -> dict[str, Any]:
    """The classifier.json of an exported folder, or of an adapter that a run left.

    Raises:
        UserError: it is damaged.
    """
    try:
        about: dict[str, Any] = read_json(folder / CLASSIFIER)
        faults = [
            name
            for name, is_whole in {
                "form": about["form"] in {ADAPTER, MERGED, *ONNX_FILES},
                "labels": _are_labels(about["labels"]),
                "max_length": type(about["max_length"]) is int and about["max_length"] > 0,
                "long_text": about["long_text"] in get_args(LongText),
                "pairs": about["pairs"] is False or (about["pairs"] is True and about["long_text"] == "truncate"),
                "segments": about["segments"] is False or (about["segments"] is True and about["pairs"]),
                "temperature": float(about["temperature"]) > 0,
                "made_from": isinstance(about.get("made_from", {}), dict),
            }.items()
            if not is_whole
        ]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise damaged(folder, CLASSIFIER, error) from None
    if faults:
        raise damaged(folder, CLASSIFIER, f"{faults[0]} is {json.dumps(about[faults[0]])}")
    return about


def _are_labels(value: object) -> bool:
    names = value if isinstance(value, list) else []
    return len(set(map(str, names))) == len(names) > 1 and all(isinstance(name, str) for name in names)


def open_onnx(folder: Path, about: Mapping[str, Any], threads: int) -> Opened:
    """Open an exported ONNX model.

    Args:
        folder: with tokenizer.json, config.json and the graph.
        about: its classifier.json.
        threads: that compute.

    Raises:
        UserError: a file of it is missing or damaged, or onnxruntime is not installed.
    """
    file = ONNX_FILES[about["form"]]
    reading = Reading(**{field.name: about[field.name] for field in fields(Reading)})
    engine = open_engine(folder, file, about["labels"], threads, segments=reading.segments)
    tokeniser = Tokeniser(_read_tokenizer(folder), reading, _read_pad_id(folder))
    files = [folder / name for name in (CLASSIFIER, "tokenizer.json", "config.json")]
    files += sorted((folder / file).parent.glob(f"{Path(file).name}*"))  # a large one's weights lie beside it
    return Opened(dict(about), tokeniser, engine, files)


def open_engine(folder: Path, file: str, labels: list[str], threads: int, *, segments: bool) -> Engine:
    """Open the graph alone of an ONNX model, to be asked for any number of texts. All else as `open_graph`."""
    graph = partial(open_graph, folder, file, labels, segments=segments)
    beside = graph(1)
    forward = _when_asked(lambda: graph(threads), folder / file, beside) if threads > 1 else beside
    return Engine(forward, beside, threads, MOST_PADDING, len(labels))


def _when_asked(open_: Callable[[], Forward], file: Path, instead: Forward) -> Forward:
    """What this opens, opened once, when it is first asked: who has many batches at once needs no weights twice.

    Args:
        open_: opens the file.
        file: as it is now; another one that takes its place later is not opened.
        instead: answers where it can no longer be opened.
    """
    was, opening = _identity(file), threading.Lock()
    opened: list[Forward] = []

    def forward(given: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        with opening:
            if not opened:
                try:
                    opened.append(open_() if _identity(file) == was else instead)
                except (OSError, UserError):
                    opened.append(instead)
        return opened[0](given)

    return forward


def _identity(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def damaged(folder: Path, name: str, reason: object) -> UserError:
    """The refusal of a model one of whose files cannot be what was exported."""
    told = f"{type(reason).__name__}: {reason}" if isinstance(reason, LookupError) else str(reason)
    return UserError(
        f"model {folder}: its {name} is missing or damaged: {' '.join(told.split())[:200]}.\nExport it again."
    )


def _read_tokenizer(folder: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises nothing more special
        raise damaged(folder, "tokenizer.json", error) from None


def _read_pad_id(folder: Path) -> int:
    """The model's own, by which RoBERTa and its kin count positions."""
    try:
        return int(read_json(folder / "config.json").get("pad_token_id") or 0)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise damaged(folder, "config.json", error) from None


def open_graph(folder: Path, file: str, labels: list[str], threads: int, *, segments: bool) -> Forward:
    """Open the graph alone of an ONNX model.

    Args:
        folder: its own.
        file: the graph in it.
        labels: that it should have logits for.
        threads: that compute.
        segments: whether it must ask which text of a pair a token is of.

    Raises:
        UserError: the file is missing, damaged or another model's, or onnxruntime is not installed.
    """
    # It counts its uses and sends that to its maker; a text's classifier tells nobody anything.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError(
            f"model {folder}: needs the package onnxruntime, which is not installed.\n"
            "Install it: pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # a plan of memory for each shape, where hardly two batches have the same
    # Threads that wait for each other spin; behind a batch they would take a core from whatever else there is to do.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a broken file breaks it in many ways
        raise damaged(folder, file, error) from None
    names = [each.name for each in session.get_inputs()]
    if segments and TYPES not in names:
        raise damaged(folder, file, f"it does not ask for {TYPES}")
    strange = set(names) - {"input_ids", "attention_mask", TYPES}
    if strange:
        raise damaged(folder, file, f"it asks for {', '.join(sorted(strange))}")
    classes = session.get_outputs()[0].shape[-1]
    if isinstance(classes, int) and classes != len(labels):
        raise damaged(folder, file, f"it gives {classes} logits for {len(labels)} labels")

    def forward(given: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        feed = {name: given[name] if name in given else np.zeros_like(given["input_ids"]) for name in names}
        logits: NDArray[np.float32] = session.run(["logits"], feed)[0]
        return logits

    return forward
