"""A teacher whose answers lie in a file: none is trained, and none is asked."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.numpy import save_file

from lora_distill.config import Config
from lora_distill.data.answers import Answers
from lora_distill.data.tokens import Tokens
from lora_distill.data.types import Dataset
from lora_distill.store import Artefact, write_jsonl
from lora_distill.training.outcome import LOGITS, Outcome, read_outcome, write_facts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FiledTeacher:
    """All that makes the logits of a teacher that is a file.

    Attributes:
        answers: the file's, to the rows of the data set.
        config: resolved.
        dataset: for its fingerprint.
    """

    answers: Answers
    config: Config
    dataset: Dataset

    def artefact(self) -> Artefact:
        """Where the logits lie, by what was answered: in which file, order or format does not count."""
        recipe = {
            "role": "teacher in a file",
            "data": self.dataset.fingerprint,
            "answers": self.answers.fingerprint,
        }
        return Artefact(Path(self.config.output_dir), "filed-teacher", recipe)

    def run(self, _splits: dict[str, Tokens], *, since: float = 0.0) -> Outcome:
        """Put its answers where a student looks for them.

        Args:
            _splits: are not needed, for the file was read by text.
            since: what was put there before that moment, in seconds since the epoch, is replaced.
        """
        artefact = self.artefact()
        with artefact.lock():
            reused = artefact.finished_since(since)
            if not reused:
                with artefact.fill() as folder:
                    save_file(self.answers.logits, folder / LOGITS)
                    write_jsonl(folder / "history.jsonl", [])
                    write_facts(folder, {"trainable_parameters": None, "seconds": 0.0}, self.config.exp_name)
            logger.info("teacher: what it answers stands in %s (%s)", self.answers.location, artefact.key)
            outcome = read_outcome(artefact, reused=reused)
        return replace(outcome, facts=outcome.facts | {"file": self.answers.location})
