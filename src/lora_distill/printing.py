"""Finished runs on standard output and as a page; what needs heavy libraries is imported when it is called."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from lora_distill.run_folder import RunFolder

PIPED_WIDTH = 140


def print_results(results: list[dict[str, Any]]) -> None:
    """A line for each run, and what it means.

    Args:
        results: what each metrics.json holds.
    """
    from lora_distill.reporting.tables import explain, results_table

    screen = console()
    screen.print(results_table(results))
    for line in explain(results):
        screen.print(line, markup=False, highlight=False)


def print_evidence(groups: dict[str, list[RunFolder]], results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Print every run, where each experiment has one seed; else what they show over seeds.

    Args:
        groups: runs that differ in nothing but the seed, by the experiment's name.
        results: what the metrics.json of each holds.

    Returns:
        What they show over seeds, for a file.
    """
    if all(len(runs) == 1 for runs in groups.values()):
        print_results(results)
        return None
    from lora_distill.evidence import as_json, gather
    from lora_distill.reporting.tables import evidence_table, explain_evidence

    evidence = gather(groups)
    screen = console()
    screen.print(evidence_table(evidence))
    for line in explain_evidence(evidence, results):
        screen.print(line, markup=False, highlight=False)
    return as_json(evidence)


def print_lines(*lines: str) -> None:
    """As they are."""
    for line in lines:
        sys.stdout.write(f"{line}\n")


def console() -> Console:
    """Standard output; wide enough for a table where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)


def report_on(path: Path, groups: dict[str, list[RunFolder]]) -> None:
    """Write the page of these runs and say where it is.

    Args:
        path: of the page.
        groups: runs that differ in nothing but the seed, by the experiment's name.
    """
    from lora_distill.evidence import gather
    from lora_distill.reporting.report import write_report

    write_report(path, gather(groups), groups)
    print_lines(f"Report: {path}   (open it in a browser)")
