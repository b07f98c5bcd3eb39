"""A finished classifier in use: texts in, labels and probabilities out. An exported one answers without torch."""

import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lora_distill.data.batches import evaluation_order
from lora_distill.deployment.exported import CLASSIFIER, ONNX_FILES, Opened, open_onnx, read_about
from lora_distill.errors import UserError
from lora_distill.model.base import hash_files

if TYPE_CHECKING:
    from sklearn.utils import Tags

TOKENISED_AT_ONCE = 1024  # texts: the tokenizer's own objects take some 10 kB each
BATCH_TOKENS = 512  # padding included: what stays in a processor's cache is the fastest


class Classifier:
    """Labels for texts, in the way of scikit-learn's fitted classifiers.

    A text's answer does not depend on the texts beside it, but for the rounding of its last digits. Several threads may
    ask at once.

    Attributes:
        labels: C names, in the order of the logits.
        classes_: str [C], the same.
        max_length: tokens of a text that are read.
        temperature: that the logits are divided by before they become probabilities (Guo et al. 2017).
        about: what the model says of itself, in the keys of an exported folder's classifier.json.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.about: dict[str, Any] = opened.about
        self.labels: tuple[str, ...] = tuple(opened.about["labels"])
        self.classes_: NDArray[np.str_] = np.array(self.labels)
        self.max_length = int(opened.about["max_length"])
        self.temperature = float(opened.about["temperature"])
        self._pool = ThreadPoolExecutor(opened.at_once)
        opened.tokenizer.no_padding()
        opened.tokenizer.enable_truncation(self.max_length)

    @classmethod
    def load(cls, folder: str | Path, *, threads: int | None = None) -> Self:
        """Open a finished model.

        Args:
            folder: an exported one, a run's (whose student answers), that of one of a run's roles, a PEFT adapter's, or
                a whole classifier's as transformers saves it. All but exported ONNX need the extra `train`.
            threads: that compute; as many as there are cores for this process if None.

        Raises:
            UserError: there is no such model, or it cannot be used.
        """
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            state = "is a file" if folder.exists() else "no such folder"
            raise UserError(f"model {folder}: {state}. Give the folder of an exported model, or of a run.")
        about = read_about(folder) if (folder / CLASSIFIER).is_file() else None
        if about and about["form"] in ONNX_FILES:
            return cls(open_onnx(folder, about, threads or cores()))
        from lora_distill.deployment.through_torch import open_with_torch

        return cls(open_with_torch(folder, about, threads))

    def logits(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Logits, float32 [N, C], in the order of the texts.

        Raises:
            TypeError: what was given is no sequence of strings.
            ValueError: a text holds half of a surrogate pair, which is no text.
        """
        texts = _checked(texts)
        flat, offsets = self._tokenise(texts)
        lengths = np.diff(offsets)
        found = np.empty((len(texts), len(self.labels)), np.float32)

        def answer(rows: NDArray[np.int64]) -> None:
            is_token = np.arange(lengths[rows].max()) < lengths[rows][:, None]
            ids = np.full(is_token.shape, self._opened.pad_id, np.int64)
            ids[is_token] = np.concatenate([flat[offsets[row] : offsets[row + 1]] for row in rows])
            found[rows] = self._opened.forward(ids, is_token.astype(np.int64))

        for _ in self._pool.map(answer, evaluation_order(lengths, BATCH_TOKENS, self._opened.most_padding)):
            pass  # what a thread raises is raised here
        return found

    def predict_proba(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """The softmax of logits / temperature, float32 [N, C], the columns as in `classes_`. Raises as `logits`."""
        return self.probabilities(self.logits(texts))

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The softmax of logits / temperature, float32 [N, C]."""
        scaled = logits.astype(np.float64) / self.temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return probabilities

    def predict(self, texts: Iterable[str]) -> NDArray[np.str_]:
        """The likeliest label of each text, str [N]. Raises as `logits`."""
        likeliest: NDArray[np.str_] = self.classes_[self.logits(texts).argmax(axis=1)]
        return likeliest

    def fingerprint(self) -> str:
        """SHA-256 in hex of all that the answers depend on, but for the libraries."""
        return hash_files(self._opened.files)

    def __sklearn_is_fitted__(self) -> bool:
        """It always is: scikit-learn asks before it scores."""
        return True

    def __sklearn_tags__(self) -> "Tags":
        """What scikit-learn asks of those that it scores."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True),
        )

    def _tokenise(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Token ids of all texts in one array, and N + 1 offsets into it."""
        encode, parts, lengths = self._opened.tokenizer.encode_batch_fast, [np.empty(0, np.int32)], [0]
        for start in range(0, len(texts), TOKENISED_AT_ONCE):
            rows = [each.ids for each in encode(texts[start : start + TOKENISED_AT_ONCE])]
            parts.append(np.fromiter(chain.from_iterable(rows), np.int32))
            lengths += map(len, rows)
        return np.concatenate(parts), np.cumsum(lengths)


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _checked(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("texts: one string was given; give a list of strings")
    texts = list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{number}]: {type(text).__name__} was given, not a string")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"texts[{number}]: half of a surrogate pair stands alone") from None
    return texts
