import copy
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_distill.config import make_config
from lora_distill.evidence import Predictions, gather
from lora_distill.reporting.report import _rows_to_read, write_report
from lora_distill.reporting.svg import Axis, Point, scatter
from lora_distill.run_folder import HISTORY, METRICS, PREDICTIONS, RunFolder
from lora_distill.store import write_json, write_jsonl
from tests.reporting.sample import LABELS, sample_results

NASTY = "<script>alert('x')</script>"


def finished_run(folder: Path, name: str, seed: int, **changes: float) -> RunFolder:
    """A run's folder with all that a report reads."""
    config = make_config({"output_dir": str(folder), "exp_name": name, "seed": seed, **changes}, {})
    names = [NASTY, *LABELS[1:]]
    results = copy.deepcopy(sample_results(names)) | {"exp_name": name}
    run = RunFolder.of(config)
    run.begin(config, {"requested": {}, "processor": "a processor", "versions": {"torch": "2"}})
    rows = results["data"]["test_rows"]
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % len(names)
    texts = [f"{NASTY} {number}" for number in range(rows)]
    columns: dict[str, Any] = {"row_id": np.arange(rows), "text": texts, "label": labels}
    for role, strength in (("teacher", 3.6), ("student", 3.4), ("control", 2.5)):
        logits = (generator.normal(size=(rows, len(names))) + strength * np.eye(len(names))[labels]).astype(np.float32)
        columns[f"{role}_logits"] = pa.array(list(logits), type=pa.list_(pa.float32(), len(names)))
    pq.write_table(pa.table(columns), run.path / PREDICTIONS)
    history = [
        {"role": role, "event": "validation", "epoch": epoch, "step": epoch, "accuracy": 0.5 + epoch / 10, "nll": 1.0}
        for role in ("teacher", "student", "control")
        for epoch in (1, 2, 3)
    ]
    write_jsonl(run.path / HISTORY, [{"role": "teacher", "event": "step", "epoch": 1, "step": 1, "loss": 1}, *history])
    write_json(run.path / METRICS, results)
    return run


@pytest.fixture
def groups(tmp_path: Path) -> dict[str, list[RunFolder]]:
    return {
        "base": [finished_run(tmp_path, f"base-seed-{seed}", seed) for seed in range(3)],
        "alone": [finished_run(tmp_path, "alone", 0, alpha=0.7)],
    }


def page_of(groups: dict[str, list[RunFolder]], folder: Path) -> str:
    write_report(folder / "report.html", gather(groups), groups)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_verdicts_come_first(groups: dict[str, list[RunFolder]], tmp_path: Path) -> None:
    page = page_of(groups, tmp_path)
    header = page[page.index("<header>") : page.index("</header>")]
    assert re.search(r"<strong>base</strong>: Distillation helped: \+\d+\.\d\d points over the same student", header)
    assert "<strong>alone</strong>: One seed, so these two models only" in header
    assert page.count('<li class="helped">') == 1


def test_it_asks_no_network_and_escapes_what_users_wrote(groups: dict[str, list[RunFolder]], tmp_path: Path) -> None:
    page = page_of(groups, tmp_path)
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', page) == []
    assert not re.search(r"url\(|@import|fetch\(|https?:(?!//www\.w3\.org/)", page)
    assert NASTY not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert page.count("<script>") == 1


def test_every_plot_is_well_formed_and_says_what_it_shows(groups: dict[str, list[RunFolder]], tmp_path: Path) -> None:
    plots = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page_of(groups, tmp_path), re.DOTALL)]
    assert len(plots) == 1 + 2 * len(groups)
    for plot in plots:
        assert plot.get("aria-label")
        assert plot.findall(".//title")
    marks = plots[0].findall(".//g/title")
    assert sorted(str(mark.text).partition(":")[0] for mark in marks) == sorted(
        f"{name}, {role}" for name in groups for role in ("teacher", "student", "control")
    )


def test_settings_that_differ_are_named(groups: dict[str, list[RunFolder]], tmp_path: Path) -> None:
    assert "<code>alpha: 0.7</code>" in page_of(groups, tmp_path)


def test_fifty_runs_are_less_than_three_megabytes(tmp_path: Path) -> None:
    groups = {f"e{number}": [finished_run(tmp_path, f"e{number}", 0)] for number in range(50)}
    assert len(page_of(groups, tmp_path).encode()) < 3_000_000


def test_without_a_control_nothing_is_said_of_the_distillation(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "mine", 0)
    results = run.results()
    del results["control"], results["student_minus_control"], results["agreement"]["control_teacher"]
    write_json(run.path / METRICS, results)
    assert "No control was trained, so nothing can be said" in page_of({"mine": [run]}, tmp_path)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.93, 0.94), (5.0, 5.0), (0.0, 1e6), (-3.0, 7.0)])
def test_ticks_are_round_and_within_the_axis(low: float, high: float) -> None:
    axis = Axis.over([low, high], 0, 100)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 8
    assert all(0 <= axis.at(tick) <= 100 for tick in ticks)
    assert axis.at(low) == pytest.approx(100 - axis.at(high)) or low == high


def test_epochs_are_whole() -> None:
    assert Axis.over([1, 2], 0, 100).ticks(whole=True) == [1, 2]


def test_the_front_leaves_out_what_is_outdone() -> None:
    points = [Point(x, y, y, y, "student", "s") for x, y in ((1, 0.5), (2, 0.4), (3, 0.6))]
    plot = ET.fromstring(scatter(points, "x", "y", "t", front=True))
    (front,) = [line for line in plot.iter("polyline") if "front" in str(line.get("class"))]
    assert len(str(front.get("points")).split()) == 2


def test_rows_worth_reading_are_chosen_by_what_the_models_say() -> None:
    predictions = Predictions(
        np.arange(4),
        ["all alike", "sure", "against", "fine"],
        np.array([0, 0, 0, 0]),
        {
            "teacher": np.array([[0, 9], [9, 0], [0, 9], [9, 0]], np.float32),
            "student": np.array([[0, 9], [0, 9], [9, 0], [9, 0]], np.float32),
            "control": np.array([[0, 9], [9, 0], [9, 0], [9, 0]], np.float32),
        },
    )
    rows = _rows_to_read(predictions, ["a", "b"])
    assert [(row["text"], row["kind"]) for row in rows] == [
        ("all alike", "every model says another class than the label"),
        ("sure", "wrong, and sure of it"),
        ("against", "against its teacher"),
    ]
    assert rows[1]["said"] == {"teacher": "a (99.99%)", "student": "b (99.99%)", "control": "a (99.99%)"}
