"""Experiments as tables for the terminal: over seeds, figure by figure, and two side by side."""

import statistics
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from lora_distill.config import CONTROLS, ROLES, Role
from lora_distill.data.wording import points
from lora_distill.evidence import Evidence
from lora_distill.reporting.ranking import say_ranking
from lora_distill.reporting.sentences import (
    about_data,
    about_speed,
    interval,
    one_line,
    percent,
    roles_in,
    seeds_draw,
    warnings_of,
)
from lora_distill.reporting.summary import FIGURES, Experiment
from lora_distill.reporting.tables import ABSENT, plain_table, size_of

SHOWN = ("macro F1", "NLL", "ECE")


def evidence_table(experiments: Sequence[Experiment]) -> Table:
    """One row for each experiment: means over seeds, with their standard deviation where there are several."""
    roles = roles_in(each.evidence.accuracy for each in experiments)
    controls = [control for control in CONTROLS if control in roles]
    leads = [heading for control in controls for heading in (f"Student -\n{control}", "p\n(Holm)")]
    headings = ("Trainable\nof total", "Seeds", *(role.capitalize() for role in roles), *leads)
    table = plain_table("Accuracy on the test split, over seeds", "Experiment", *headings)
    for experiment in experiments:
        each = experiment.evidence
        accuracy = each.accuracy
        cells = [cell for control in controls for cell in _compared(each, control)]
        table.add_row(
            Text(one_line(experiment.name)),
            size_of(experiment.results[0]["student"]),
            str(len(each.seeds)),
            *(_over_seeds(accuracy[role]) if role in accuracy else ABSENT for role in roles),
            *cells,
        )
    return table


def _compared(evidence: Evidence, control: Role) -> tuple[str, str]:
    """The difference with its interval, and the corrected p value."""
    if control not in evidence.comparisons:
        return ABSENT, ABSENT
    found = evidence.comparisons[control].recipe["accuracy"]
    difference = f"{points(found.difference)}\n{interval(found.low, found.high)}"
    return difference, f"{evidence.verdicts[control].p_value:.2g}"


def _over_seeds(accuracies: list[float]) -> str:
    if len(accuracies) == 1:
        return percent(accuracies[0])
    return f"{percent(statistics.mean(accuracies))}\n± {100 * statistics.stdev(accuracies):.2f}"


def explain_evidence(experiments: Sequence[Experiment]) -> list[str]:
    """What the table of evidence means: a blank line, what speaks against it, the verdicts, which student is best."""
    results = [each for experiment in experiments for each in experiment.results]
    lines = [
        "",
        *warnings_of(results),
        *_findings(experiments),
        *say_ranking(experiments),
        "Means over seeds, ± their standard deviation. Student - control: points, with a 95% interval for other"
        " texts of this kind and other seeds.",
        *seeds_draw({each.name: each.evidence for each in experiments}),
        *about_data(results),
        *about_speed((each.name, each.results[0]) for each in experiments),
    ]
    return list(dict.fromkeys(lines))


def _findings(experiments: Sequence[Experiment]) -> list[str]:
    """Each finding in words, once for all experiments without a control."""
    without = [each for each in experiments if each.finding == "no control"]
    said = [(one_line(each.name), each.sentence) for each in experiments if each.finding != "no control"]
    if without:
        said.append((", ".join(one_line(each.name) for each in without), without[0].sentence))
    return [f"- {name}: {sentence}" for name, sentence in said]


def figures_table(experiments: Sequence[Experiment]) -> Table:
    """One row for each role of each experiment: what there is beside its accuracy, means over seeds."""
    table = plain_table("Beside the accuracy", "Experiment", "Role", *(name[0].upper() + name[1:] for name in SHOWN))
    for each in experiments:
        for role in ROLES:
            found = [each.mean(role, *FIGURES[name]) for name in SHOWN]
            if None not in found:
                table.add_row(Text(one_line(each.name)), role, *(f"{value:.4f}" for value in found))
    return table


def pair_table(two: Sequence[dict[str, Any]]) -> Table:
    """What differs between two, a setting or a figure a row.

    Args:
        two: as `pairs` has them.
    """
    table = plain_table("What differs between two", "")
    first, second = (dict(each["said"]) for each in two)
    for each in two:
        table.add_column(Text(each["name"]), justify="right", overflow="fold")
    for key in dict.fromkeys([*first, *second]):
        values = first.get(key, ABSENT), second.get(key, ABSENT)
        if values[0] != values[1]:
            table.add_row(key, *map(Text, values))
    return table
