"""One experiment: load, teach, distil, evaluate, save."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from lora_distill.config import Config, Role
from lora_distill.errors import UserError
from lora_distill.made_with import made_with
from lora_distill.memory import peak_memory
from lora_distill.naming import automatic_name
from lora_distill.preparation import Prepared, prepare
from lora_distill.profiling import stage, stages
from lora_distill.progress import run_log
from lora_distill.results import judge, judged, save
from lora_distill.run_folder import ENVIRONMENT, LOG, RunFolder, changed_since, check_writable
from lora_distill.store import ARTEFACTS, lock, working_seconds, write_json
from lora_distill.tracking import Tracking
from lora_distill.training.loop import Observer, nobody
from lora_distill.training.outcome import Outcome
from lora_distill.training.plan import enough_memory
from lora_distill.trainings import run_training, trainings

logger = logging.getLogger(__name__)
SMALLER = "Lower --batch_size or --max_length, with --overwrite or another --exp_name."


def run_experiment(
    config: Config, *, resume: bool = False, overwrite: bool = False, since: float | None = None
) -> dict[str, Any]:
    """Train teacher, student and control, judge them on the test split and save all of it.

    Args:
        config: as it was asked for.
        resume: go on with the run of that name.
        overwrite: replace the run of that name, and train everything again.
        since: when that began, in seconds since the epoch, if not now: what others have trained again by now is shared
            although `overwrite` is set.

    Returns:
        What metrics.json holds.

    Raises:
        UserError: something that was given is wrong; nothing has been written then.
    """
    started, since = working_seconds(), (since or time.time()) if overwrite else 0.0
    resume = resume and not overwrite
    with run_log() as log_into, stages() as spent:
        with stage("prepare"):
            prepared, begun = prepare_run(config, resume=resume, overwrite=overwrite, since=since)
        run = RunFolder.of(prepared.config)
        with run.lock(), run.resumable(), prepared.plan.with_threads(), enough_memory(prepared.plan.device, SMALLER):
            if run.finished and not overwrite:  # by another process, while this one waited for it
                run.admit(config, resume=resume, overwrite=False)
                return run.results()
            environment = _begin(run, config, prepared, begun, overwrite=overwrite, since=since)
            since = environment.get("since", 0.0)  # what trains everything again does so when it goes on, too
            log_into(run.path / LOG)
            what = "goes on" if resume else "begun"
            logger.info("%s: %s; if it is stopped, go on with: %s", run.path, what, run.resume_command())
            with _stopwatch(run, environment, started, spent) as (cost, keep):
                tracking = Tracking(prepared.config, resume=resume)
                outcomes = {
                    role: tracking.follow(role, partial(run_training, prepared, training, since), keep)
                    for role, training in trainings(prepared).items()
                }
                outcomes = judged(outcomes)
                with stage("judgement"):
                    results = judge(prepared, outcomes, environment["fallbacks"])
                for role, outcome in outcomes.items():
                    tracking.test(role, outcome, results[role]["test"])
                results |= cost()
                save(run, prepared, outcomes, results)
    return results


def prepare_run(
    config: Config, *, resume: bool, overwrite: bool, since: float = 0.0
) -> tuple[Prepared, dict[str, Any] | None]:
    """Check everything before anything is written; of a run that has a folder, also the environment it began in."""
    run = RunFolder.of(config)
    if not config.exp_name:
        check_writable(run.path)
        prepared = prepare(config)
        with lock(Path(config.output_dir) / ARTEFACTS, "names"):  # so that no two processes take one
            prepared = prepared.named(automatic_name(prepared.config))
            environment = _environment(config, prepared, since)
            RunFolder.of(prepared.config).begin(prepared.config, environment)
        return prepared, environment
    if run.begun and not (run.finished or resume or overwrite) and run.in_training:
        raise UserError(
            f"{run.path}: another process is training this run now.\nWait for its end, or choose another --exp_name."
        )
    run.admit(config, resume=resume, overwrite=overwrite)
    if overwrite or not run.begun:
        return prepare(config), None
    begun = run.environment()
    watching = {"cache_limit": config.cache_limit, "report_to": config.report_to}
    prepared = prepare(run.resolved().model_copy(update=watching), begun)
    if prepared.dataset.fingerprint != begun["data"]["fingerprint"]:
        raise changed_since(run.path, prepared.dataset.name)
    return prepared, begun


def _begin(
    run: RunFolder,
    config: Config,
    prepared: Prepared,
    begun: dict[str, Any] | None,
    *,
    overwrite: bool,
    since: float,
) -> dict[str, Any]:
    """Make the run's folder, or go on in it under the plan that it was begun with; what environment.json says.

    The run's lock is held by now. Another process may have had it in the meantime.
    """
    if begun:
        if run.environment()["requested"] != begun["requested"]:
            raise UserError(f"{run.path}: another process has begun it anew with other settings. Call again.")
        # The machine is that which trains from here on; what other versions trained is trained again.
        environment = run.environment() | made_with()
        write_json(run.path / ENVIRONMENT, environment)
        return environment
    run.admit(config, resume=False, overwrite=overwrite)
    if overwrite:
        run.remove()
    environment = _environment(config, prepared, since)
    run.begin(prepared.config, environment)
    return environment


@contextmanager
def _stopwatch(
    run: RunFolder, environment: dict[str, Any], started: float, spent: dict[str, float]
) -> Iterator[tuple[Callable[[], dict[str, Any]], Observer]]:
    """What the run took, whole and by stage, with earlier sessions; and what keeps that after each epoch.

    So a session that is stopped leaves all of it for the next; one that is killed, what was kept last.
    """

    def cost() -> dict[str, Any]:
        before = environment.get("cost", {"seconds": {}})
        return {
            "seconds": float(environment.get("seconds", 0.0)) + working_seconds() - started,
            "cost": {
                "seconds": dict(Counter(before["seconds"]) + Counter(spent)),
                "peak_memory": max(before.get("peak_memory", 0), peak_memory()),
            },
        }

    def keep(line: dict[str, Any]) -> None:
        if line["event"] == "validation":
            write_json(run.path / ENVIRONMENT, environment | cost())

    try:
        yield cost, keep
    except BaseException:
        with suppress(OSError):
            write_json(run.path / ENVIRONMENT, environment | cost())
        raise


def train_role(config: Config, role: Role, observe: Observer) -> Outcome:
    """Train a role of a config, what a student learns from before it, as far as validation shows: test is left alone.

    Nothing is written but what the runs of the output folder share.

    Args:
        config: as it was asked for; its name is not used.
        role: "student" or "control".
        observe: of its training, if it is trained.

    Raises:
        UserError: something that was given is wrong; an OverBudgetError where only the student is too large.
    """
    prepared = prepare(config.model_copy(update={"exp_name": ""}))
    with prepared.plan.with_threads(), enough_memory(prepared.plan.device, SMALLER):
        wanted = trainings(prepared)
        if role == "student":
            for other in takewhile("student".__ne__, wanted):  # all before it is what it learns from
                run_training(prepared, wanted[other], 0.0, nobody, judged=False)
        return run_training(prepared, wanted[role], 0.0, observe, judged=False)


def _environment(config: Config, prepared: Prepared, since: float) -> dict[str, Any]:
    dataset = prepared.dataset
    return {
        "requested": {"config": config.model_dump(mode="json"), "named": sorted(config.model_fields_set)},
        "plan": prepared.plan.as_dict(),
        "since": since,
        "fallbacks": prepared.fallbacks,
        **made_with(),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "source": dataset.source,
            "unlabelled_source": dataset.unlabelled_source,
        },
        "base_model": prepared.base.whole.recorded(),
        "student_base_model": prepared.student_base.whole.recorded(),
        "given_teacher": prepared.given_teacher.recorded() if prepared.given_teacher else None,
        "answers": {"revision": prepared.answers.revision} if prepared.answers else None,
    }
