"""Texts that a run has seen: by those its models look better than they are, and nothing is to be chosen by them."""

from collections.abc import Sequence
from typing import NamedTuple

from lora_distill.config import Config
from lora_distill.data.splits import stand_in
from lora_distill.data.types import Text
from lora_distill.data.wording import counted
from lora_distill.errors import UserError
from lora_distill.inputs import load_data
from lora_distill.presets import BY_ITS_VALIDATION
from lora_distill.run_folder import RunFolder


class Known(NamedTuple):
    """Texts that a run has seen.

    Attributes:
        note: a sentence on them; empty where there is nothing to say.
        validation: of how many texts to choose by it has learned the labels.
    """

    note: str
    validation: int = 0


def known_texts(run: RunFolder, test: Sequence[Text], validation: Sequence[Text]) -> Known:
    """Texts that a run has learned from or chosen its epoch by.

    Args:
        run: may be any folder; of what is not a run nothing is known, and nothing said.
        test: texts to judge its models by.
        validation: texts to choose by; here those that the run chose its own epoch by do no harm.
    """
    if not run.begun:
        return Known("")
    try:
        own = load_data(run.resolved())
        is_same = own.fingerprint == run.environment()["data"]["fingerprint"]
    except UserError:
        is_same = False
    if not is_same:
        return Known(
            "the run's own data are not where they were, or have changed: whether it knows test rows cannot be told"
        )
    learned = [rows for rows in (own.train, own.unlabelled) if rows]
    known = {"test": stand_in(test, *learned, own.validation), "validation": stand_in(validation, *learned)}
    seen = [f"{rows.sum():,} of {len(rows):,} {split} rows" for split, rows in known.items() if rows.any()]
    if not seen:
        return Known("")
    note = (
        f"{' and '.join(seen)} hold texts that the run trained on or chose its epoch by; on those its models look"
        " better than they are"
    )
    return Known(note, int(stand_in(validation, own.train).sum()))


def check_unseen(config: Config, seen: int) -> None:
    """Refuse what is decided by validation where a given teacher was trained on its rows.

    Args:
        config: of the experiment.
        seen: of how many of them it has learned the labels.

    Raises:
        UserError: some, and something is.
    """
    decided = {name: getattr(config, name) for name in BY_ITS_VALIDATION if not config.is_default(name)}
    asked = [f"--{name}" if value is True else f"--{name} {value}" for name, value in decided.items()]
    if seen and asked:
        raise UserError(
            f"{' and '.join(asked)}: validation decides that, and the given teacher knows the labels of"
            f" {counted(seen, 'row')} of it.\nGive the --seed of its run, whose validation it does not know, or"
            " --no_teacher_calibrate and --learn_from teacher."
        )
