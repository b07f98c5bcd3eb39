"""A finished classifier in use: texts in, labels and probabilities out. An exported one answers without torch."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_distill.data.batches import evaluation_order
from lora_distill.errors import UserError
from lora_distill.store import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CLASSIFIER = "classifier.json"
ONNX_FILES = {"onnx": "onnx/model.onnx", "onnx-int8": "onnx/model_quantized.onnx"}  # by form
TOKENIZED_AT_ONCE = 1024  # texts: the tokenizer's own objects take some 10 kB a text
BATCH_TOKENS = 2048  # of a batch, padding included

# Token ids and attention mask, int64 [B, L], to logits, float32 [B, C].
Forward = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]


class Classifier:
    """Labels for texts, in the way of scikit-learn's classifiers.

    A text's answer does not depend on the texts beside it, but for the rounding of its last digits. Several threads may
    ask one classifier at once.

    Attributes:
        labels: C names, in the order of the logits.
        classes_: str [C], the same.
        max_length: tokens of a text that are read.
        temperature: that the logits are divided by before they become probabilities.
        about: what the folder says of itself, in the keys of an exported folder's classifier.json.
    """

    def __init__(self, about: Mapping[str, Any], tokenizer: "Tokenizer", pad_id: int, forward: Forward) -> None:
        self.about = dict(about)
        self.labels: tuple[str, ...] = tuple(about["labels"])
        self.classes_: NDArray[np.str_] = np.array(self.labels)
        self.max_length = int(about["max_length"])
        self.temperature = float(about["temperature"])
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_length)
        self._tokenizer, self._pad_id, self._forward = tokenizer, pad_id, forward

    @classmethod
    def load(cls, folder: str | Path, *, threads: int | None = None) -> "Classifier":
        """Open a finished model.

        Args:
            folder: an exported one, a run's (its student answers), that of one of its roles, a PEFT adapter's, or a
                whole classifier's as transformers saves it. All but exported ONNX need the extra `train`.
            threads: that compute; all cores that this process may use if None.

        Raises:
            UserError: there is no such model, or it cannot be used.
        """
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            state = "is a file" if folder.exists() else "no such folder"
            raise UserError(f"model {folder}: {state}. Give the folder of an exported model, or of a run.")
        about = read_about(folder) if (folder / CLASSIFIER).is_file() else None
        if about is None or about["form"] not in ONNX_FILES:
            raise UserError(f"model {folder}: is no exported ONNX model.")
        forward = _open_onnx(folder, about, threads or cores())
        return cls(about, _read_tokenizer(folder), _pad_id(folder), forward)

    def logits(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """float32 [N, C], in the order of the texts."""
        texts = _checked(texts)
        flat, offsets = self._tokenise(texts)
        lengths = np.diff(offsets)
        found = np.empty((len(texts), len(self.labels)), np.float32)
        for rows in evaluation_order(lengths, BATCH_TOKENS):
            is_token = np.arange(lengths[rows].max()) < lengths[rows][:, None]
            ids = np.full(is_token.shape, self._pad_id, np.int64)
            ids[is_token] = np.concatenate([flat[offsets[row] : offsets[row + 1]] for row in rows])
            found[rows] = self._forward(ids, is_token.astype(np.int64))
        return found

    def predict_proba(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """float32 [N, C], the softmax of logits / temperature; the columns are those of `classes_`."""
        logits = self.logits(texts).astype(np.float64) / self.temperature
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

    def predict(self, texts: Iterable[str]) -> NDArray[np.str_]:
        """str [N], the likeliest label of each text."""
        likeliest: NDArray[np.str_] = self.classes_[self.logits(texts).argmax(axis=1)]
        return likeliest

    def _tokenise(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Token ids of all texts in one array, and N + 1 offsets into it."""
        parts: list[NDArray[np.int32]] = []
        lengths = [0]
        for start in range(0, len(texts), TOKENIZED_AT_ONCE):
            rows = [each.ids for each in self._tokenizer.encode_batch_fast(texts[start : start + TOKENIZED_AT_ONCE])]
            lengths += map(len, rows)
            parts.append(np.fromiter(chain.from_iterable(rows), np.int32))
        return np.concatenate([np.empty(0, np.int32), *parts]), np.cumsum(lengths)


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _checked(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("texts: one string was given; give a list of them")
    texts = list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{number}]: {type(text).__name__} was given, not a string")
    return texts


def read_about(folder: Path) -> dict[str, Any]:
    """The classifier.json of an exported folder.

    Raises:
        UserError: it is damaged.
    """
    try:
        about: dict[str, Any] = read_json(folder / CLASSIFIER)
        is_whole = (
            about["form"] in {"merged", *ONNX_FILES}
            and len(about["labels"]) > 1
            and all(isinstance(label, str) for label in about["labels"])
            and int(about["max_length"]) > 0
            and float(about["temperature"]) > 0
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(folder, CLASSIFIER, error) from None
    if not is_whole:
        raise _damaged(folder, CLASSIFIER, "form, labels, max_length or temperature is none that there can be")
    return about


def _damaged(folder: Path, name: str, reason: object) -> UserError:
    told = " ".join(str(reason).split())[:200]
    return UserError(f"model {folder}: its {name} is missing or damaged: {told}\nExport the model again.")


def _read_tokenizer(folder: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises nothing more special
        raise _damaged(folder, "tokenizer.json", error) from None


def _pad_id(folder: Path) -> int:
    """The token id of padding, by which RoBERTa and its kin count positions."""
    try:
        return int(read_json(folder / "config.json").get("pad_token_id") or 0)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(folder, "config.json", error) from None


def _open_onnx(folder: Path, about: Mapping[str, Any], threads: int) -> Forward:
    try:
        import onnxruntime as ort
    except ModuleNotFoundError:
        raise UserError(
            f"model {folder}: needs the package onnxruntime, which is not installed. Install it: pip install onnxruntime"
        ) from None
    file = ONNX_FILES[about["form"]]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # a plan of memory for each shape, where hardly two batches have the same
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a broken file breaks it in many ways
        raise _damaged(folder, file, error) from None
    inputs = [each.name for each in session.get_inputs()]
    classes = session.get_outputs()[0].shape[-1]
    if isinstance(classes, int) and classes != len(about["labels"]):
        raise _damaged(folder, file, f"it gives {classes} logits for {len(about['labels'])} labels")

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        given = {"input_ids": ids, "attention_mask": mask}
        feed = {name: given[name] if name in given else np.zeros_like(ids) for name in inputs}
        logits: NDArray[np.float32] = session.run(None, feed)[0]
        return logits

    return forward
