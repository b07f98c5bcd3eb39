"""A finished classifier in use: texts in, labels and probabilities out. An exported one answers without torch."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lora_distill.data.types import Text
from lora_distill.deployment.exported import Opened, open_onnx, read_about
from lora_distill.deployment.forms import CLASSIFIER, ONNX_FILES
from lora_distill.errors import UserError
from lora_distill.home import expanded
from lora_distill.hub import quiet
from lora_distill.model.base import hash_files
from lora_distill.processors import cores
from lora_distill.program import install

if TYPE_CHECKING:
    from sklearn.utils import Tags


class Classifier:
    """Labels for texts, or for pairs of them, in the way of scikit-learn's fitted classifiers.

    What is said here of texts holds for pairs where the model was trained on those: a pair is a tuple or a list of two
    strings, or a row of an array with two columns. A text's answer does not depend on the texts beside it, but for
    rounding: the last digits, or in eight bits some 0.001 of a logit. Several threads may ask at once.

    Attributes:
        labels: C names, in the order of the logits.
        classes_: str [C], the same in the order of their letters, as scikit-learn takes them to be.
        pairs: whether it reads pairs of texts.
        max_length: tokens that are read at once.
        temperature: that the logits are divided by before they become probabilities (Guo et al. 2017).
        about: what the model says of itself, in the keys of an exported folder's classifier.json.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.about: dict[str, Any] = opened.about
        self.labels: tuple[str, ...] = tuple(opened.about["labels"])
        self._by_letters = np.argsort(self.labels)
        self.classes_: NDArray[np.str_] = np.array(self.labels)[self._by_letters]
        self.pairs = bool(opened.about["pairs"])
        self.max_length = int(opened.about["max_length"])
        self.temperature = float(opened.about["temperature"])

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
        folder = expanded(folder, f"model {folder}")
        try:
            about = read_about(folder) if (folder / CLASSIFIER).is_file() else None
        except PermissionError as error:
            raise UserError(f"model {folder}: {error.strerror}. Let this user read the folder.") from None
        if about and about["form"] in ONNX_FILES:
            return cls(open_onnx(folder, about, threads or cores()))
        try:
            # These bring all settings, and torch, which none of the above asks for.
            from lora_distill.deployment.folders import check_model

            check_model(folder)
            quiet()
            from lora_distill.deployment.through_torch import open_with_torch
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "lora_distill":
                raise
            lacks = f"needs the package {error.name}, which is not installed.\nInstall it: {install('train')}"
            raise UserError(f"model {folder}: {lacks}") from None
        with warnings.catch_warnings(action="ignore"):  # the libraries' to programmers
            return cls(open_with_torch(folder, about, threads))

    def __repr__(self) -> str:
        """What it is, and what it tells apart."""
        return f"<Classifier, {self.about['form']}: {', '.join(self.labels)}>"

    def logits(self, texts: Iterable[Text], told: Callable[[float], None] | None = None) -> NDArray[np.float32]:
        """Logits, float32 [N, C], in the order of the texts; of a text that is read in chunks the mean of theirs.

        Args:
            texts: N.
            told: is called after each batch with the share of all that is answered.

        Raises:
            TypeError: what was given is no sequence of strings, or of pairs of them.
            ValueError: a text holds half of a surrogate pair, which is no text.
        """
        tokens = self._opened.tokeniser.read(_checked(texts, pairs=self.pairs))
        return self._opened.engine.logits(tokens, told)

    def predict_proba(self, texts: Iterable[Text]) -> NDArray[np.float32]:
        """The softmax of logits / temperature, float32 [N, C], the columns as in `classes_`. All else as `logits`."""
        return self.probabilities(self.logits(texts))[:, self._by_letters]

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The softmax of logits / temperature, float32 [N, C], in the order of the logits."""
        scaled = logits.astype(np.float64) / self.temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return probabilities

    def predict(self, texts: Iterable[Text]) -> NDArray[np.str_]:
        """The likeliest label of each text, str [N]. Raises as `logits`."""
        likeliest: NDArray[np.str_] = np.array(self.labels)[self.logits(texts).argmax(axis=1)]
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
            input_tags=InputTags(one_d_array=not self.pairs, two_d_array=self.pairs, string=True),
        )


def _checked(texts: Iterable[Any], *, pairs: bool) -> list[Text]:
    if isinstance(texts, str | Mapping):
        kind = "one string" if isinstance(texts, str) else "a mapping"
        raise TypeError(f"texts: {kind} was given; give a list of strings")
    if hasattr(texts, "columns"):  # a data frame, whose names of columns are all that iterating gives
        given = (
            'columns of pairs, as df[["text", "text_pair"]].to_numpy()' if pairs else 'column of texts, as df["text"]'
        )
        raise TypeError(f"texts: a table was given; give its {given}")
    checked: list[Text] = []
    wanted = "a pair of strings" if pairs else "a string"
    for number, text in enumerate(texts):
        of_text = tuple(text) if pairs and isinstance(text, tuple | list | np.ndarray) else (text,)
        if len(of_text) != 1 + pairs:
            raise TypeError(f"texts[{number}]: {type(text).__name__} was given, not {wanted}")
        for part in of_text:
            if not isinstance(part, str):
                raise TypeError(f"texts[{number}]: {type(part).__name__} was given, not {wanted}")
            try:
                part.encode()
            except UnicodeEncodeError:
                raise ValueError(f"texts[{number}]: half of a surrogate pair stands alone") from None
        checked.append(of_text if pairs else text)
    return checked
