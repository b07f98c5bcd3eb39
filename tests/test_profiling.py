"""Where the time goes is counted by stage and, of some steps, by operator; and costs nothing where nobody asks."""

from types import SimpleNamespace

import pytest
import torch

from lora_distill.profiling import FIRST_STEP, STEPS, _busiest, profiled, record, stage, stages, steps
from lora_distill.reporting.tables import profile_tables
from tests.reporting.test_tables import render


def work(batches: list[int], role: str) -> list[int]:
    seen = []
    for batch in steps(batches, role):
        seen.append(batch)
        _ = torch.ones(8, 8) @ torch.ones(8, 8)
    return seen


def test_stages_add_up_and_the_total_is_all_of_it() -> None:
    with profiled() as profile:
        for _ in range(2):
            with stage("one"):
                record("two", 3.0)
    assert profile["stages"]["two"] == 6.0
    assert 0 < profile["stages"]["one"] <= profile["stages"]["total"]
    assert list(profile["stages"]) == ["two", "one", "total"]


def test_whoever_measures_counts_all_that_runs_inside() -> None:
    with profiled() as profile:
        with stages() as first:
            record("one", 1.0)
        with stages() as second:
            record("one", 2.0)
    assert (first, second, profile["stages"]["one"]) == ({"one": 1.0}, {"one": 2.0}, 3.0)


def test_some_steps_of_each_role_are_watched_once_and_none_is_lost() -> None:
    for count in (0, 3, FIRST_STEP + 2, FIRST_STEP + STEPS, 40):
        batches = list(range(count))
        with profiled() as profile:
            assert work(batches, "teacher") == batches
            first = profile["operators"].get("teacher", [])
            assert work(batches, "teacher") == batches
            assert profile["operators"].get("teacher", []) == first
        found = {each["name"]: each for each in first}
        assert ("aten::mm" in found) == (count > FIRST_STEP)
        if found:
            assert found["aten::mm"]["calls"] == 1
            assert sum(each["share"] for each in first) <= 1.0001


def test_where_a_gpu_computes_its_time_counts_and_not_that_of_whoever_waits_for_it() -> None:
    def event(key: str, on: str, cpu: float, device: float) -> SimpleNamespace:
        times = {"self_cpu_time_total": cpu, "self_device_time_total": device}
        return SimpleNamespace(key=key, device_type=SimpleNamespace(name=on), count=2, **times)

    events = [
        event("aten::item", "CPU", 9e6, 0.0),
        event("aten::mm", "CPU", 1e6, 6e6),
        event("aten::add", "CPU", 1e6, 2e6),
        event("a kernel of mm's", "CUDA", 0.0, 6e6),
    ]
    found = _busiest(SimpleNamespace(key_averages=lambda: events), 2)
    assert [(each["name"], each["seconds"], each["share"]) for each in found] == [
        ("aten::mm", 3.0, 0.75),
        ("aten::add", 1.0, 0.25),
        ("aten::item", 0.0, 0.0),
    ]


def test_without_anybody_asking_nothing_is_kept() -> None:
    with stage("one"):
        assert work([1, 2], "teacher") == [1, 2]
    record("two", 1.0)
    with profiled() as profile:
        pass
    assert list(profile["stages"]) == ["total"]
    assert profile["operators"] == {}


def test_it_is_shown_with_what_no_stage_holds() -> None:
    operator = {"name": "aten::mm", "calls": 2.0, "seconds": 0.0015, "share": 0.25}
    stages, role = profile_tables(
        {"stages": {"load": 1.0, "steps": 7.0, "total": 10.0}, "operators": {"student": [operator]}}
    )
    assert [line.split() for line in render(stages, 100).splitlines()[-4:]] == [
        ["load", "1.0", "10.00%"],
        ["steps", "7.0", "70.00%"],
        ["other", "2.0", "20.00%"],
        ["total", "10.0", "100.00%"],
    ]
    assert render(role, 100).splitlines()[-1].split() == ["aten::mm", "2", "1.50", "25.00%"]


def test_a_step_that_fails_ends_the_watch() -> None:
    def fail() -> None:
        for batch in steps(list(range(20)), "teacher"):
            if batch == FIRST_STEP:
                raise RuntimeError("a step failed")

    with profiled():
        with pytest.raises(RuntimeError, match="a step failed"):
            fail()
        assert work(list(range(20)), "student") == list(range(20))
