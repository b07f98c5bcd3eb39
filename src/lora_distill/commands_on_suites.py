"""The commands that take a file of many experiments: to plan, run and search them."""

import argparse
import shlex
import warnings
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from lora_distill.config import Config, make_config
from lora_distill.data.wording import counted
from lora_distill.errors import UserError
from lora_distill.flags import given
from lora_distill.printing import (
    console,
    point_to,
    print_evidence,
    print_lines,
    print_results,
    report_line,
    say_error,
)
from lora_distill.program import OK, SOME_FAILED, WRONG_INPUT, program
from lora_distill.run_folder import CONFIG, METRICS, RunFolder, TakenError
from lora_distill.store import read_json, write_json

if TYPE_CHECKING:
    from lora_distill.config import Role
    from lora_distill.evidence import Evidence
    from lora_distill.model.adapter import Classifier
    from lora_distill.running import SuiteResult
    from lora_distill.search import Scalar, Search
    from lora_distill.suite import Suite
    from lora_distill.tuning import TrialResult

OF_ONE_STUDENT = ("student_lora_r", "student_target_layers", "student_rank_pattern", "target_modules")
OF_THE_BUDGET = (
    *("preset", "base_model", "base_depth", "student_base_model", "student_depth", "student_budget", "use_dora"),
    *OF_ONE_STUDENT,
)


def tune(arguments: argparse.Namespace) -> int:
    """A search of settings, and its winner."""
    from lora_distill.running import run_or_read
    from lora_distill.search import read_search
    from lora_distill.tuning import misfits

    with warnings.catch_warnings(action="ignore"):  # the libraries' warnings to programmers
        search = read_search(arguments.file, *given(arguments), misfits)
    try:
        settings, said = _search(search)
        config = search.config(settings, search.name)
        run = RunFolder.of(config)
        finished = run.finished
        results = run_or_read(config, resume=run.begun, overwrite=False)
    except (KeyboardInterrupt, OSError) as error:
        error.add_note("The same command goes on.")
        raise
    except TakenError as error:
        raise UserError(f"{error.reason}\nGive the search another `name`, or move that run away.") from None
    print_results([results])
    print_lines(*said, f"Their settings, for train --config: {run.path / CONFIG}")
    point_to(run.path, is_new=not finished)
    return OK


def _search(search: "Search") -> "tuple[dict[str, Scalar], list[str]]":
    """The best settings of a student and then of its control, and what there is to say of the choice."""
    settings: dict[str, Scalar] = {}
    said, number = [], 0  # of the student's trial, by which the control's search is told from that of another student's
    student = search.of_student()
    if student.space:
        best = _best(student, "student")
        settings, number = best.settings, best.number + 1
        said.append(f"The best student is that of trial {number}.")
    control = search.of_control(settings, f"{search.name}-control-{number}")
    if search.config(settings).no_control:
        return settings, said
    if not control.space:
        is_taught_by_it = search.config(settings).learn_from == "both"
        has = "is the one that the student learns from" if is_taught_by_it else "has the student's settings"
        told = f"The control {has}, and its settings were chosen for the student: that flatters the student."
        return settings, [*said, told]
    best = _best(control, "control")
    return settings | best.settings, [*said, f"The best control is that of its trial {best.number + 1}."]


def _best(search: "Search", role: "Role") -> "TrialResult":
    from lora_distill.reporting.tables import trials_table
    from lora_distill.tuning import run_trials, winner

    with warnings.catch_warnings(action="ignore"):
        trials = run_trials(search, role)
    console().print(trials_table(trials, role))
    return winner(trials)


