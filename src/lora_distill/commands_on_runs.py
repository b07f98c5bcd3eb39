"""The commands that take finished runs: to judge, to time, to show, to compare."""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from lora_distill.config import make_config
from lora_distill.errors import UserError
from lora_distill.flags import given
from lora_distill.grouping import group_by_seed
from lora_distill.printing import (
    console,
    print_comparison,
    print_evidence,
    print_lines,
    print_results,
    print_with,
    report_on,
)
from lora_distill.program import OK
from lora_distill.run_folder import REPORT, SPEED, RunFolder, runs_in
from lora_distill.store import write_json


def evaluate(arguments: argparse.Namespace) -> int:
    """A finished run on other texts."""
    from lora_distill.evaluate_run import evaluate_run
    from lora_distill.reporting.sentences import about_data, differences_of_one_seed, warnings_of
    from lora_distill.reporting.tables import role_table

    config = make_config(*given(arguments))
    with warnings.catch_warnings(action="ignore"):  # the libraries' warnings to programmers
        results, path = evaluate_run(arguments.run, config)
    console().print(role_table(results))
    differences = [line[0].upper() + line[1:] for line in differences_of_one_seed(results)]
    print_lines("", *warnings_of([results]), *differences, *about_data([results]))
    _keep(path, results)
    return OK


def speed(arguments: argparse.Namespace) -> int:
    """How fast a run's models answer."""
    from lora_distill.deployment.speed import measure_speed
    from lora_distill.reporting.tables import explain_speed, speed_table

    run = RunFolder(arguments.run)
    results = run.results()
    with warnings.catch_warnings(action="ignore"):
        measured = measure_speed(run, make_config(*given(arguments)).device, arguments.form)
    console().print(speed_table(measured))
    print_lines("", *explain_speed(measured, results))
    _keep(run.path / SPEED, measured)
    return OK


def _keep(path: Path, found: dict[str, Any]) -> None:
    """Write what was found out about a run into its folder, and say so."""
    try:
        write_json(path, found)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}. So it is not kept.\n"
            "To keep it, copy the run to where it can be written, and call this for the copy."
        ) from None
    print_lines(f"Written to {path}")


def show(arguments: argparse.Namespace) -> int:
    """The results of a run, or of a folder of them."""
    from lora_distill.reporting.tables import class_table, role_table

    run = RunFolder(arguments.run)
    runs = [] if run.begun else runs_in(run.path)
    finished = [each for each in runs if each.finished]
    if finished:
        print_evidence(group_by_seed(finished))
        if len(finished) < len(runs):
            print_lines(f"Not finished: {', '.join(each.path.name for each in runs if not each.finished)}")
        return OK
    results = run.results()
    for table in (role_table(results), class_table(results)):
        console().print(table)
    print_results([results])
    return OK


def report(arguments: argparse.Namespace) -> int:
    """The page of finished runs."""
    if arguments.output and (arguments.output.is_dir() or arguments.output.suffix.lower() not in {".html", ".htm"}):
        fault = "is a folder" if arguments.output.is_dir() else "the page is HTML, and its name does not say so"
        raise UserError(f"--output {arguments.output}: {fault}. Give a name that ends in .html.")
    folder, runs = arguments.runs[0], _finished_runs(arguments.runs)
    if len(arguments.runs) > 1:  # each run's own page stays
        folder = Path(os.path.commonpath([run.path.resolve().parent for run in runs]))
    report_on(arguments.output or folder / REPORT, group_by_seed(runs), figures=arguments.figures)
    return OK


def compare(arguments: argparse.Namespace) -> int:
    """Finished runs side by side."""
    groups = group_by_seed(_finished_runs(arguments.runs))
    if arguments.against is not None:
        return _against(arguments.against, groups, arguments.format)
    if arguments.format == "table":
        print_comparison(groups)
        return OK
    from lora_distill.evidence import as_json, gather
    from lora_distill.reporting.summary import as_csv, as_markdown, summarise

    evidence = gather(groups)
    if arguments.format == "json":
        print_lines(json.dumps(as_json(evidence), indent=1))
    else:
        formats = {"csv": as_csv, "markdown": as_markdown}
        sys.stdout.write(formats[arguments.format](summarise(evidence, groups)))
    return OK


def _against(name: str, groups: dict[str, list[RunFolder]], form: str) -> int:
    """Each experiment's student held against that of one of them."""
    from lora_distill.evidence import gather
    from lora_distill.reporting.gains import Gains
    from lora_distill.reporting.summary import summarise

    gains = Gains.over(name, summarise(gather(groups), groups))
    if form == "table":
        print_with(gains.as_table(), gains.explained())
    elif form == "json":
        print_lines(json.dumps(gains.as_json(), indent=1))
    else:
        sys.stdout.write(gains.as_csv() if form == "csv" else gains.as_markdown())
    return OK


def _finished_runs(folders: list[Path]) -> list[RunFolder]:
    runs: dict[Path, RunFolder] = {}
    for folder in folders:
        run = RunFolder(folder)
        found = [run] if run.begun else [each for each in runs_in(run.path) if each.finished]
        if not found:
            raise UserError(f"{folder}: neither a run nor a folder with finished runs in it.")
        runs |= {each.path.resolve(): each for each in found}
    faults = []
    for run in runs.values():
        try:
            run.results()
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    return list(runs.values())
