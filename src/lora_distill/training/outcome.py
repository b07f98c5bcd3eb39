"""What a role leaves behind, and by what it is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import peft
import scipy
import tokenizers
import torch
import transformers
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import lora_distill
from lora_distill.store import Artefact, fingerprint, read_json, read_jsonl, write_json, write_whole

LOGITS = "logits.safetensors"
POOLED = "pooled.safetensors"
FACTS = "facts.json"


@dataclass(frozen=True)
class Outcome:
    """A role's finished model, as what it left behind.

    Attributes:
        key: names all that made it.
        adapters: folders in PEFT's format, by their place in the role's folder: one, in "", or several; none of a
            teacher that was given as a whole model or a file.
        logits: float32 [N, C] of each split in the rows' order; of train and unlabelled only where another learns from
            them, of test only where it was to be judged on it.
        history: what history.jsonl holds of it.
        facts: parameters, seconds and the like, for metrics.json.
        reused: whether it was there already.
        runs: names of those that trained it; of several models, of any of them.
    """

    key: str
    adapters: dict[str, Path]
    logits: dict[str, NDArray[np.float32]]
    history: list[dict[str, Any]]
    facts: dict[str, Any]
    reused: bool
    runs: frozenset[str] = frozenset()


def read_outcome(artefact: Artefact, *, reused: bool) -> Outcome:
    """A finished artefact's contents."""
    folder = artefact.folder
    facts = read_json(folder / FACTS)
    runs = frozenset([facts.pop("run", "")])
    return Outcome(
        key=artefact.key,
        adapters={"": folder / "adapter"} if (folder / "adapter").is_dir() else {},
        logits=load_file(folder / LOGITS),
        history=read_jsonl(folder / "history.jsonl"),
        facts=facts,
        reused=reused,
        runs=runs,
    )


def write_facts(folder: Path, facts: Mapping[str, Any], run: str) -> None:
    """Write what is known of a model, with the run that made it: when that is resumed, it reuses nobody else's work."""
    write_json(folder / FACTS, {**facts, "run": run})


def answered(artefact: Artefact) -> set[str]:
    """The splits of which a finished artefact holds logits."""
    with safe_open(artefact.folder / LOGITS, framework="numpy") as file:
        return set(file.keys())


def add_logits(artefact: Artefact, logits: dict[str, NDArray[np.float32]]) -> None:
    """Put those of some splits into a finished artefact that was made without them."""
    path = artefact.folder / LOGITS
    together = load_file(path) | logits
    write_whole(path, lambda beside: save_file(together, beside))


def is_pooled(artefact: Artefact) -> bool:
    """Whether a finished artefact holds pooled vectors."""
    return (artefact.folder / POOLED).is_file()


def add_pooled(artefact: Artefact, vectors: dict[str, NDArray[np.float32]]) -> None:
    """Put pooled vectors, float32 [N, H] of each split that another learns from, into a finished artefact."""
    write_whole(artefact.folder / POOLED, lambda beside: save_file(vectors, beside))


def read_pooled(artefact: Artefact) -> dict[str, NDArray[np.float32]]:
    """Those of a finished artefact."""
    return load_file(artefact.folder / POOLED)


def versions() -> dict[str, str]:
    """Of all code that decides the bits of a result."""
    modules = (lora_distill, np, peft, scipy, tokenizers, torch, transformers)
    return {module.__name__: module.__version__ for module in modules} | {"source": _source()}


@cache
def _source() -> str:
    """Of the code that decides the bits: a clone changes between two versions of the package."""
    root = Path(lora_distill.__file__).parent
    files = [root / "seeding.py", root / "evaluation" / "calibration.py"]
    files += [file for part in ("data", "model", "training") for file in sorted((root / part).rglob("*.py"))]
    return fingerprint({str(file.relative_to(root)): file.read_text(encoding="utf-8") for file in files})
