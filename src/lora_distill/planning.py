"""What a suite would train, and what that would take; and afterwards, how far off that was."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from lora_distill.cache import Cache, cache_folder
from lora_distill.config import ROLES, Config, Role, role_noun
from lora_distill.data.wording import byte_size, counted
from lora_distill.run_folder import RunFolder
from lora_distill.store import ARTEFACTS, read_json, write_json
from lora_distill.suite import Suite


@dataclass(frozen=True)
class PlannedRun:
    """A run that is to be trained, or trained again.

    Attributes:
        name: of the run.
        artefacts: the models that it is made of, their keys by role; none of a teacher that is a file.
        trains: the role of each of them that neither lies in the store nor is trained by a run before it.
        leaves: keys of all that it puts into the store.
        seconds: that it takes.
    """

    name: str
    artefacts: dict[Role, list[str]]
    trains: list[Role]
    leaves: list[str]
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a suite would do now.

    Attributes:
        runs: those that are to be trained, in order.
        disk: bytes that the runs and what they share will take.
        cache: bytes that the cache will grow by.
        cache_entries: names of the entries that will grow, and the bytes that they take already.
        memory: bytes that the process took at most when steps were measured; many more steps take somewhat more.
        jobs: how many run at a time, each with its share of the threads and so of other bits than with another number.
    """

    runs: list[PlannedRun]
    disk: int
    cache: int
    cache_entries: dict[str, int]
    memory: int
    jobs: int

    @property
    def seconds(self) -> float:
        """Of all runs."""
        return sum(run.seconds for run in self.runs)


def plan_file(suite: Suite) -> Path:
    """Where a suite's plan is kept: beside its runs."""
    return suite.file(".plan.json")


def keep_plan(plan: Plan, suite: Suite) -> None:
    """Write it, unless runs of one that is kept have begun and not all ended: that one is compared in the end."""
    kept = _kept_plan(suite)
    runs = [RunFolder.of(suite.runs[run.name]) for run in kept.runs] if kept else []
    if all(run.finished for run in runs) or not any(run.begun for run in runs):
        write_json(plan_file(suite), asdict(plan))


def describe_plan(plan: Plan, suite: Suite) -> list[str]:
    """The plan in sentences."""
    asked = sum(len(keys) for run in plan.runs for keys in run.artefacts.values())
    trained = [role for run in plan.runs for role in run.trains]
    roles = ", ".join(counted(trained.count(role), role_noun(role)) for role in ROLES if role in trained)
    finished = len(suite.runs) - len(plan.runs)
    said = f"{counted(len(plan.runs), 'run')} to do" + (f", {finished} finished" if finished else "")
    order, each = "one run after the other", ""
    if plan.jobs > 1:
        order, each = f"{plan.jobs} runs at a time if none has to wait for another", " for each"
    return [
        f"{said}: {counted(len(trained), 'training')} ({roles or 'all is there'}); without sharing, {asked}.",
        f"About {duration(plan.seconds / plan.jobs)}, {order}, {byte_size(plan.disk)} for runs and what they"
        f" share, {byte_size(plan.cache)} for the cache, {byte_size(plan.memory)} of memory or more{each}.",
    ]


def compare_plan(suite: Suite) -> list[str]:
    """How far a finished suite's plan was off, in sentences.

    None where no plan was made before it ran, or for another number of jobs; of several at a time, seconds are not
    compared, for a run's are spent beside others and in waiting for them.
    """
    plan = _kept_plan(suite)
    runs = [RunFolder.of(suite.runs[run.name]) for run in plan.runs] if plan else []
    folders = [folder for run in plan.runs for folder in _folders(run, suite.runs[run.name])] if plan else []
    if not plan or not all(run.finished for run in runs) or not all(folder.is_dir() for folder in folders):
        return []
    results = [run.results() for run in runs]
    seconds = sum(each["seconds"] for each in results)
    memory = max(each["cost"].get("peak_memory", 0) for each in results)  # an earlier version's runs do not say it
    disk = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    sizes: Counter[str] = Counter()
    for entry in Cache(cache_folder()).entries():
        sizes[entry.name] += entry.size
    grown = [sizes[name] - before for name, before in plan.cache_entries.items()]
    # Where one has not grown, some of the cache has been cleared since, and what it took cannot be told.
    planned_cache, cache = (plan.cache, sum(grown)) if min(grown, default=0) > 0 else (0, 0)
    compared = [
        (duration, "", plan.seconds, seconds if plan.jobs == 1 else 0),
        (byte_size, " of disk", plan.disk + planned_cache, disk + cache),
        (byte_size, " of memory", plan.memory, memory),
    ]
    told = "; ".join(
        f"planned {show(planned)}{what}, took {show(took)} ({_off(planned, took)})"
        for show, what, planned, took in compared
        if took
    )
    return [f"{told[0].upper()}{told[1:]}."]


def _kept_plan(suite: Suite) -> Plan | None:
    """The plan that was kept, if it is of runs that the suite has."""
    try:
        kept = read_json(plan_file(suite))
        plan = Plan(**kept | {"runs": [PlannedRun(**run) for run in kept["runs"]]})
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return plan if all(run.name in suite.runs for run in plan.runs) else None


def _folders(run: PlannedRun, config: Config) -> list[Path]:
    """What a run leaves: its own folder, and those of what it left in the store."""
    store = Path(config.output_dir) / ARTEFACTS
    return [RunFolder.of(config).path, *(store / key for key in run.leaves)]


def duration(seconds: float) -> str:
    """`52 s`, `12 min`, `3.4 h`."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _off(planned: float, measured: float) -> str:
    difference = planned / measured - 1
    return f"{abs(difference):.0%} {'more' if difference > 0 else 'less'} was planned"
