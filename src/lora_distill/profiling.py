"""Where the time of a run goes: stage by stage, and in training operator by operator."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import attrgetter
from typing import Any, TypeVar

PROFILE = "profile.json"
FIRST_STEP, STEPS = 5, 10  # the steps before fill caches and are no measure
T = TypeVar("T")

_current: "ContextVar[dict[str, Any] | None]" = ContextVar("profile", default=None)
_clocks: "ContextVar[tuple[dict[str, float], ...]]" = ContextVar("clocks", default=())


@contextmanager
def stages() -> Iterator[dict[str, float]]:
    """Seconds of each stage that runs inside, by name; whoever else measures around it or in it counts them too."""
    clock: dict[str, float] = {}
    token = _clocks.set((*_clocks.get(), clock))
    try:
        yield clock
    finally:
        _clocks.reset(token)


@contextmanager
def profiled() -> Iterator[dict[str, Any]]:
    """Measure what runs inside; yields what profile.json will hold.

    `stages`: seconds by name, `total` among them. `operators`: by role, those that took most of a few training steps:
    name, calls a step, seconds a step in the operator itself, on a GPU where that computes, and their share.
    """
    with stages() as clock:
        profile: dict[str, Any] = {"stages": clock, "operators": {}}
        token, started = _current.set(profile), time.perf_counter()
        try:
            yield profile
        finally:
            clock["total"] = time.perf_counter() - started
            _current.reset(token)


def record(name: str, seconds: float) -> None:
    """Count seconds to a stage, where somebody measures."""
    for clock in _clocks.get():
        clock[name] = clock.get(name, 0.0) + seconds


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time inside to a stage, where somebody measures."""
    started = time.perf_counter()
    try:
        yield
    finally:
        record(name, time.perf_counter() - started)


def steps(batches: Iterable[T], role: str) -> Iterator[T]:
    """The same batches; a few of the steps that they are used for are measured, once for each role."""
    profile = _current.get()
    if profile is None or role in profile["operators"]:
        yield from batches
        return
    from torch.profiler import profile as torch_profile

    watched, running, count = torch_profile(), False, 0
    try:
        for number, batch in enumerate(batches):
            if number == FIRST_STEP:
                profile["operators"][role] = []
                watched.start()
                running = True
            yield batch
            count += running
            if running and count == STEPS:
                watched.stop()
                running = False
    finally:
        if running:
            watched.stop()
        if count:
            profile["operators"][role] = _busiest(watched, count)


def _busiest(watched: Any, count: int) -> list[dict[str, Any]]:  # noqa: ANN401 - torch gives its profiler no types
    # What a GPU ran is an event of its own, too, whose time that of the operator holds.
    events = [event for event in watched.key_averages() if event.device_type.name == "CPU"]
    on_device = any(event.self_device_time_total for event in events)
    time_of = attrgetter("self_device_time_total" if on_device else "self_cpu_time_total")
    total = sum(map(time_of, events))
    return [
        {
            "name": event.key,
            "calls": event.count / count,
            "seconds": time_of(event) / count / 1e6,
            "share": time_of(event) / total,
        }
        for event in sorted(events, key=time_of, reverse=True)[:25]
    ]
