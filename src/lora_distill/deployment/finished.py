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

from lora_distill.config import LongText, Role
from lora_distill.data.tokens import Tokens, most_tokens, tokenise
from lora_distill.data.types import Text
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
        max_length: tokens that it reads at once.
        long_text: what it reads of a longer text.
        columns: int64 [C], which of its logits is each label's.
    """

    model: nn.Module
    tokenizer_folder: Path
    max_length: int
    long_text: LongText
    columns: NDArray[np.int64]

    def tokenised(self, texts: Sequence[Text]) -> Tokens:
        """These texts as it reads them."""
        return tokenise(texts, self.tokenizer_folder, self.max_length, self.long_text)

    def merged(self) -> PreTrainedModel:
        """The model as one deploys it, the adapter's products added to the base model's weights: to be called once."""
        model = self.model.merge_and_unload() if isinstance(self.model, PeftModel) else self.model
        return cast("PreTrainedModel", model.eval())


def open_role(run: RunFolder, role: Role) -> FinishedModel:
    """A role's model, of a run that has this role.

    Raises:
        UserError: the run is not finished, or what it was made from cannot be had as it was.
    """
    names = run.results()["data"]["label_names"]
    config, environment = run.resolved(), run.environment()
    if role == "teacher" and config.teacher_checkpoint:
        given = open_again(environment["given_teacher"], names, config.teacher_label_map)
        model, folder, columns = given.load(), given.tokenizer_folder, given.columns
    else:
        whole = environment["base_model" if role == "teacher" else "student_base_model"]
        base = cut_base(resolve_again(whole), Cut.of(config, role), run.path.parent)
        model, folder, columns = load_adapter(base, names, run.path / role), base.folder, np.arange(len(names))
    return FinishedModel(model, folder, min(config.max_length, most_tokens(folder)), config.long_text, columns)
