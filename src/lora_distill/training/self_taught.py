"""A teacher that learns twice: from the labels, and then with what it said of the texts without labels."""

from dataclasses import dataclass, replace

from lora_distill.data.tokens import Tokens
from lora_distill.model.base import BaseModel
from lora_distill.store import Artefact
from lora_distill.training.loop import Observer, nobody
from lora_distill.training.outcome import Outcome
from lora_distill.training.role import RoleTraining
from lora_distill.training.several import SeveralTeachers, as_of, compose


@dataclass(frozen=True)
class SelfTaughtTeacher:
    """Self-training: Xie et al., "Self-training with Noisy Student improves ImageNet classification", CVPR 2020.

    Both begin at the pretrained weights; the noise is dropout.

    Attributes:
        first: learns from the labels alone; shared with whoever asks for such a teacher. It may be several.
        last: learns as a student does, from the labels and from what the first says; it is the teacher of the others.
    """

    first: RoleTraining | SeveralTeachers
    last: RoleTraining

    @property
    def base(self) -> BaseModel:
        """The encoder of both."""
        return self.last.base

    def artefact(self) -> Artefact:
        """Where its answers lie."""
        return self.last.artefact()

    def run(self, splits: dict[str, Tokens], *, since: float = 0.0, observe: Observer = nobody) -> Outcome:
        """Train both, unless the store has them; seconds are those of both.

        Args:
            splits: as the base model's tokenizer reads them; without test they are not judged on it.
            since: what was trained before that moment, in seconds since the epoch, is trained again.
            observe: of the trainings, as if they were one.
        """
        of_first = as_of(1, 0)
        learned = {name: tokens for name, tokens in splits.items() if name != "test"}  # which the last one answers
        before = self.first.run(learned, since=since, observe=compose(observe, of_first))
        of_last = as_of(before.facts.get("members", 1) + 1, before.history[-1]["step"])
        outcome = self.last.run(splits, since=since, observe=compose(observe, of_last))
        history = [*map(of_first, before.history), *map(of_last, outcome.history)]
        seconds = {name: before.facts[name] + outcome.facts[name] for name in ("seconds", "spared_seconds")}
        reused, runs = before.reused and outcome.reused, before.runs | outcome.runs
        return replace(outcome, history=history, facts=outcome.facts | seconds, reused=reused, runs=runs)
