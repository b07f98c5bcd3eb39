"""The models of a finished run, opened again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from lora_distill.config import Config, Role
from lora_distill.data.reading import Tokeniser
from lora_distill.data.tokenising import most_tokens, tokeniser_of
from lora_distill.data.tokens import Tokens
from lora_distill.data.types import Text
from lora_distill.errors import UserError
from lora_distill.model.base import resolve_again
from lora_distill.model.cut import Cut, cut_base
from lora_distill.model.given_teacher import open_again
from lora_distill.model.saved_adapter import load_adapter
from lora_distill.run_folder import RunFolder


@dataclass(frozen=True)
class FinishedModel:
    """One role's.

    Attributes:
        model: in fp32, on the CPU, frozen, in eval mode: an adapter on its base model, or a given teacher as it is.
        tokenizer_folder: of its tokenizer.
        tokeniser: what reads texts for it.
        columns: int64 [C], which of its logits is each label's.
    """

    model: nn.Module
    tokenizer_folder: Path
    tokeniser: Tokeniser
    columns: NDArray[np.int64]

    def tokenised(self, texts: Sequence[Text]) -> Tokens:
        """These texts as it reads them."""
        return self.tokeniser.read(texts)

    def merged(self) -> PreTrainedModel:
        """The model as one deploys it, the adapter's products added to the base model's weights: to be called once."""
        whole = self.model.merge_and_unload() if isinstance(self.model, PeftModel) else self.model
        model = cast("PreTrainedModel", whole.eval())
        model.config.pad_token_id = self.tokeniser.pad_id  # which not every model says, and every batch needs
        return model


def open_role(run: RunFolder, role: Role) -> FinishedModel:
    """A role's model, of a run that has this role.

    Raises:
        UserError: the run is not finished, what it was made from cannot be had as it was, or its teacher is a file or
            several models.
    """
    first, *others = open_models(run, role)
    if others:
        raise UserError(
            f"{run.path}: its {role} is {1 + len(others)} models, which answer together. Each lies in"
            f" {run.path / role}, in a folder of its own."
        )
    return first


def open_models(run: RunFolder, role: Role) -> list[FinishedModel]:
    """The models of a role: one, but of several teachers.

    Raises:
        UserError: as in `open_role`.
    """
    names = run.results()["data"]["label_names"]
    config, environment = run.resolved(), run.environment()
    if role == "teacher" and config.teacher_predictions:
        raise UserError(
            f"{run.path}: its teacher is a file of answers, {config.teacher_predictions}: no model that could answer"
            " other texts, or be timed."
        )
    if role == "teacher" and config.teacher_checkpoint:
        given = open_again(environment["given_teacher"], names, config.teacher_label_map)
        return [_finished(given.load(), given.tokenizer_folder, config, given.columns)]
    whole = environment["base_model" if role == "teacher" else "student_base_model"]
    base = cut_base(resolve_again(whole), Cut.of(config, role), run.path.parent)
    members = run.results()[role].get("members")
    folders = [run.path / role / str(1 + number) for number in range(members)] if members else [run.path / role]
    in_order = np.arange(len(names))
    return [_finished(load_adapter(base, names, folder), base.folder, config, in_order) for folder in folders]


def _finished(model: nn.Module, tokenizer: Path, config: Config, columns: NDArray[np.int64]) -> FinishedModel:
    return FinishedModel(model, tokenizer, tokeniser_for(config, tokenizer), columns)


def tokeniser_for(config: Config, tokenizer: Path) -> Tokeniser:
    """What reads texts as a run does, for a model whose tokenizer lies in this folder."""
    max_length, pairs = min(config.max_length, most_tokens(tokenizer)), config.text_pair_column is not None
    return tokeniser_of(tokenizer, max_length, config.long_text, pairs=pairs)