def suite(arguments: argparse.Namespace) -> int:
    """The experiments of a file."""
    from lora_distill.checking import misfits
    from lora_distill.planning import compare_plan
    from lora_distill.running import SuiteResult, run_suite
    from lora_distill.suite import read_suite
    from lora_distill.watching import watched

    _check_jobs(arguments)
    check = partial(misfits, overwrite=arguments.overwrite)
    suite = read_suite(arguments.file, *given(arguments), only=arguments.only, check=check)
    whole = read_suite(arguments.file, *given(arguments)) if arguments.only else suite
    outcome, is_through = SuiteResult(), False
    try:
        how = {name: getattr(arguments, name) for name in ("overwrite", "fail_fast", "jobs")}
        with watched(suite, outcome):
            run_suite(suite, outcome, **how)
        is_through = True
    except (KeyboardInterrupt, OSError) as error:
        error.add_note(f"The same command{' without --overwrite' if arguments.overwrite else ''} goes on.")
        raise
    finally:
        if outcome.results:
            _show_suite(whole, outcome, write=is_through)
    if outcome.results:
        results, first = outcome.results[0], suite.folder
        run = shlex.quote(str(first / results["exp_name"]))
        own = f"{program()} train --base_model minilm --learning_rate 1e-3 --dataset YOUR_FILE.csv"
        own += "   (columns text, label)"
        if results["data"]["source"]["kind"] in ("file", "folder"):
            own = f"{program()} evaluate {run} --dataset FILE   (other labelled texts)"
        print_lines(
            *(compare_plan(suite) if outcome.trained and not outcome.failures else ()),
            f"Everything is in {first}, a folder for each run.",
            f"Next: {program()} show {run}",
            f"      {own}",
        )
    for message in dict.fromkeys(outcome.failures.values()):  # one mistake in the base fails them all
        names = ", ".join(name for name, told in outcome.failures.items() if told == message)
        say_error(f"{names}: {message}")
    if not outcome.failures:
        return OK
    return SOME_FAILED if outcome.results else WRONG_INPUT


def _check_jobs(arguments: argparse.Namespace) -> None:
    if arguments.jobs < 1:
        raise UserError(f"--jobs {arguments.jobs}: one experiment at least runs at a time.")


def _show_suite(suite: "Suite", outcome: "SuiteResult", *, write: bool) -> None:
    """Print what a suite's runs show, and before that, lest a closed pipe loses it, `write` it beside them.

    All finished runs are told, whichever were called for; none that was refused. What forbids to tell one is a failure
    beside the others, so that it hides neither them nor what stopped the suite.
    """
    from lora_distill.running import read_others

    order = [config.exp_name for config in suite.runs.values()]
    results = sorted([*outcome.results, *read_others(suite, outcome)], key=lambda each: order.index(each["exp_name"]))
    groups = _groups_of(suite, results)
    is_told = not outcome.failures and _is_told(suite, groups)
    evidence: dict[str, Evidence] = {}
    said: list[str] = []
    if not is_told or any(len(runs) > 1 for runs in suite.experiments.values()):
        groups, evidence = _gather(suite, groups, outcome)
        left = {run.path.name for run in chain(*groups.values())}
        results = [each for each in results if each["exp_name"] in left]
    if write and evidence:
        from lora_distill.evidence import as_json

        told = {each["exp_name"] for each in results}
        missing = [name for name, config in suite.runs.items() if config.exp_name not in told]
        write_json(suite.file(".json"), {"suite": suite.name, "missing": missing} | as_json(evidence))
        said.append(f"Written to {suite.file('.json')}")
        if not is_told:
            from lora_distill.reporting.report import write_report

            write_report(suite.file(".html"), evidence, groups, missing=missing)
            said.append(report_line(suite.file(".html")))
    if results:
        print_evidence(groups, results, evidence)
    print_lines(*said)


def _gather(
    suite: "Suite", groups: dict[str, list[RunFolder]], outcome: "SuiteResult"
) -> "tuple[dict[str, list[RunFolder]], dict[str, Evidence]]":
    """The runs of which something can be told, and what they show; that it cannot of others is their failure."""
    from lora_distill.evidence import gather

    try:
        return groups, gather(groups)
    except UserError:
        left = {name: _tellable(name, runs, suite, outcome) for name, runs in groups.items()}
        left = {name: runs for name, runs in left.items() if runs}
        return left, gather(left)


def _tellable(name: str, runs: list[RunFolder], suite: "Suite", outcome: "SuiteResult") -> list[RunFolder]:
    """The runs of an experiment whose answers are there; none where they do not belong together."""
    from lora_distill.evidence import gather, read_predictions

    left = []
    for run in runs:
        try:
            read_predictions(run)
            left.append(run)
        except UserError as error:
            outcome.failures[run.path.name.removeprefix(f"{suite.name}-")] = str(error)
    try:
        gather({name: left})
    except UserError as error:
        outcome.failures[name] = str(error)
        return []
    return left


def _groups_of(suite: "Suite", results: list[dict[str, Any]]) -> dict[str, list[RunFolder]]:
    """The runs with these results, by experiment."""
    told = {each["exp_name"] for each in results}
    groups = {name: [run for run in runs if run.path.name in told] for name, runs in suite.groups().items()}
    return {name: runs for name, runs in groups.items() if runs}


