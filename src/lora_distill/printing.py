"""Finished runs on standard output and as a page; what needs heavy libraries is imported when it is called."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lora_distill.data.wording import counted
from lora_distill.program import program

if TYPE_CHECKING:
    from rich.table import Table

    from lora_distill.evidence import Evidence
    from lora_distill.run_folder import RunFolder

PIPED_WIDTH = 140


def print_results(results: list[dict[str, Any]]) -> None:
    """A line for each run, and what it means.

    Args:
        results: what each metrics.json holds.
    """
    from lora_distill.reporting.tables import explain, results_table

    print_with(results_table(results), explain(results))


def print_evidence(
    groups: "dict[str, list[RunFolder]]",
    results: list[dict[str, Any]] | None = None,
    evidence: "dict[str, Evidence] | None" = None,
) -> "dict[str, Evidence] | None":
    """Print every run, where each experiment has one seed; else what they show over seeds.

    Args:
        groups: runs that differ in nothing but the seed, by the experiment's name.
        results: what the metrics.json of each holds; read from there if None.
        evidence: where it has been gathered already.

    Returns:
        What they show over seeds, if it was printed.
    """
    if all(len(runs) == 1 for runs in groups.values()):
        print_results(results or [run.results() for runs in groups.values() for run in runs])
        return None
    from lora_distill.evidence import gather
    from lora_distill.reporting.evidence_tables import evidence_table, explain_evidence
    from lora_distill.reporting.summary import summarise

    evidence = evidence or gather(groups)
    experiments = summarise(evidence, groups)
    print_with(evidence_table(experiments), explain_evidence(experiments))
    return evidence


def print_comparison(groups: "dict[str, list[RunFolder]]") -> None:
    """Print runs as `print_evidence` does, and what else there is to say of several.

    That is: of two, what differs between them; of others, the figures beside accuracy; and with one seed each which
    student is best.

    Args:
        groups: runs that differ in nothing but the seed, by the experiment's name.
    """
    evidence = print_evidence(groups)
    if not evidence and len(groups) == 1:
        return
    from lora_distill.evidence import gather
    from lora_distill.reporting.evidence_tables import figures_table, pair_table
    from lora_distill.reporting.pairs import pairs
    from lora_distill.reporting.ranking import say_ranking
    from lora_distill.reporting.summary import summarise

    experiments = summarise(evidence or gather(groups), groups)
    table = pair_table(pairs(experiments)[:2]) if len(experiments) == 2 else figures_table(experiments)
    print_with(table, [] if evidence else ["", *say_ranking(experiments)])


def print_with(table: "Table", lines: list[str]) -> None:
    """A table, and what it means."""
    screen = console()
    screen.print(table)
    for line in lines:
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
    figures: Path | None = None,
) -> None:
    """Write the page of these runs, and its figures where they are wanted, and say where they are.

    Args:
        path: of the page.
        groups: runs that differ in nothing but the seed, by the experiment's name.
        figures: the folder for each figure of the page as a file.
    """
    from lora_distill.evidence import gather
    from lora_distill.reporting.report import write_report

    written = write_report(path, gather(groups), groups, figures)
    print_lines(report_line(path))
    if figures:
        print_lines(f"Figures: {figures}   ({counted(written, 'plot')}, each as SVG and PNG)")


def report_line(path: Path) -> str:
    """Where a page is."""
    return f"Report: {path}   (open it in a browser)"


def point_to(folder: Path, *, is_new: bool) -> None:
    """Say where a finished run is, its page if it `is_new`, and what to do next."""
    from lora_distill.run_folder import REPORT

    if is_new:
        print_lines(report_line(folder / REPORT))
    print_lines(
        f"Everything is in {folder}",
        f"Next: {program()} show {shlex.quote(str(folder))}",
        f"      {program()} evaluate {shlex.quote(str(folder))} --dataset FILE   (other labelled texts)",
    )


def say_error(message: str) -> None:
    """A message of what went wrong, on standard error."""
    sys.stderr.write(f"error: {message}\n")
