"""Everything that can be wrong is found here, before the first step and before anything is written."""

import logging
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from lora_distill.cache import Cache, cache_folder
from lora_distill.combinations import check_combinations
from lora_distill.config import ROLES, Config, Role
from lora_distill.data.answers import Answers
from lora_distill.data.batches import TrainingOrder
from lora_distill.data.long_text import cut_note
from lora_distill.data.splits import draw_folds
from lora_distill.data.tokenising import keep_tokens, most_tokens
from lora_distill.data.tokens import Tokens
from lora_distill.data.types import JUDGED, Dataset
from lora_distill.data.wording import counted
from lora_distill.errors import UserError, about
from lora_distill.hub import Unavailable
from lora_distill.inputs import load_data
from lora_distill.known_texts import check_unseen, known_texts
from lora_distill.model.adapter import (
    AdapterSettings,
    Classifier,
    attach_adapter,
    load_classifier,
    outline,
)
from lora_distill.model.base import BaseModel, resolve_again, resolve_base_model
from lora_distill.model.budget import check_budget
from lora_distill.model.cut import Cut, cut_base, cut_config
from lora_distill.model.given_teacher import GivenTeacher
from lora_distill.model.layers import count_layers, layers_note
from lora_distill.model.pooling import check_pools
from lora_distill.progress import ONCE
from lora_distill.remembering import once
from lora_distill.run_folder import RunFolder
from lora_distill.teachers import open_answers, open_given_teacher
from lora_distill.tracking import check_tracker
from lora_distill.training.plan import ExecutionPlan, choose_plan, enough_memory
from lora_distill.training.several import ensemble_seeds
from lora_distill.training.teacher_reading import TeacherReading

logger = logging.getLogger(__name__)

PACKAGED = {"base_model": "minilm", "dataset": "bbc_news"}


@dataclass(frozen=True)
class Prepared:
    """An experiment whose inputs have been read and checked.

    Attributes:
        config: resolved: says what is really used.
        dataset: the rows of every split.
        base: the encoder of a teacher that is trained.
        student_base: the encoder of student and control; mostly the same.
        plan: where and how it computes.
        given_teacher: the teacher that was given, if one was.
        fallbacks: sentences on defaults that could not be had.
        answers: of a teacher that is a file, if one is.
    """

    config: Config
    dataset: Dataset
    base: BaseModel
    student_base: BaseModel
    plan: ExecutionPlan
    given_teacher: GivenTeacher | None
    fallbacks: list[str]
    answers: Answers | None = None
    _tokens: dict[tuple[str, str], Tokens] = field(default_factory=dict, repr=False)

    def base_of(self, role: Role) -> BaseModel:
        """The encoder of a role that is trained."""
        return self.base if role == "teacher" else self.student_base

    @cached_property
    def cache(self) -> Cache:
        """Of tokens, and of what frozen layers give."""
        return Cache(cache_folder(), self.config.cache_limit)

    def tokenised(self, folder: Path, model: str, names: Iterable[str]) -> dict[str, Tokens]:
        """Splits as a model's tokenizer reads them.

        Args:
            folder: of the tokenizer.
            model: its fingerprint.
            names: of the splits.
        """
        max_length, long_text = min(self.config.max_length, most_tokens(folder)), self.config.long_text
        splits = self.dataset.splits()
        fresh = [name for name in names if (model, name) not in self._tokens]
        for name in fresh:
            texts = splits[name].texts
            self._tokens[model, name] = keep_tokens(texts, folder, max_length, model, self.cache, long_text)
        read = [self._tokens[model, name] for name in fresh]
        if cut := sum(tokens.cut for tokens in read):
            logger.info("%s", cut_note(cut, sum(map(len, read)), max_length, long_text), extra=ONCE)
        return {name: self._tokens[model, name] for name in names}

    def named(self, exp_name: str) -> "Prepared":
        """The same under a name."""
        return replace(self, config=self.config.model_copy(update={"exp_name": exp_name}))


