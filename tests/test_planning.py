"""A plan is kept until its suite is finished, and is then compared."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_distill.cache import Cache, Stream, cache_folder, entry_name
from lora_distill.planning import Plan, PlannedRun, compare_plan, describe_plan, duration, keep_plan, plan_file
from lora_distill.reporting.tables import plan_table
from lora_distill.run_folder import METRICS, RunFolder
from lora_distill.store import ARTEFACTS, read_json, write_json
from lora_distill.suite import Suite, read_suite
from tests.reporting.test_tables import render

RUNS = [
    PlannedRun(
        "one",
        {"teacher": ["teacher-1"], "student": ["student-1"], "control": ["control-1"]},
        ["teacher"],
        ["teacher-1"],
        90.0,
    ),
    PlannedRun("two", {"teacher": ["teacher-1"], "student": ["student-2"]}, ["student"], ["student-2"], 40.0),
]


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    file = tmp_path / "s.yaml"
    file.write_text(f"base: {{output_dir: {tmp_path / 'out'}}}\nexperiments: {{one: {{}}, two: {{}}}}\nseeds: 1\n")
    return read_suite(file, {}, {})


def plan_of(suite: Suite, **changes: Any) -> Plan:  # noqa: ANN401
    return replace(Plan(RUNS, disk=1000, cache=0, cache_entries={}, memory=2, jobs=1), **changes)


def finish(suite: Suite, run: str, seconds: float) -> None:
    folder = RunFolder.of(suite.runs[run])
    folder.begin(suite.runs[run], {"requested": {}})
    write_json(folder.path / METRICS, {"exp_name": run, "seconds": seconds, "cost": {"peak_memory": 4}})
    artefact = folder.path.parent / ARTEFACTS / RUNS[run == "two"].leaves[0]
    artefact.mkdir(parents=True)
    (artefact / "adapter").write_bytes(bytes(1000))
    size = sum(file.stat().st_size for file in folder.path.iterdir())
    (folder.path / "filled").write_bytes(bytes(3000 - size))


def test_it_is_said_in_numbers(suite: Suite) -> None:
    plan = plan_of(suite, disk=12_000_000, cache=673_000_000, memory=1_400_000_000)
    assert describe_plan(plan, suite) == [
        "2 runs to do: 2 trainings (1 teacher, 1 student); without sharing, 5.",
        "About 130 s, one run after the other, 12 MB for runs and what they share, 673 MB for the cache,"
        " 1.4 GB of memory or more.",
    ]
    assert describe_plan(plan_of(suite, runs=RUNS[:1]), suite)[0].startswith("1 run to do, 1 finished: ")
    assert describe_plan(plan_of(suite, jobs=2), suite)[1] == (
        "About 65 s, 2 runs at a time if none has to wait for another, 1 kB for runs and what they share,"
        " 0 bytes for the cache, 2 bytes of memory or more for each."
    )
    rows = [line.split() for line in render(plan_table(plan), 100).splitlines()[-2:]]
    assert rows == [["one", "trained", "shared", "shared", "90"], ["two", "shared", "trained", "-", "40"]]


@pytest.mark.parametrize(("seconds", "said"), [(1.4, "1 s"), (599, "599 s"), (721, "12 min"), (7300, "2.0 h")])
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_when_all_is_finished_it_says_how_far_off_it_was(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_DISTILL_CACHE", str(tmp_path / "cache"))
    recipe = {"made": "of"}
    cache = Cache(cache_folder())
    cache.add("tokens", recipe, "others", "texts", {"flat": Stream.of(np.zeros(99))})
    cache.add("activations", recipe, "before", "rows", {"data": Stream.of(np.zeros(10))})
    before = {entry_name("activations", recipe): 208}  # 10 numbers and a header
    keep_plan(plan_of(suite, cache_entries=before, cache=1000, disk=7000), suite)
    assert compare_plan(suite) == []
    finish(suite, "one", 60.0)
    assert compare_plan(suite) == []
    finish(suite, "two", 40.0)
    cache.add("activations", recipe, "new", "rows", {"data": Stream.of(np.zeros(234))})  # 2000 bytes with its header
    assert compare_plan(suite) == [
        "Planned 130 s, took 100 s (30% more was planned); planned 8 kB of disk, took 10 kB (20% less was planned);"
        " planned 2 bytes of memory, took 4 bytes (50% less was planned)."
    ]
    cache.clear()
    assert "; planned 7 kB of disk, took 8 kB (" in compare_plan(suite)[0]  # without what is told no more


def test_of_runs_side_by_side_the_seconds_are_not_compared(suite: Suite) -> None:
    keep_plan(plan_of(suite, jobs=2), suite)
    finish(suite, "one", 60.0)
    finish(suite, "two", 80.0)
    assert compare_plan(suite)[0].startswith("Planned 1 kB of disk, took ")


def test_what_ran_with_other_threads_than_planned_is_not_compared(suite: Suite) -> None:
    keep_plan(plan_of(suite, runs=[replace(RUNS[0], leaves=["of-other-threads"]), RUNS[1]]), suite)
    finish(suite, "one", 60.0)
    finish(suite, "two", 80.0)
    assert compare_plan(suite) == []


def test_what_was_planned_before_anything_ran_is_what_is_compared(suite: Suite) -> None:
    keep_plan(plan_of(suite), suite)
    keep_plan(plan_of(suite, disk=5), suite)  # nothing has run: the newer counts
    finish(suite, "one", 60.0)
    keep_plan(plan_of(suite, runs=RUNS[1:], disk=7), suite)
    assert read_json(plan_file(suite))["disk"] == 5
    plan_file(suite).unlink()
    keep_plan(plan_of(suite, runs=RUNS[1:]), suite)
    finish(suite, "two", 80.0)
    assert compare_plan(suite)[0].startswith("Planned 40 s, took 80 s (50% less was planned)")


def test_a_plan_whose_runs_have_all_ended_makes_room_for_one_of_more_runs(suite: Suite) -> None:
    keep_plan(plan_of(suite, runs=RUNS[:1]), suite)
    finish(suite, "one", 60.0)
    keep_plan(plan_of(suite, runs=RUNS[1:]), suite)
    finish(suite, "two", 80.0)
    assert compare_plan(suite)[0].startswith("Planned 40 s, took 80 s (50% less was planned)")


@pytest.mark.parametrize("damaged", ["", "[]", '{"runs": []}', '{"runs": [{}]}'])
def test_a_plan_that_cannot_be_read_is_none(suite: Suite, damaged: str) -> None:
    plan_file(suite).parent.mkdir()
    plan_file(suite).write_text(damaged)
    assert compare_plan(suite) == []