def _is_told(suite: "Suite", groups: dict[str, list[RunFolder]]) -> bool:
    """Whether the suite's files are there and of these very runs, none of which has finished since."""
    files, runs = [suite.file(".json"), suite.file(".html")], [run for runs in groups.values() for run in runs]
    try:
        written = min(file.stat().st_mtime for file in files)
        told = [name for each in read_json(files[0])["experiments"].values() for name in each["runs"]]
        finished = max((run.path / METRICS).stat().st_mtime for run in runs)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
    return written >= finished and told == [run.path.name for run in runs]


def plan(arguments: argparse.Namespace) -> int:
    """What a suite would train, or what a budget allows."""
    values, origins = given(arguments)
    _check_jobs(arguments)
    if arguments.file and arguments.classes is not None:
        raise UserError(f"--classes: the data of {arguments.file} say how many; it is for plan without a suite.")
    if not arguments.file:
        others = [origin for name, origin in origins.items() if name not in OF_THE_BUDGET]
        if others := [*others, *(["--jobs"] if arguments.jobs > 1 else [])]:
            only = ", ".join(f"--{name}" for name in ("classes", *OF_THE_BUDGET))
            raise UserError(f"{others[0]}: is for a suite; give its FILE. Without one, plan takes {only}.")
        return _plan_budget(make_config(values, origins), 4 if arguments.classes is None else arguments.classes)
    from lora_distill.checking import misfits
    from lora_distill.planning import compare_plan, describe_plan, keep_plan
    from lora_distill.suite import read_suite

    suite = read_suite(arguments.file, values, origins, check=misfits)
    if all(RunFolder.of(config).done for config in suite.runs.values()):
        print_lines(f"{counted(len(suite.runs), 'run')}, all finished.", *compare_plan(suite))
        return OK
    from lora_distill.forecast import plan_suite
    from lora_distill.reporting.tables import plan_table

    with warnings.catch_warnings(action="ignore"):
        plan = plan_suite(suite, arguments.jobs)
    keep_plan(plan, suite)
    console().print(plan_table(plan))
    print_lines("", *describe_plan(plan, suite))
    return OK


def _plan_budget(config: Config, classes: int) -> int:
    from lora_distill.model.adapter import load_classifier, outline
    from lora_distill.model.base import resolve_base_model
    from lora_distill.model.budget import all_fits
    from lora_distill.model.cut import Cut, cut_config
    from lora_distill.reporting.tables import budget_table

    if classes < 2:
        raise UserError(f"--classes: {classes} is too few; it takes 2 labels at least.")
    with warnings.catch_warnings(action="ignore"):
        base = resolve_base_model(config.student_base_model or config.base_model)
        classifier = outline(load_classifier(base, [str(label) for label in range(classes)], seed=0))
        layers, cut = int(classifier.model.config.num_hidden_layers), Cut.of(config, "student")
        if cut.depth and cut.depth > layers:
            raise UserError(f"--{cut.setting} {cut.depth}: {base.name} has {counted(layers, 'layer')}.")
        classifier = outline(classifier, cut_config(classifier.model.config, cut))
        fits = all_fits(classifier, config.student_budget, dora=config.use_dora)
        asked = _asked_student(config, classifier) if config.model_fields_set & set(OF_ONE_STUDENT) else ""
    console().print(budget_table(fits, base.name, config.student_budget))
    print_lines("", "Rank: the largest power of two that fits; smaller ones do, too.")
    if not all(fit.rank for fit in fits):
        print_lines("Without a rank: over the budget with rank 1 already, which is what is counted.")
    if asked:
        print_lines(asked)
    return OK


def _asked_student(config: Config, classifier: "Classifier") -> str:
    """What the very student takes that the flags ask for; it is refused if it is over its budget."""
    from lora_distill.model.adapter import AdapterSettings, attach_adapter
    from lora_distill.model.budget import check_budget
    from lora_distill.model.layers import count_layers

    if config.is_default("student_target_layers"):
        layers = min(config.student_target_layers, count_layers(classifier.model))
        config = config.model_copy(update={"student_target_layers": layers})
    settings = AdapterSettings.of(config, "student")
    count = check_budget(attach_adapter(classifier, settings, seed=0), config.student_budget)
    ranks = ", ".join(f"{rank} on layer {layer}" for layer, rank in settings.rank_pattern)
    return (
        f"Asked for: {count.total:,} trainable parameters, {count.lora:,} in LoRA of rank {settings.rank} on"
        f" {counted(settings.target_layers, 'layer')}{f' ({ranks})' if ranks else ''}, {count.head:,} in the head."
    )
