"""The plots of a page: what is drawn of which numbers, and each as a file of its own."""

import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import font_roboto
import numpy as np
import resvg_py

from lora_distill.config import ROLES, Role
from lora_distill.control import is_of_control
from lora_distill.data.wording import points
from lora_distill.evaluation.calibration import reliability_bins
from lora_distill.evaluation.rows import length_groups
from lora_distill.evaluation.selective import selective_risk
from lora_distill.evaluation.significance import share_interval
from lora_distill.evidence import Predictions
from lora_distill.reporting.sentences import one_line, with_interval
from lora_distill.reporting.summary import Experiment
from lora_distill.reporting.svg import (
    Point,
    count_text,
    curves,
    legend,
    percent_text,
    points_text,
    reliability,
    scatter,
)
from lora_distill.run_folder import HISTORY, RunFolder
from lora_distill.store import read_if_whole, read_jsonl

COVERAGES = np.arange(1, 11) / 10
WIDE = 10  # times as large as the least: the values of a setting stand by their logarithm
PLOT_STYLE, PAGE_STYLE = (Path(__file__).with_name(name) for name in ("plots.css", "colours.css"))


def overview(experiments: Sequence[Experiment]) -> str:
    """Accuracy of each experiment's roles against their trainable parameters."""
    names: dict[tuple[Role, int, tuple[float, float, float]], list[str]] = {}  # what is shared is one mark
    for each in experiments:
        for role in ROLES:
            parameters, found = each.results[0].get(role, {}).get("trainable_parameters"), each.accuracy(role)
            if parameters and found:
                names.setdefault((role, parameters["total"], found), []).append(one_line(each.name))
    marks = [
        Point(total, *found, role, f"{role} of {', '.join(of)}: {with_interval(found)}, {total:,} trainable parameters")
        for (role, total, found), of in names.items()
    ]
    title = "Accuracy against trainable parameters, with 95% intervals"
    x_label, y_label = "Trainable parameters", "Accuracy on the test split"
    return scatter(marks, x_label, y_label, title, x_text=count_text, front=_of_one_test(experiments))


def latency(experiments: Sequence[Experiment]) -> str:
    """Accuracy of teachers and students against what a text takes them, of runs that were timed; empty if none was.

    The accuracy is in fp32, in whatever form they were timed.
    """
    marks, timed = [], {(each.timed_form, each.measured.get("device")) for each in experiments if each.measured}
    for each in experiments:
        for role, seconds in each.seconds_a_text.items():
            if found := each.accuracy(role):
                taken = 1000 * seconds
                label = f"{role} of {one_line(each.name)}: {with_interval(found)}, {taken:.2f} ms a text"
                marks.append(Point(taken, *found, role, label))
    if not marks:
        return ""
    title = "Accuracy against the time of an answer, with 95% intervals"
    x_label = "Milliseconds a text: 32 long ones at once, on all threads"
    comparable = len(timed) == 1 and _of_one_test(experiments)
    y_label = "Accuracy on the test split, in fp32"
    return scatter(marks, x_label, y_label, title, x_text="{:.4g}".format, front=comparable)


def _of_one_test(experiments: Sequence[Experiment]) -> bool:
    """Whether they were judged on the same rows, else none outdoes another: there is no Pareto front."""
    return len({each.evidence.test for each in experiments}) == 1


def learning(run: RunFolder, name: str) -> str:
    """Accuracy on validation after each epoch, of the roles that were trained; empty where none was.

    Of several teachers, the mean of those that went on so long; of one that taught itself, its second training.
    """
    history = read_if_whole(read_jsonl, run.path / HISTORY) or []
    lines = [line for line in history if line["event"] == "validation"]
    last = max((line.get("member", 1) for line in lines), default=1)
    is_taught = run.resolved().teacher_self_training
    accuracies: dict[str, dict[int, list[float]]] = {}
    for line in lines:
        if not is_taught or line.get("member", last) == last:
            accuracies.setdefault(line["role"], {}).setdefault(line["epoch"], []).append(line["accuracy"])
    series: dict[str, list[tuple[float, float]]] = {
        role: [(epoch, statistics.mean(each)) for epoch, each in epochs.items()] for role, epochs in accuracies.items()
    }
    if not series:
        return ""
    return curves(series, "Epoch", "Accuracy on validation", f"{name}: accuracy on validation after each epoch")


def calibration(predictions: Predictions, name: str) -> str:
    """Share of right answers against confidence, of each role."""
    bins: dict[str, list[tuple[float, float, int]]] = {
        role: reliability_bins(logits, predictions.labels) for role, logits in predictions.logits.items()
    }
    return reliability(bins, f"{name}: share of right answers against confidence")


def coverage(predictions: Predictions, name: str) -> str:
    """Accuracy on the surest 10%, 20% … of the rows, of each role."""
    series: dict[str, list[tuple[float, float]]] = {}
    for role, logits in predictions.logits.items():
        right = 1 - selective_risk(logits, predictions.labels)
        places = np.unique(np.ceil(COVERAGES * len(right)).astype(int) - 1)
        series[role] = [((place + 1) / len(right), float(right[place])) for place in places]
    title = f"{name}: accuracy against the share of rows answered, the surest first"
    return curves(series, "Share answered", "Accuracy on these", title, percent_text)


