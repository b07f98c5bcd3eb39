"""Models that answer through torch: a run's, an adapter, or a whole classifier."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn

from lora_distill.config import ROLES, Role
from lora_distill.data.reading import Reading, Tokeniser
from lora_distill.data.tokenising import most_tokens, tokeniser_of
from lora_distill.deployment.engine import Engine, Forward
from lora_distill.deployment.exported import Opened, about_model, damaged
from lora_distill.deployment.finished import open_role
from lora_distill.deployment.forms import ADAPTER, CLASSIFIER, MERGED
from lora_distill.errors import UserError
from lora_distill.model.adapter_files import ADAPTER_CONFIG
from lora_distill.model.base import encoder_files
from lora_distill.model.given_teacher import FLAG, open_teacher
from lora_distill.processors import cores
from lora_distill.run_folder import ENVIRONMENT, METRICS, RunFolder

# Beginning a batch costs more than a run of a graph does.
MOST_PADDING = 64
TOKENS_IF_UNLIMITED = 512


def open_with_torch(folder: Path, about: Mapping[str, Any] | None, threads: int | None) -> Opened:
    """Open what is no ONNX model.

    Args:
        folder: a run's, that of one of its roles, an adapter's or a whole classifier's.
        about: the classifier.json of the folder, if it has one.
        threads: that compute, in all that this process does with torch; as torch has them if None, but no more than
            there are cores for this process.

    Raises:
        UserError: there is no model, or it cannot be used.
    """
    torch.set_num_threads(threads or min(torch.get_num_threads(), cores()))
    run, parent = RunFolder(folder), RunFolder(folder.resolve().parent)
    if run.begun:
        return _open_role(run, "student")
    role = folder.resolve().name
    if role in ROLES and parent.begun and (folder / ADAPTER_CONFIG).is_file():
        return _open_role(parent, role)
    return _open_given(folder, about)


def _open_role(run: RunFolder, role: Role) -> Opened:
    results, environment = run.results(), run.environment()
    opened = open_role(run, role)
    given = environment.get("given_teacher") if role == "teacher" else None
    base = given or environment["base_model" if role == "teacher" else "student_base_model"]
    tokeniser, labels = opened.tokeniser, results["data"]["label_names"]
    about = about_model("run", labels, tokeniser.reading, base["name"], role, results)
    about["made_with"] = {"versions": environment["versions"]}
    # What the role was begun with has its fingerprint in the environment, and was compared with that.
    files = [run.path / ENVIRONMENT, run.path / METRICS, *([] if given else encoder_files(run.path / role))]
    return _open(about, opened.merged(), tokeniser, opened.columns, files)


def _open_given(folder: Path, about: Mapping[str, Any] | None) -> Opened:
    """An adapter or a whole classifier that lies by itself, checked as a teacher from elsewhere is.

    Of one that says nothing of itself, as no classifier.json lies there, nothing is known: it reads the beginnings of
    single texts.
    """
    try:
        given = open_teacher(str(folder), None, {})
        model = given.load()
    except UserError as error:
        raise UserError(str(error).replace(FLAG, "model")) from None
    reads = min(most_tokens(given.tokenizer_folder), TOKENS_IF_UNLIMITED)
    own = {
        "form": ADAPTER if given.base else MERGED,
        "labels": given.labels,
        **asdict(Reading(reads, "truncate", pairs=False, segments=False)),
        "temperature": 1.0,
        "made_from": {"base_model": given.base.name} if given.base else {},
        "made_with": {},
    }
    told = dict(about or own)
    if len(told["labels"]) != len(given.columns):
        raise damaged(folder, CLASSIFIER, f"it has {len(told['labels'])} labels for {len(given.columns)} logits")
    if isinstance(model, PeftModel) and not model.active_peft_config.is_prompt_learning:
        model = cast(nn.Module, model.merge_and_unload())
    files = sorted({*encoder_files(given.folder), *encoder_files(given.tokenizer_folder)})
    tokeniser = tokeniser_of(given.tokenizer_folder, told["max_length"], told["long_text"], pairs=told["pairs"])
    return _open(told, model, tokeniser, given.columns, [*files, folder / CLASSIFIER] if about else files)


def _open(
    about: dict[str, Any], model: nn.Module, tokeniser: Tokeniser, columns: NDArray[np.int64], files: list[Path]
) -> Opened:
    about |= asdict(tokeniser.reading)
    forward = _forward(model.eval(), columns)
    return Opened(about, tokeniser, Engine(forward, forward, 1, MOST_PADDING, len(about["labels"])), files)


def _forward(model: nn.Module, columns: NDArray[np.int64]) -> Forward:
    def forward(given: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(each) for name, each in given.items()}
            logits: NDArray[np.float32] = model(**tensors).logits.float().numpy()[:, columns]
        return logits

    return forward