def prepare(config: Config, begun: Mapping[str, Any] | None = None) -> Prepared:
    """Read and check all that a config names.

    Args:
        config: as it was asked for; of a run that is resumed, the resolved one.
        begun: environment.json of the run that is resumed: its plan and the very models that it was begun with are
            taken; None chooses a plan for this machine.

    Raises:
        UserError: something is missing, does not fit, or the student is over its budget.
    """
    check_tracker(config.report_to)
    check_combinations(config)
    fallbacks: list[str] = []
    plan = choose_plan(config.device, config.precision)
    if begun:
        plan = replace(plan, threads=begun["plan"]["threads"])
        base, others = resolve_again(begun["base_model"]), begun["student_base_model"]
        student_base = base if others == begun["base_model"] else resolve_again(others)
    else:
        config, base = _base_model(config, fallbacks)
        student_base = _resolve(config, "student_base_model") if config.student_base_model else base
    hardly_smaller = base == student_base and not (config.student_depth or config.teacher_is_given)
    if config.preset == "small_student" and hardly_smaller:
        logger.warning("--preset small_student: teacher and student are on one encoder, which hardly helps", extra=ONCE)
    config, dataset = _dataset(config, fallbacks)
    _check_fractions(config, dataset)
    held = 0  # rows at most that a teacher does not learn from
    if config.teacher_fit == "crossfit":
        seeds = ensemble_seeds(config)
        folds = [draw_folds(dataset.train, config.teacher_folds, seed, dataset.label_names) for seed in seeds]
        held = max(len(part) for parts in folds for part in parts)
    config = _fit_to_models(config, {"teacher": base, "student": student_base}, dataset)
    if config.unlabelled:
        reason = f"a batch has {counted(config.batch_size, 'row')}, and some must have no label"
        config = _cap(config, "labelled_per_batch", config.batch_size - 1, reason, config.model_fields_set)
    config = _with_enough_steps(config, dataset, held)
    config = config.model_copy(update={"device": plan.device, "precision": plan.precision})
    teacher, answers = open_given_teacher(config, dataset, begun), open_answers(config, dataset, begun)
    if answers:
        dataset = replace(dataset, notes=[*dataset.notes, *answers.notes])
    if teacher:
        runs = map(RunFolder, teacher.folder.parents[:2])  # it may be one of several
        known = [known_texts(run, dataset.test.texts, dataset.validation.texts) for run in runs]
        dataset = replace(dataset, notes=[*dataset.notes, *(f"teacher: {each.note}" for each in known if each.note)])
        check_unseen(config, max(each.validation for each in known))
    for note in dataset.notes:
        is_usual = note.startswith((*dataset.splits(), "answers"))
        logger.log(logging.INFO if is_usual else logging.WARNING, "%s", note, extra=ONCE)
    prepared = Prepared(config, dataset, base, student_base, plan, teacher, fallbacks, answers)
    if teacher:
        validation = prepared.tokenised(teacher.tokenizer_folder, teacher.fingerprint, ("validation",))
        reading = TeacherReading(teacher, config, dataset, plan, prepared.cache)
        once(
            ("teacher", reading.artefact().key, bool(config.pooled_weight)),
            partial(_check_teacher, reading, validation["validation"]),
        )
    # Last, for this is written.
    base, student_base = (
        cut_base(prepared.base_of(role), Cut.of(config, role), Path(config.output_dir)) for role in ROLES[:2]
    )
    return replace(prepared, base=base, student_base=student_base)


def _check_teacher(reading: TeacherReading, validation: Tokens) -> None:
    with enough_memory(reading.plan.device, "The given teacher is too large for it: --device cpu, or a smaller one."):
        reading.check(validation)


def _base_model(config: Config, fallbacks: list[str]) -> tuple[Config, BaseModel]:
    try:
        return config, _resolve(config, "base_model")
    except Unavailable as error:
        config = _fall_back(config, "base_model", error, fallbacks)
        return config, _resolve(config, "base_model")


def _resolve(config: Config, setting: str) -> BaseModel:
    name = getattr(config, setting)
    with about(setting):
        return once(("base", name), lambda: resolve_base_model(name))


def _dataset(config: Config, fallbacks: list[str]) -> tuple[Config, Dataset]:
    try:
        return config, load_data(config)
    except Unavailable as error:
        config = _fall_back(config, "dataset", error, fallbacks)
        return config, load_data(config)


def _check_fractions(config: Config, dataset: Dataset) -> None:
    """Refuse a share of a split that the data bring whole."""
    for split in JUDGED:
        if split not in dataset.carved and not config.is_default(f"{split}_fraction"):
            share = getattr(config, f"{split}_fraction")
            raise UserError(
                f"--{split}_fraction {share}: {dataset.name} has a {split} split of its own, and all of it is taken."
                " Leave it out."
            )