def by_length(predictions: Predictions, name: str) -> str:
    """Accuracy of each role on short and long texts."""
    marks, names = [], []
    for place, (fewest, most, here) in enumerate(length_groups(predictions.texts)):
        names.append(f"{fewest}" if fewest == most else f"{fewest} to {most}")
        for role, logits in predictions.logits.items():
            right, rows = int((logits.argmax(axis=1) == predictions.labels)[here].sum()), int(here.sum())
            found = right / rows, *share_interval(right, rows)
            said = f"{role}, {names[-1]} words: {with_interval(found)}, {rows:,} rows"
            marks.append(Point(place, *found, role, said))
    title = f"{name}: accuracy by the length of the text, with 95% intervals"
    return scatter(marks, "Words", "Accuracy", title, names=dict(enumerate(names)))


@dataclass(frozen=True)
class Effect:
    """Experiments that differ in one setting only, with the same seeds.

    Attributes:
        setting: its name.
        values: in order.
        experiments: one for each value.
    """

    setting: str
    values: list[Any]
    experiments: list[Experiment]

    @property
    def title(self) -> str:
        """`alpha: base, alpha-0.7`, the setting and the experiments."""
        return f"{self.setting}: {', '.join(one_line(each.name) for each in self.experiments)}"

    def figures(self) -> Iterator[str]:
        """Accuracy of each role by the setting's value, and student minus control where several have a control."""
        places, label = _places(self.values, self.setting)
        said_of = [one_line(str(value)) for value in self.values]
        names = dict(zip(places, said_of, strict=True))
        marks, differences = [], []
        for each, place, value in zip(self.experiments, places, said_of, strict=True):
            for role in ROLES:
                if found := each.accuracy(role):
                    said = f"{role}, {self.setting} {value}: {with_interval(found)}"
                    marks.append(Point(place, *found, role, said))
            if found := each.difference():
                said = f"{self.setting} {value}: {with_interval(found, points)} points"
                differences.append(Point(place, *found, "difference", said))
        title = f"Accuracy by {self.title}, with 95% intervals"
        yield scatter(marks, label, "Accuracy", title, names=names)
        if len(differences) > 1:
            said, title = "Student − control, points", f"Student minus control by {self.title}, with 95% intervals"
            yield scatter(differences, label, said, title, names=names, y_text=points_text, zero=True)


def _places(values: Sequence[Any], setting: str) -> tuple[list[float], str]:
    """Where a setting's values stand on an axis, and what the axis is called: numbers by their size, others evenly."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return list(range(len(values))), setting
    if values[0] > 0 and values[-1] > WIDE * values[0]:
        return [math.log(value) for value in values], f"{setting}, logarithmic"
    return [float(value) for value in values], setting


def effects(settings: Sequence[dict[str, Any]], experiments: Sequence[Experiment]) -> list[Effect]:
    """What single settings do: for each that varies, the experiments that are the same in all others, and their seeds.

    Settings of the control alone keep no experiments apart that differ in another one: some may do without a control.

    Args:
        settings: of each experiment, the same keys in each.
        experiments: as many.
    """
    varied = [key for key in settings[0] if any(each[key] != settings[0][key] for each in settings)]
    of_control = partial(is_of_control, teaches=any(each.get("learn_from") == "both" for each in settings))
    found = []
    for key in varied:
        held = [name for name in varied if name != key and (of_control(key) or not of_control(name))]
        alike: dict[str, list[tuple[Any, Experiment]]] = {}
        for each, experiment in zip(settings, experiments, strict=True):
            others = str([sorted(experiment.evidence.seeds), *(each[name] for name in held)])
            alike.setdefault(others, []).append((each[key], experiment))
        for group in alike.values():
            if len({str(value) for value, _ in group}) > 1:
                group.sort(key=lambda one: (0, one[0], "") if isinstance(one[0], int | float) else (1, 0, str(one[0])))
                found.append(Effect(key, [value for value, _ in group], [experiment for _, experiment in group]))
    return found


def standalone(svg: str) -> str:
    """A plot as a file of its own, in the page's light colours, which programs that know no variables can show."""
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", PAGE_STYLE.read_text(encoding="utf-8").partition("@media")[0]))
    style = re.sub(r"var\(--([\w-]+)\)", lambda name: colours[name[1]], PLOT_STYLE.read_text(encoding="utf-8"))
    opening, rest = svg.split(">", 1)
    size = re.sub(r'.*viewBox="0 0 (\d+) (\d+)".*', r'width="\1" height="\2"', opening)
    background = f'<rect width="100%" height="100%" fill="{colours["page"]}"/>'
    shown = [role for role in ROLES if f'class="mark {role}"' in svg]
    namespace = f'xmlns="http://www.w3.org/2000/svg" {size}'
    return f"{opening} {namespace}><style>{style}</style>{background}{legend(shown)}{rest}\n"


def png(svg: str) -> bytes:
    """A standalone plot as a picture, twice as large; with a font that is the same on every machine."""
    font: str = font_roboto.Roboto
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=2, font_files=[font], sans_serif_family="Roboto"))
