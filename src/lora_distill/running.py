"""The runs of a suite: one after the other or side by side, resumable, a failure kept apart."""

import errno
import hashlib
import logging
import os
import tempfile
import traceback
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lora_distill.config import Config
from lora_distill.data.catalogue import open_source
from lora_distill.data.files import Columns, read_bytes
from lora_distill.errors import UserError
from lora_distill.home import expanded
from lora_distill.inputs import check_files
from lora_distill.launching import failure, launch, shared_work_first, train_command
from lora_distill.model.base import has_changed
from lora_distill.remembering import once, remembering
from lora_distill.run_folder import REPORT, RunFolder, TakenError, changed_since
from lora_distill.suite import Suite

logger = logging.getLogger(__name__)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # what stops one run will stop the next
RENAME = (
    "Rename the experiment, or the suite, in the file; --overwrite trains all of its experiments again instead, with"
    " --only NAME that one."
)


@dataclass
class SuiteResult:
    """What came of a suite, or has come of it so far.

    Attributes:
        results: metrics.json of each run that finished, in order.
        failures: message of each that did not, by name.
        trained: names of those that were not finished before.
        running: names of those that have begun and not ended.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    trained: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)


def run_suite(
    suite: Suite, outcome: SuiteResult, *, overwrite: bool = False, fail_fast: bool = False, jobs: int = 1
) -> None:
    """Run every experiment; what is finished is read, what was begun goes on, what fails does not stop the rest.

    Args:
        suite: as it was read.
        outcome: is filled, so that others can watch, and read it if this is interrupted.
        overwrite: as in `experiment.run_experiment`, for each of them; if that is interrupted, the next call goes on
            with it.
        fail_fast: whether what fails stops the rest after all.
        jobs: how many run at a time: one in this process, more in processes of their own.

    Raises:
        OSError: the disk is full.
    """
    if overwrite:
        for config in suite.runs.values():
            RunFolder.of(config).mark_outdated()
    places = {config.exp_name: place for place, config in enumerate(suite.runs.values())}
    with closing(_ended(suite, outcome, jobs)) as ended:
        for name, error in ended:
            outcome.running.discard(name)
            if error:
                outcome.failures[name] = f"{error.reason}\n{RENAME}" if isinstance(error, TakenError) else str(error)
                logger.info("%s failed", name)
                if fail_fast:
                    break
            else:
                RunFolder.of(suite.runs[name]).mark_outdated(outdated=False)
            outcome.results.sort(key=lambda results: places[results["exp_name"]])


Ended = Generator[tuple[str, UserError | None]]  # name of a run, and what went wrong


def _ended(suite: Suite, outcome: SuiteResult, jobs: int) -> Ended:
    """First what is finished, whose common inputs are then read once, to see that they are the same."""
    runs = {name: RunFolder.of(config) for name, config in suite.runs.items()}
    finished = [name for name, run in runs.items() if run.done]
    with remembering():
        read = [(name, _run(suite.runs[name], outcome)) for name in finished]
    yield from read
    waiting = [name for name in runs if name not in finished]
    yield from _one_by_one(suite, waiting, outcome) if jobs == 1 else _side_by_side(suite, waiting, outcome, jobs)


def _one_by_one(suite: Suite, waiting: list[str], outcome: SuiteResult) -> Ended:
    for name in waiting:
        _begin(name, suite, outcome)
        error = _run(suite.runs[name], outcome)
        if not error:
            outcome.trained.append(name)
        yield name, error


def _side_by_side(suite: Suite, waiting: list[str], outcome: SuiteResult, jobs: int) -> Ended:
    with tempfile.TemporaryDirectory() as folder:
        commands: dict[str, list[str]] = {}
        for name in shared_work_first({name: suite.runs[name] for name in waiting}, jobs):
            config, run = suite.runs[name], RunFolder.of(suite.runs[name])
            try:
                run.admit(config, resume=run.begun, overwrite=bool(run.outdated_since))
            except UserError as error:
                yield name, error
                continue
            file = Path(folder, f"{len(commands)}.yaml")
            commands[name] = train_command(config, file, resume=run.begun, overwrite=run.outdated_since)
        with closing(launch(commands, jobs, lambda name: _begin(name, suite, outcome))) as ended:
            for name, code, said in ended:
                if full := next((number for number in NO_ROOM if code and os.strerror(number) in said), None):
                    raise OSError(full, os.strerror(full))
                if not code:
                    outcome.results.append(RunFolder.of(suite.runs[name]).results())
                    outcome.trained.append(name)
                yield name, UserError(failure(code, said)) if code else None


def _begin(name: str, suite: Suite, outcome: SuiteResult) -> None:
    outcome.running.add(name)
    logger.info("── %s (%d of %d)", name, list(suite.runs).index(name) + 1, len(suite.runs))


def _run(config: Config, outcome: SuiteResult) -> UserError | None:
    run = RunFolder.of(config)
    since = run.outdated_since
    try:
        outcome.results.append(run_or_read(config, resume=run.begun, overwrite=bool(since), since=since))
    except UserError as error:
        return error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        return UserError(f"broke.\n{traceback.format_exc().strip()[-2000:]}")
    return None


def run_or_read(config: Config, *, resume: bool, overwrite: bool, since: float | None = None) -> dict[str, Any]:
    """The results of an experiment: read when it is finished, without loading what only training needs; else trained.

    Its run has a page of its own then, also where who trained it was killed before that.

    Args:
        config: as it was asked for.
        resume: as in `experiment.run_experiment`.
        overwrite: as in `experiment.run_experiment`.
        since: as in `experiment.run_experiment`.
    """
    run = RunFolder.of(config)
    if config.exp_name and run.finished and not overwrite:
        results = _read(config)
        logger.info("%s: already finished, nothing was trained; --overwrite trains it again", run.path)
        if (run.path / REPORT).is_file():
            return results
    else:
        with remembering():  # or the data would be read twice
            check_files(config, resume=resume)
            from lora_distill.experiment import run_experiment

            results = run_experiment(config, resume=resume, overwrite=overwrite, since=since)
    from lora_distill.reporting.report import write_own_report

    write_own_report(RunFolder(Path(config.output_dir) / results["exp_name"]))
    return results


def read_others(suite: Suite, outcome: SuiteResult) -> list[dict[str, Any]]:
    """The results of a suite's finished runs that were not called for, but for those that are outdated or refused now.

    Args:
        suite: the whole of it.
        outcome: of what was called for.
    """
    called_for = {*outcome.failures, *(results["exp_name"] for results in outcome.results)}
    found = []
    with remembering():
        for name, config in suite.runs.items():
            run = RunFolder.of(config)
            if called_for.isdisjoint((name, config.exp_name)) and run.finished:
                try:
                    if run.outdated_since:
                        raise UserError("it is to be trained again, and has not been yet")
                    found.append(_read(config))
                except UserError as error:
                    logger.warning("%s is left out of what the suite shows: %s", name, str(error).splitlines()[0])
    return found


def _read(config: Config) -> dict[str, Any]:
    run = RunFolder.of(config)
    run.admit(config, resume=True, overwrite=False)
    _check_unchanged(run)
    return run.results()


def _check_unchanged(run: RunFolder) -> None:
    """Results of files that say something else by now would be believed to be those files'."""
    config, environment, data = run.resolved(), run.environment(), run.results()["data"]
    columns = Columns(config.text_column, config.label_column, config.text_pair_column)
    sources = [(config.dataset, columns, data["source"])]
    if config.unlabelled:
        sources.append((config.unlabelled, columns._replace(label=None), data["unlabelled_source"]))
    for name, own_columns, trained_on in sources:
        if trained_on["kind"] in ("file", "folder") and Path(trained_on["location"]).exists():
            now = once(("source", name, *own_columns), partial(open_source, name, own_columns)).origin
            if now["revision"] != trained_on["revision"]:
                raise changed_since(run.path, name)
    answers = config.teacher_predictions
    if answers and (file := expanded(answers)).exists():
        digest = hashlib.sha256(read_bytes(file)).hexdigest()
        if digest != environment["answers"]["revision"]:
            raise changed_since(run.path, answers)
    teacher = environment["given_teacher"]
    models = [environment["base_model"], environment["student_base_model"], *(teacher or {}).get("models", [])]
    for key, recorded in {tuple(each.values()): each for each in models}.items():
        if once(("changed", *key), partial(has_changed, recorded)):
            raise changed_since(run.path, recorded["name"])
