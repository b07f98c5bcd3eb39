"""The report: one page that opens from disk, asks no network, and answers first whether the student is worth having."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from scipy.special import softmax

from lora_distill import __version__
from lora_distill.config import ROLES
from lora_distill.evaluation.calibration import reliability_bins
from lora_distill.evaluation.comparison import learned_from_teacher
from lora_distill.evidence import Evidence, Predictions, read_predictions
from lora_distill.reporting.sentences import (
    SPEED,
    about_data,
    one_line,
    percent,
    points,
    same_backbone,
    seeds_draw,
    warnings_of,
)
from lora_distill.reporting.summary import Experiment, summarise
from lora_distill.reporting.svg import Point, curves, reliability, scatter
from lora_distill.run_folder import HISTORY, RunFolder
from lora_distill.store import read_jsonl, write_text

TEMPLATE = "report.html.j2"
ROWS_TO_READ, MOST_LETTERS = 5, 400
HIDDEN = ("output_dir", "exp_name", "cache_limit", "device")


def write_report(path: Path, experiments: Mapping[str, Evidence], runs: Mapping[str, list[RunFolder]]) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        experiments: the evidence, by experiment.
        runs: finished runs of each.
    """
    each = summarise(experiments, runs)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "points": points, "one_line": one_line}
    page = environment.get_template(TEMPLATE).render(
        experiments=each,
        roles=ROLES,
        overview=Markup(_overview(each)),  # noqa: S704 - ElementTree has escaped it
        sections=[_section(experiment, each[0]) for experiment in each],
        notes=_notes(each),
        version=__version__,
    )
    write_text(path, page)


def _overview(experiments: list[Experiment]) -> str:
    marks = []
    for each in experiments:
        for role in ROLES:
            found = each.accuracy(role)
            parameters = each.results[0].get(role, {}).get("trainable_parameters")
            if found and parameters:
                mean, low, high = found
                said = f"{one_line(each.name)}, {role}: {percent(mean)} [{percent(low)}, {percent(high)}]"
                label = f"{said}, {parameters['total']:,} trainable parameters"
                marks.append(Point(parameters["total"], mean, low, high, role, label))
    title = "Accuracy against trainable parameters, with 95% intervals"
    return scatter(marks, "Trainable parameters", "Accuracy on the test split", title, front=True)


def _section(experiment: Experiment, first: Experiment) -> dict[str, Any]:
    """What is shown of one experiment: plots are of its first seed."""
    results, run = experiment.results[0], experiment.runs[0]
    roles = [role for role in ROLES if role in results]
    name, predictions = one_line(experiment.name), read_predictions(run)
    settings, others = (each.runs[0].resolved().model_dump(mode="json") for each in (experiment, first))
    return {
        "experiment": experiment,
        "curves": Markup(_curves(run, name)),  # noqa: S704 - ElementTree has escaped it
        "reliability": Markup(_reliability(predictions, name)),  # noqa: S704
        "rows": _rows_to_read(predictions, results["data"]["label_names"]),
        "learned": learned_from_teacher(predictions.logits, predictions.labels) if "control" in roles else None,
        "roles": [(role, results[role]) for role in roles],
        "classes": [
            (one_line(label), [(role, results[role]["test"]["per_class"][label]) for role in roles])
            for label in results["data"]["label_names"]
        ],
        "labels": [one_line(label) for label in results["data"]["label_names"]],
        "confusion": results["student"]["test"]["confusion"],
        "agreement": results["agreement"],
        "settings": {key: value for key, value in settings.items() if key not in HIDDEN},
        "differing": [key for key in settings if key not in (*HIDDEN, "seed") and settings[key] != others[key]],
        "environment": run.environment(),
    }


def _curves(run: RunFolder, name: str) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for line in read_jsonl(run.path / HISTORY):
        if line["event"] == "validation":
            series.setdefault(line["role"], []).append((line["epoch"], line["accuracy"]))
    if not series:
        return ""
    return curves(series, "Epoch", "Accuracy on validation", f"{name}: accuracy on validation after each epoch")


def _reliability(predictions: Predictions, name: str) -> str:
    bins: dict[str, list[tuple[float, float, int]]] = {
        role: reliability_bins(logits, predictions.labels) for role, logits in predictions.logits.items()
    }
    return reliability(bins, f"{name}: share of right answers against confidence")


def _rows_to_read(predictions: Predictions, label_names: list[str]) -> list[dict[str, Any]]:
    """The rows that tell most: where the student is wrong and sure, goes against its teacher, or the label may be."""
    probabilities = {role: softmax(each.astype(np.float64), axis=1) for role, each in predictions.logits.items()}
    answers = {role: each.argmax(axis=1) for role, each in probabilities.items()}
    sure = {role: each.max(axis=1) for role, each in probabilities.items()}
    labels, student, teacher = predictions.labels, answers["student"], answers["teacher"]
    all_alike = np.all([each == student for each in answers.values()], axis=0)
    kinds = {
        "every model says another class than the label": (
            all_alike & (student != labels),
            np.min(list(sure.values()), 0),
        ),
        "wrong, and sure of it": ((student != labels) & ~all_alike, sure["student"]),
        "against its teacher": (student != teacher, sure["student"] * sure["teacher"]),
    }
    rows, taken = [], set()
    for kind, (chosen, weight) in kinds.items():
        places = [int(place) for place in np.flatnonzero(chosen) if place not in taken]
        for place in sorted(places, key=lambda each: -weight[each])[:ROWS_TO_READ]:
            taken.add(place)
            said = {
                role: f"{one_line(label_names[answers[role][place]])} ({percent(sure[role][place])})"
                for role in answers
            }
            label, text = one_line(label_names[labels[place]]), one_line(predictions.texts[place])
            row = {"kind": kind, "id": predictions.ids[place], "label": label, "said": said}
            rows.append(row | {"text": text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"})
    return rows


def _notes(experiments: list[Experiment]) -> list[str]:
    """What speaks against the figures, what they are of, and what they do not mean."""
    results = [result for each in experiments for result in each.results]
    lines = [*warnings_of(results), *about_data(results)]
    if any(len(each.evidence.seeds) > 1 for each in experiments):
        lines.append(seeds_draw(results))
    if any(map(same_backbone, results)):
        lines.append(SPEED)
    return list(dict.fromkeys(lines))
