import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from lora_distill.evidence import Evidence
from lora_distill.reporting.figures import Effect, effects, learning
from lora_distill.reporting.summary import Experiment
from lora_distill.run_folder import CONFIG, HISTORY, RunFolder
from lora_distill.store import write_jsonl


@dataclass
class Named:
    """What `effects` asks of an experiment: its seeds."""

    name: str
    seeds: tuple[int, ...] = (0,)

    @property
    def evidence(self) -> "Named":
        """Which has them."""
        return self


def found(*settings: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    experiments = [Named(str(number)) for number in range(len(settings))]
    each = effects(settings, experiments)  # type: ignore[arg-type]  # it only hands them on
    return [(one.title, one.values) for one in each]


def test_only_experiments_that_differ_in_nothing_else_are_compared() -> None:
    base: dict[str, Any] = {"alpha": 0.5, "temperature": 2.0, "rank": 8}
    assert found(base, base | {"alpha": 0.1}, base | {"temperature": 1.0}, base | {"alpha": 0.9, "rank": 4}) == [
        ("alpha: 1, 0", [0.1, 0.5]),
        ("temperature: 2, 0", [1.0, 2.0]),
    ]


def test_those_without_a_control_are_compared_with_those_that_have_one() -> None:
    base: dict[str, Any] = {"alpha": 0.5, "no_control": False, "control_num_epochs": 30}
    without = {"no_control": True, "control_num_epochs": None}
    assert found(base, base | without | {"alpha": 0.1}) == [("alpha: 1, 0", [0.1, 0.5])]
    assert found(base, base | {"control_num_epochs": 60}) == [("control_num_epochs: 0, 1", [30, 60])]


def test_where_students_learn_from_controls_those_that_do_not_share_one_are_not_compared() -> None:
    base: dict[str, Any] = {"alpha": 0.5, "learn_from": "both", "control_num_epochs": 30}
    assert found(base, base | {"alpha": 0.1, "control_num_epochs": 60}) == []
    assert found(base, base | {"alpha": 0.1}) == [("alpha: 1, 0", [0.1, 0.5])]


def test_experiments_with_the_same_value_show_no_effect_of_it() -> None:
    base: dict[str, Any] = {"alpha": 0.5, "temperature": 2.0}
    assert found(base, dict(base), {"alpha": 0.7, "temperature": 1.0}) == []


def test_a_grid_is_parted_by_what_else_it_varies() -> None:
    grid = [{"alpha": alpha, "temperature": t} for alpha in (0.9, 0.1) for t in (1.0, 4.0)]
    assert found(*grid) == [
        ("alpha: 2, 0", [0.1, 0.9]),
        ("alpha: 3, 1", [0.1, 0.9]),
        ("temperature: 0, 1", [1.0, 4.0]),
        ("temperature: 2, 3", [1.0, 4.0]),
    ]


def test_experiments_of_other_seeds_are_not_compared() -> None:
    settings = [{"alpha": alpha} for alpha in (0.1, 0.2, 0.3)]
    experiments = [Named("a", (0, 1)), Named("b", (1,)), Named("c", (1, 0))]
    assert [each.title for each in effects(settings, experiments)] == ["alpha: a, c"]  # type: ignore[arg-type]


def test_values_of_any_kind_have_an_order() -> None:
    assert found({"rows": None}, {"rows": 200}, {"rows": 30}) == [("rows: 2, 1, 0", [30, 200, None])]
    assert found({"rows": 5}) == []


def places(*values: object) -> tuple[list[float], list[str | None]]:
    """Where the marks of a setting's values stand across, as shares of what lies between the outermost; its texts."""
    results: dict[str, Any] = {}
    right = {"student": np.eye(9, dtype=np.bool_)[:, :1]}
    evidence = Evidence([], [0], [], [], {}, {}, "", right)  # type: ignore[arg-type]
    (svg,) = Effect("k", list(values), [Experiment("e", evidence, [], [results]) for _ in values]).figures()
    plot = ET.fromstring(svg)
    at = [float(mark.get("d", "").split()[0][1:]) for mark in plot.iter("path") if mark.get("class") == "interval"]
    texts = [text.text for text in plot.iter("text") if "%" not in str(text.text)]
    return [(x - at[0]) / (at[-1] - at[0]) for x in at], texts


def test_values_that_are_numbers_stand_where_they_are_and_by_their_logarithm_where_they_lie_far_apart() -> None:
    at, texts = places(10, 25, 50, 125, 250)
    assert at == pytest.approx([math.log(value / 10, 25) for value in (10, 25, 50, 125, 250)], abs=1e-3)
    assert texts == ["10", "25", "50", "125", "250", "k, logarithmic", "Accuracy"]
    at, texts = places(0.1, 0.5, 0.7)
    assert at == pytest.approx([0, 2 / 3, 1], abs=1e-3)
    assert texts == ["0.1", "0.5", "0.7", "k", "Accuracy"]
    assert places(0, 1, 100)[0] == pytest.approx([0, 0.01, 1], abs=1e-3)  # nothing has no logarithm
    assert places(1, 3, 10)[1][-2] == "k"


def test_differences_from_a_control_are_drawn_where_there_are_two() -> None:
    right = {"student": np.eye(9, dtype=np.bool_)[:, :1]}
    evidence = Evidence([], [0], [], [], {}, {}, "", right)  # type: ignore[arg-type]
    held = {"student_minus_control": {"accuracy": 0.1, "interval": [0.0, 0.2]}}
    for controls, plots in ((0, 1), (1, 1), (2, 2)):
        results: list[dict[str, Any]] = [held] * controls + [{}] * (2 - controls)
        experiments = [Experiment("e", evidence, [], [each]) for each in results]
        assert len(list(Effect("k", [1, 2], experiments).figures())) == plots


def test_values_that_are_no_numbers_stand_evenly() -> None:
    for values in (("first", "spread", "whole"), (1, 50, None), (1000, True, "x")):
        at, texts = places(*values)
        assert at == pytest.approx([0, 0.5, 1], abs=1e-3)
        assert texts == [*map(str, values), "k", "Accuracy"]


def test_several_teachers_are_one_curve_of_their_means(tmp_path: Path) -> None:
    accuracies = {(1, 1): 0.5, (2, 1): 0.7, (1, 2): 0.6, (2, 2): 0.9, (1, 3): 0.8}
    line: dict[str, Any] = {"role": "teacher", "event": "validation"}
    lines = [line | {"epoch": epoch, "accuracy": found} for (epoch, _), found in accuracies.items()]
    write_jsonl(tmp_path / HISTORY, [*lines, {"role": "teacher", "event": "step", "epoch": 1}])
    one = [line | {"epoch": 1, "accuracy": statistics.mean([0.5, 0.6, 0.8])}]
    one.append(line | {"epoch": 2, "accuracy": statistics.mean([0.7, 0.9])})
    (tmp_path / "one").mkdir()
    write_jsonl(tmp_path / "one" / HISTORY, one)
    for folder in (tmp_path, tmp_path / "one"):
        (folder / CONFIG).write_text("")
    assert learning(RunFolder(tmp_path), "x") == learning(RunFolder(tmp_path / "one"), "x") != ""


def test_of_a_teacher_that_taught_itself_the_curve_is_of_its_second_training(tmp_path: Path) -> None:
    for name, members in (("both", (1, 2)), ("second", (2,))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / CONFIG).write_text("teacher_self_training: true\nunlabelled: texts\n")
        lines = [
            {"role": "teacher", "event": "validation", "epoch": epoch, "accuracy": member / 10, "member": member}
            for member in members
            for epoch in range(1, 4)
        ]
        student = {"role": "student", "event": "validation", "epoch": 1, "accuracy": 0.5}
        write_jsonl(folder / HISTORY, [*lines, student])
    assert learning(RunFolder(tmp_path / "both"), "x") == learning(RunFolder(tmp_path / "second"), "x") != ""
