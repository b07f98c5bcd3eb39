"""Finished runs on standard output and as a page; what needs heavy libraries is imported when it is called."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lora_distill.data.wording import counted

if TYPE_CHECKING:
    from lora_distill.evidence import Evidence
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


def print_evidence(
    groups: "dict[str, list[RunFolder]]", results: list[dict[str, Any]], evidence: "dict[str, Evidence] | None" = None
) -> None:
    """Print every run, where each experiment has one seed; else what they show over seeds.

    Args:
        groups: runs that differ in nothing but the seed, by the experiment's name.
        results: what the metrics.json of each holds.
        evidence: where it has been gathered already.
    """
    if all(len(runs) == 1 for runs in groups.values()):
        print_results(results)
        return
    from lora_distill.evidence import gather
    from lora_distill.reporting.summary import summarise
    from lora_distill.reporting.tables import evidence_table, explain_evidence

    evidence = evidence or gather(groups)
    experiments = summarise(evidence, groups)
    screen = console()
    screen.print(evidence_table(experiments))
    for line in explain_evidence(experiments):
        screen.print(line, markup=False, highlight=False)


def print_lines(*lines: str) -> None:
    """As they are."""
    for line in lines:
        sys.stdout.write(f"{line}\n")


def console() -> Console:
    """Standard output; wide enough for a table where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)


def report_on(
    path: Path,
    groups: "dict[str, list[RunFolder]]",
    evidence: "dict[str, Evidence] | None" = None,
    figures: Path | None = None,
) -> None:
    """Write the page of these runs, and its figures where they are wanted, and say where they are.

    Args:
        path: of the page.
        groups: runs that differ in nothing but the seed, by the experiment's name.
        evidence: where it has been gathered already.
        figures: the folder for each figure of the page as a file.
    """
    from lora_distill.evidence import gather
    from lora_distill.reporting.report import write_report

    written = write_report(path, evidence or gather(groups), groups, figures)
    print_lines(report_line(path))
    if figures:
        print_lines(f"Figures: {figures}   ({counted(written, 'plot')}, each as SVG and PNG)")


def report_line(path: Path) -> str:
    """Where a page is."""
    return f"Report: {path}   (open it in a browser)"


def say_error(message: str) -> None:
    """A message of what went wrong, on standard error."""
    sys.stderr.write(f"error: {message}\n")
