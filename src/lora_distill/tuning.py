"""Trials of a search, by Optuna: resumable, pruned and judged on validation only, as a training's epochs are."""

import logging
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from lora_distill.config import WITHOUT_BUDGET, Config, Role
from lora_distill.errors import UserError
from lora_distill.experiment import train_role
from lora_distill.model.budget import OverBudgetError
from lora_distill.preparation import Prepared, prepare
from lora_distill.remembering import remembering
from lora_distill.run_folder import DECIDES_NOTHING, PLACES, check_writable
from lora_distill.search import Choices, Scalar, Search
from lora_distill.seeding import derive_seed
from lora_distill.store import ARTEFACTS, lock
from lora_distill.training.loop import Unwanted
from lora_distill.training.outcome import Outcome

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial.

    Attributes:
        number: from 0.
        settings: what it tried.
        state: "finished", "pruned", "over budget" or "failed".
        nll: on validation, by the temperature that fits best, of the epoch that is kept, or of the last before it was
            pruned; None: none.
        accuracy: there, of the epoch that is kept; None unless finished.
        message: why it failed, or by how much it is over the budget; else empty.
    """

    number: int
    settings: dict[str, Scalar]
    state: str
    nll: float | None
    accuracy: float | None
    message: str


@remembering()
def misfits(search: Search) -> list[str]:
    """What of a search's space the model, or the data, cannot take; the budget is for the trials to meet.

    Where even the least of the space is over the budget, or the base is at fault, that is said alone.
    """
    least = _least(search)
    try:
        _prepare_quietly(search.config(least))
    except UserError as error:
        return [_located(error, search)]
    faults = []
    for name, dimension in search.space.items():
        for value in dimension.extremes:
            try:
                _prepare_quietly(search.config(least | {name: value}))
            except OverBudgetError:
                continue
            except UserError as error:
                faults.append(_located(error, search))
    return faults


def _least(search: Search) -> dict[str, Scalar]:
    """The values of the space with the smallest student; of choices, which have no order, found one after the other."""
    least: dict[str, Scalar] = {name: dimension.extremes[0] for name, dimension in search.space.items()}
    if _excess(search, least):
        for name, dimension in search.space.items():
            if isinstance(dimension, Choices):
                excess = {value: _excess(search, least | {name: value}) for value in dimension.values}
                least[name] = min(excess, key=excess.__getitem__)
    return least


def _excess(search: Search, values: dict[str, Scalar]) -> float:
    """By how many parameters a student is over its budget; what cannot be had at all is over any."""
    try:
        _prepare_quietly(search.config(values))
    except OverBudgetError as error:
        return error.excess
    except UserError:
        return math.inf
    return 0


def _located(error: UserError, search: Search) -> str:
    """With the line of the setting that a message begins with."""
    setting = str(error).removeprefix("--").partition(" ")[0].rstrip(":")
    return f"{search.origins.get(setting, search.path)}: {error}"


def _prepare_quietly(config: Config) -> Prepared:
    logging.disable(logging.WARNING)
    try:
        return prepare(config)
    finally:
        logging.disable(logging.NOTSET)


def storage_of(search: Search) -> Path:
    """The sqlite file with the trials."""
    return Path(search.config({}).output_dir) / f"{search.name}.trials.db"


def run_trials(search: Search, role: Role = "student") -> list[TrialResult]:
    """Run what is left of a search's trials, of student or control.

    The trial that was running when the process died goes on under its number, from its last whole epoch; each draw of
    each trial has a seed of its own, so that the trials are those of a search that nothing stopped.

    Raises:
        UserError: the trials that are there are of another search, on other data or of other models.
    """
    path = storage_of(search)
    check_writable(path.parent)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with (
        lock(path.parent / ARTEFACTS, f"tune-{search.name}"),
        warnings.catch_warnings(action="ignore"),
        remembering(),  # all trials are of the same rows and models, whatever becomes of their files
    ):
        study = optuna.create_study(
            study_name=search.name,
            storage=f"sqlite:///{path}",
            direction="minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(),
        )
        _admit(study, search, path)
        while len(done := [each for each in study.trials if each.state.is_finished()]) < search.trials:
            _run(search, role, study, _next_trial(search, study, len(done)))
        return [_result(each) for each in study.trials]


def _admit(study: optuna.Study, search: Search, path: Path) -> None:
    """Trials of other settings, rows or models are not to be compared with these."""
    config = search.config({})
    settings = config.model_dump_json(exclude=set(DECIDES_NOTHING))
    asked = {"settings": settings, "space": str(search.space), "seed": search.seed, **_inputs(search)}
    known = study.user_attrs
    if study.direction != optuna.study.StudyDirection.MINIMIZE:
        raise UserError(
            f"{path}: holds trials that were judged by their accuracy, by an earlier version of this program."
            "\nGive this search another `name`, or move that file away."
        )
    for name, value in asked.items():
        if known.get(name, value) != value:
            raise UserError(
                f"{path}: holds trials of a search with other {name}."
                "\nGive this one another `name`, or move that file away."
            )
        study.set_user_attr(name, value)


def _inputs(search: Search) -> dict[str, Any]:
    """The fingerprints of the rows, and of all models that trials are made of."""
    first = {name: dimension.extremes[0] for name, dimension in search.space.items()}
    places = [{name: value} for name in PLACES if name in search.space for value in search.space[name].extremes]
    # Without a budget: what is over it is a trial that is not trained, of a model all the same.
    prepared = [_prepare_quietly(search.config(first | place | WITHOUT_BUDGET)) for place in places or [{}]]
    given = [each.given_teacher or each.answers for each in prepared]
    return {
        "data": prepared[0].dataset.fingerprint,
        "base_model": ",".join(each.base.whole.fingerprint for each in prepared),
        "student_base_model": ",".join(each.student_base.whole.fingerprint for each in prepared),
        "teacher_checkpoint": ",".join(teacher.fingerprint if teacher else "" for teacher in given),
    }


def _next_trial(search: Search, study: optuna.Study, number: int) -> Trial:
    stopped = next((each for each in study.trials if not each.state.is_finished()), None)
    trial = Trial(study, stopped._trial_id) if stopped else study.ask()
    for name, dimension in search.space.items():
        # What was drawn before a kill is read and draws nothing, so no setting may be drawn together with another.
        seed = derive_seed(search.seed, f"trial {name}", number) % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False)
        if isinstance(dimension, Choices):
            trial.suggest_categorical(name, dimension.values)
        elif isinstance(dimension.low, int) and isinstance(dimension.high, int):
            trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
        else:
            trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    return trial


def _run(search: Search, role: Role, study: optuna.Study, trial: Trial) -> None:
    config = search.config(trial.params)
    shown = ", ".join(f"{name} {value}" for name, value in trial.params.items())
    logger.info("── %s, trial %d of %d: %s", role, trial.number + 1, search.trials, shown)
    told = set(study.trials[trial.number].intermediate_values)

    def observe(line: dict[str, Any]) -> None:
        if line["event"] == "validation":
            if line["epoch"] not in told:  # an epoch that a killed process had reported
                trial.report(line["calibrated_nll"], line["epoch"])
                told.add(line["epoch"])
            if line["epoch"] < config.own("num_epochs", role) and trial.should_prune():
                raise Unwanted

    try:
        kept = _kept(train_role(config, role, observe), trial, told)
    except Unwanted:
        logger.info("trial %d: pruned, for it is behind the median of the others", trial.number + 1)
        study.tell(trial, state=TrialState.PRUNED)
    except OverBudgetError as error:
        logger.info("trial %d: not trained: %s", trial.number + 1, str(error).splitlines()[0])
        trial.set_constraint("budget", error.excess)
        study.tell(trial, state=TrialState.PRUNED)
    except UserError as error:
        logger.warning("trial %d: %s", trial.number + 1, error)
        trial.set_user_attr("message", str(error).splitlines()[0])
        study.tell(trial, state=TrialState.FAIL)
    else:
        trial.set_user_attr("accuracy", kept["accuracy"])
        study.tell(trial, kept["calibrated_nll"])


def _kept(outcome: Outcome, trial: Trial, told: set[int]) -> dict[str, Any]:
    """The validation of the epoch that was kept; the pruner learns of all, also where nothing was trained."""
    epochs = {line["epoch"]: line for line in outcome.history if line["event"] == "validation"}
    for epoch, line in epochs.items():
        if epoch not in told:
            trial.report(line["calibrated_nll"], epoch)
    return epochs[outcome.facts["kept_epoch"]]


def _result(trial: FrozenTrial) -> TrialResult:
    excess = trial.constraints.get("budget", 0)
    state, message = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned"}.get(trial.state, "failed"), ""
    if excess > 0:
        state, message = "over budget", f"by {excess:,.0f}"
    return TrialResult(
        trial.number,
        dict(trial.params),
        state,
        trial.value,
        trial.user_attrs.get("accuracy"),
        trial.user_attrs.get("message", message),
    )


def winner(results: list[TrialResult]) -> TrialResult:
    """The trial by which the labels of validation are likeliest, then the most accurate one, then the first.

    Raises:
        UserError: none has finished.
    """
    finished = [each for each in results if each.state == "finished"]
    if not finished:
        reasons = "; ".join(dict.fromkeys(f"{each.state} {each.message}".strip() for each in results))
        raise UserError(
            f"none of {len(results)} trials has finished ({reasons}).\nWiden the search, or give more trials."
        )
    return min(finished, key=lambda each: (each.nll or 0.0, -(each.accuracy or 0.0), each.number))
