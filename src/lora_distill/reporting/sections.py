"""What the page shows of one experiment beside its line in the table: tables and texts of its first seed."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from lora_distill.config import ROLES
from lora_distill.data.types import parts
from lora_distill.data.wording import points
from lora_distill.evaluation.comparison import Comparison, learned_from_teacher
from lora_distill.evaluation.rows import doubtful_labels
from lora_distill.evidence import Predictions, read_predictions
from lora_distill.reporting import figures
from lora_distill.reporting.pairs import settings_of
from lora_distill.reporting.sentences import one_line, percent
from lora_distill.reporting.summary import Experiment

ROWS_TO_READ, MOST_LETTERS = 5, 400
ABSENT = "–"
DIFFERENCES: dict[str, tuple[str, Callable[[float], str]]] = {
    "accuracy": ("Accuracy, points", points),
    "macro_f1": ("Macro F1, points", points),
    "nll": ("NLL", "{:+.4f}".format),
    "brier": ("Brier", "{:+.4f}".format),
    "ece": ("ECE", "{:+.4f}".format),
    "ece_equal_mass": ("ECE, equal mass", "{:+.4f}".format),
    "aurc": ("AURC", "{:+.4f}".format),
}


def section(experiment: Experiment, first: Experiment) -> dict[str, Any]:
    """What is shown of one experiment.

    Args:
        experiment: is shown.
        first: is the one that its settings are compared with.
    """
    results, run = experiment.results[0], experiment.runs[0]
    roles = [role for role in ROLES if role in results]
    name, predictions = one_line(experiment.name), read_predictions(run)
    settings, others, right = settings_of(experiment), settings_of(first), experiment.evidence.right
    plots = {
        "learning": figures.learning(run, name),
        "calibration": figures.calibration(predictions, name),
        "coverage": figures.coverage(predictions, name),
        "length": figures.by_length(predictions, name),
    }
    return {
        "experiment": experiment,
        "plots": plots,
        "rows": rows_to_read(predictions, results["data"]["label_names"]),
        "learned": learned_from_teacher(right) if {"teacher", "control"} <= right.keys() else None,
        "roles": [(role, results[role]) for role in roles],
        "classes": [
            (one_line(label), [(role, results[role]["test"]["per_class"][label]) for role in roles])
            for label in results["data"]["label_names"]
        ],
        "labels": [one_line(label) for label in results["data"]["label_names"]],
        "differences": {control: differences(each) for control, each in experiment.evidence.comparisons.items()},
        "agreement": results.get("agreement"),
        "settings": settings,
        "differing": [key for key in settings if settings[key] != others[key]],
        "environment": run.environment(),
    }


def differences(comparison: Comparison) -> list[dict[str, str]]:
    """Student minus a control over seeds, as it is said: for other texts too where a figure is a mean over texts."""
    rows = []
    for name, (label, said) in DIFFERENCES.items():
        same_rows = comparison.same_rows[name]
        row = {"figure": label, "difference": said(same_rows.difference)}
        for kind, found in (("recipe", comparison.recipe.get(name)), ("same_rows", same_rows)):
            if found is None or found.low is None or found.high is None or found.p_value is None:
                row |= {kind: ABSENT, f"{kind}_p": ABSENT}
            else:
                row |= {kind: f"{said(found.low)} to {said(found.high)}", f"{kind}_p": f"{found.p_value:.2g}"}
        rows.append(row)
    return rows


def rows_to_read(predictions: Predictions, label_names: list[str]) -> list[dict[str, Any]]:
    """The rows that tell most: whose label may be wrong, where the student is wrong and sure, or left its teacher."""
    probabilities = {role: softmax(each.astype(np.float64), axis=1) for role, each in predictions.logits.items()}
    answers = {role: each.argmax(axis=1) for role, each in probabilities.items()}
    sure = {role: each.max(axis=1) for role, each in probabilities.items()}
    labels, student = predictions.labels, answers["student"]
    kinds = {"wrong, and sure of it": (student != labels, sure["student"])}
    if "teacher" in answers:
        both = sure["student"] * sure["teacher"]
        doubtful = doubtful_labels([predictions.logits["teacher"], predictions.logits["student"]], labels)
        kinds = {
            "the label may be wrong: teacher and student are sure of another": (doubtful, both),
            **kinds,
            "against its teacher": (student != answers["teacher"], both),
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
            texts = list(map(_shortened, parts(predictions.texts[place])))
            label = one_line(label_names[labels[place]])
            rows.append({"kind": kind, "id": predictions.ids[place], "texts": texts, "label": label, "said": said})
    return rows


def _shortened(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"


def cost(experiments: Sequence[Experiment]) -> dict[str, Any]:
    """Where the seconds of all runs went, by stage and role, and what sharing and keeping spared.

    `reused`: roles taken from runs before instead of trained, and of how many; `saved`: the seconds that training
    each of them anew would have taken; `spared`: those that the frozen layers would have run again in the trainings
    that took place.

    Args:
        experiments: one at least.
    """
    results = [result for each in experiments for result in each.results]
    stages: dict[str, dict[str, float]] = {}
    for result in results:
        for name, seconds in result["cost"]["seconds"].items():
            role, _, stage = name.rpartition(": ")
            row = stages.setdefault(stage, {})
            row[role] = row.get(role, 0.0) + seconds
    total = sum(result["seconds"] for result in results)
    stages["other"] = {"": max(total - sum(sum(row.values()) for row in stages.values()), 0.0)}
    trained = {role: [result[role] for result in results if role in result] for role in ROLES}
    shared = {role: [facts for facts in every if facts["reused"]] for role, every in trained.items()}
    return {
        "stages": stages,
        "total": total,
        "reused": {role: (len(some), len(trained[role])) for role, some in shared.items() if some},
        "saved": sum(facts["seconds"] for some in shared.values() for facts in some),
        "spared": sum(
            facts.get("spared_seconds", 0.0)  # a teacher that was given is not trained
            for every in trained.values()
            for facts in every
            if not facts["reused"]
        ),
    }