def _fall_back(config: Config, name: str, error: Unavailable, fallbacks: list[str]) -> Config:
    """Put the packaged stand-in for a default that cannot be had; what was named is never substituted."""
    if name in config.model_fields_set:
        raise error
    reason = str(error).splitlines()[0].rstrip(".")
    asked, packaged = getattr(config, name), PACKAGED[name]
    fallbacks.append(f"the default {name} {asked} could not be had; {packaged} was used instead ({reason})")
    logger.warning("%s", fallbacks[-1], extra=ONCE)
    return config.model_copy(update={name: packaged})


def _with_enough_steps(config: Config, dataset: Dataset, held: int) -> Config:
    """As many epochs of each role as make `min_steps`; teacher and control read no texts without labels.

    Args:
        config: of the experiment.
        dataset: its rows.
        held: training rows at most that a teacher does not learn from.
    """
    trained = {"teacher": not config.teacher_is_given, "student": True, "control": not config.no_control}
    for role in (role for role in ROLES if trained.get(role)):
        labelled = len(dataset.train) - (held if role == "teacher" else 0)
        rows = labelled + (len(dataset.unlabelled) if role == "student" and dataset.unlabelled else 0)
        order = TrainingOrder(np.zeros(rows, np.int64), config.batch_size, labelled, config.labelled_per_batch)
        epochs, least = config.own("num_epochs", role), -(-config.min_steps // order.steps)
        if epochs < least:
            said = f"{counted(epochs, 'epoch')} of {counted(order.steps, 'step')} become {least}"
            logger.info("%s: %s, for --min_steps %d", role, said, config.min_steps, extra=ONCE)
            config = config.model_copy(update={"num_epochs" if role == "student" else f"{role}_num_epochs": least})
    return config


def _fit_to_models(config: Config, bases: dict[Role, BaseModel], dataset: Dataset) -> Config:
    """Adapt defaults to small models, refuse what was named and does not fit, and hold the student to its budget."""
    named = config.model_fields_set  # not what becomes less here, which the next model may need still less of
    if config.teacher_is_given:
        bases = {"student": bases["student"]}
    wholes = {base: _outline(base, dataset.label_names) for base in dict.fromkeys(bases.values())}
    for role, base in bases.items():
        config, classifier, cut = _cut_outline(config, role, base, wholes[base])
        layers, tokens = count_layers(classifier.model), most_tokens(base.folder)
        config = _cap(
            config, f"{role}_target_layers", layers, f"{base.name} has {counted(layers, 'layer')}{cut}", named
        )
        config = _cap(config, "max_length", tokens, f"{base.name} reads {counted(tokens, 'token')} at most", named)
        if config.pooled_weight:
            check_pools(classifier.model.config)
        adapted = attach_adapter(classifier, AdapterSettings.of(config, role), seed=0)
        if role == "student":
            count = check_budget(adapted, config.student_budget)
            logger.info(
                "student: %s trainable parameters of %s allowed (LoRA %s, head %s)",
                *(f"{number:,}" for number in (count.total, config.student_budget, count.lora, count.head)),
            )
    return config


def _outline(base: BaseModel, labels: list[str]) -> Classifier:
    """A classifier with all layers of a base model, without weights."""
    classifier = once(("outline", base, *labels), lambda: outline(load_classifier(base, labels, seed=0)))
    note = layers_note(classifier.model)
    if note:
        logger.warning("%s", note, extra=ONCE)
    return classifier


def _cut_outline(config: Config, role: Role, base: BaseModel, whole: Classifier) -> tuple[Config, Classifier, str]:
    """The same with a role's layers only, and what says that it has no more."""
    cut = Cut.of(config, role)
    if not cut.depth:
        return config, outline(whole), ""
    layers = int(whole.model.config.num_hidden_layers)
    config = _cap(config, cut.setting, layers, f"{base.name} has {counted(layers, 'layer')}", {cut.setting})
    return config, outline(whole, cut_config(whole.model.config, cut)), f" with --{cut.setting} {cut.depth}"


def _cap(config: Config, name: str, most: int, reason: str, named: Set[str]) -> Config:
    asked = getattr(config, name)
    if asked <= most:
        return config
    if name in named:
        raise UserError(f"--{name} {asked}: {reason}. Ask for at most {most}.")
    logger.warning("%s, so the default %s of %d becomes %d", reason, name, asked, most, extra=ONCE)
    return config.model_copy(update={name: most})
