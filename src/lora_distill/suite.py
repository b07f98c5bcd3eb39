"""Many experiments from one file, read whole."""

import itertools
import re
import shlex
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lora_distill.combinations import without
from lora_distill.config import ROLES, Config
from lora_distill.errors import UserError
from lora_distill.faults import find_faults, sound
from lora_distill.program import program
from lora_distill.run_folder import PLACES, RunFolder
from lora_distill.yaml_file import YamlMapping, plain, read_yaml

KEYS = ("name", "base", "experiments", "grid", "seeds", "roles")
SEEDS = 5  # what chance does to a training is seen in no fewer
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Suite:
    """Runs by name, each config complete.

    Attributes:
        name: begins the name of every run.
        runs: all experiments with the first seed, then all with the second.
        experiments: names of the runs of each experiment, a run for each seed.
        origins: where each setting of an experiment stands, for messages; under exp_name where itself does.
    """

    name: str
    runs: dict[str, Config]
    experiments: dict[str, list[str]]
    origins: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its runs lie, and beside them what is written of all of them."""
        return Path(next(iter(self.runs.values())).output_dir)

    def file(self, suffix: str) -> Path:
        """What is written of all its runs, by the end of its name, such as `.html`."""
        return self.folder / f"{self.name}{suffix}"

    def groups(self) -> dict[str, list[RunFolder]]:
        """The runs' folders by experiment."""
        return {name: [RunFolder.of(self.runs[run]) for run in runs] for name, runs in self.experiments.items()}

    def only(self, pattern: str) -> "Suite":
        """The experiments whose names fit, `*` and `?` standing for any letters and any letter.

        Raises:
            UserError: none does.
        """
        fitting = {name: runs for name, runs in self.experiments.items() if fnmatchcase(name, pattern)}
        if not fitting:
            raise UserError(f"--only {pattern}: no experiment is called so. There are {', '.join(self.experiments)}.")
        chosen = {run for runs in fitting.values() for run in runs}
        return replace(
            self, runs={run: config for run, config in self.runs.items() if run in chosen}, experiments=fitting
        )


def read_suite(
    path: Path,
    flags: Mapping[str, str],
    flag_origins: Mapping[str, str],
    *,
    only: str | None = None,
    check: Callable[[Suite, Container[str]], list[str]] | None = None,
) -> Suite:
    """Read a suite file.

    It holds `base`, settings of all; `experiments`, named overrides; `grid`, lists of values whose combinations
    multiply the experiments; `seeds`, a list or how many, five if not given, with each of which every experiment runs
    that sets no `seed` of its own; `roles`, all if not given; `name`, else the file's own.

    Args:
        path: a YAML file.
        flags: settings that win over the file's, for every experiment.
        flag_origins: where they stand, for messages.
        only: take the experiments whose names fit this pattern.
        check: finds what else is wrong with experiments, and is told which of them lack a setting that is at fault.

    Raises:
        UserError: with a line for each fault of the whole file; or no experiment fits the pattern.
    """
    file = read_yaml(path)
    if file.values and file.values.keys() <= Config.model_fields.keys():
        call = f"{program()} train --config {shlex.quote(str(path))}"
        raise UserError(f"{path}: holds the settings of one run, not experiments. Call: {call}")
    faults = file.strange_keys("a suite", KEYS)
    base, experiments, grid = (_section(file, key, faults) for key in ("base", "experiments", "grid"))
    seeds, roles = _seeds(file, faults), _roles(file, faults)
    faults += _said_twice(file, base, grid, flag_origins)
    name = file.own_name()
    if bad_name := find_faults(Config, {"exp_name": name}, {"exp_name": file.place("name")}):
        faults += bad_name
        name = "suite"  # so that each experiment is not told of it
    if not experiments.values and not grid.values and not faults:
        raise UserError(f"{path}: has no experiments. Add `experiments:` with a line for each, such as `base: {{}}`.")
    found: dict[str, Config] = {}
    faulty: set[str] = set()
    origins_of: dict[str, dict[str, str]] = {}
    for experiment, place, values, origins in _expand(experiments, grid, faults):
        settings = base.values | values | dict(flags)
        places = {"exp_name": place} | base.origins() | origins | dict(flag_origins)
        if "exp_name" in settings:
            faults.append(f"{places['exp_name']}: a suite names its runs itself, after its experiments.")
            continue
        if "no_control" in settings and "roles" in file.values:
            faults.append(f"{places['no_control']}: the suite says it: {file.origin('roles')}.")
        settings |= roles
        given = {key: plain(value) for key, value in settings.items()} | {"exp_name": f"{name}-{experiment}"}
        here = find_faults(Config, given, places)
        faults += [fault for fault in here if fault not in faults]
        if here:
            faulty.add(experiment)
            given = without(given, given.keys() - sound(Config, given).keys())
        if {"exp_name", *settings.keys() & set(PLACES)} <= given.keys():  # else other data or models would be asked
            found[experiment], origins_of[experiment] = Config(**given), places
    suite = replace(_with_seeds(name, found, seeds), origins=origins_of)
    faults += _name_clashes(suite)
    if only and not faults:
        suite = suite.only(only)
    faults += check(suite, faulty) if check else []
    if faults:
        raise UserError("\n".join(dict.fromkeys(faults)))
    return suite


def _said_twice(file: YamlMapping, base: YamlMapping, grid: YamlMapping, flag_origins: Mapping[str, str]) -> list[str]:
    """Faults of settings of all experiments that would be dropped without a word."""
    flags = [key for key in grid.values if key in flag_origins]
    faults = [f"{flag_origins[key]}: the suite varies it: {grid.origin(key)}" for key in flags]
    if "seeds" in file.values:
        seeds = [section.origin("seed") for section in (base, grid) if "seed" in section.values]
        faults += [f"{origin}: the suite says it: {file.origin('seeds')}. Take one of them out." for origin in seeds]
    return faults


def _name_clashes(suite: Suite) -> list[str]:
    count = Counter(run for runs in suite.experiments.values() for run in runs)
    return [
        f"{suite.origins[experiment]['exp_name']}: its run {run} is called as another experiment's. Rename one."
        for experiment, runs in suite.experiments.items()
        for run in runs
        if count[run] > 1
    ]


def _with_seeds(name: str, experiments: Mapping[str, Config], seeds: list[int]) -> Suite:
    """Whole rounds of seeds, so that a suite that is stopped has compared its experiments on something."""
    runs: dict[str, Config] = {}
    names: dict[str, list[str]] = {experiment: [] for experiment in experiments}
    for number, seed in enumerate(seeds):
        for experiment, config in experiments.items():
            has_its_own = "seed" in config.model_fields_set
            if has_its_own and number:
                continue
            changes: dict[str, Any] = {} if has_its_own else {"seed": seed}
            run = experiment if has_its_own or len(seeds) == 1 else f"{experiment}-seed-{seed}"
            runs[run] = config.model_copy(update=changes | {"exp_name": f"{name}-{run}"})
            names[experiment].append(run)
    return Suite(name, runs, names)


def _expand(
    experiments: YamlMapping, grid: YamlMapping, faults: list[str]
) -> Iterator[tuple[str, str, dict[str, Any], dict[str, str]]]:
    """Name and where it stands, settings and where they stand, of each experiment with each combination of the grid."""
    axes: list[list[tuple[str, Any]]] = []
    for key, values in grid.values.items():
        if isinstance(values, list) and values:
            axes.append([(key, value) for value in values])
        else:
            faults.append(f"{grid.origin(key)}: must hold a list of values, such as [0.3, 0.7], not {plain(values)!r}.")
    taken: set[str] = set()
    for experiment in experiments.values or [""]:
        overrides = _section(experiments, experiment, faults)
        faults += [
            f"{overrides.origin(key)}: the suite varies it: {grid.origin(key)}. Take one of them out."
            for key in overrides.values
            if key in grid.values
        ]
        place = experiments.origin(experiment) if experiment else f"{grid.path}: grid"
        for combination in itertools.product(*axes):
            parts = [experiment, *(f"{key}-{_in_name(value)}" for key, value in combination)]
            name = "-".join(part for part in parts if part)
            if name in taken:
                faults.append(f"{grid.path}: {name} comes twice. Name the experiments and the grid's values apart.")
            taken.add(name)
            varied = dict(combination)
            origins = {key: grid.origin(key) for key in varied}
            yield name, place, overrides.values | varied, overrides.origins() | origins


def _in_name(value: object) -> str:
    """A setting's value as a part of a folder's name."""
    text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^\w.+-]+", "_", text)


def _seeds(file: YamlMapping, faults: list[str]) -> list[int]:
    given = file.values.get("seeds", SEEDS)
    if isinstance(given, int) and not isinstance(given, bool) and 0 < given <= MOST_SEEDS:
        return list(range(given))
    listed = given if isinstance(given, list) and len(given) <= MOST_SEEDS else []
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in listed)
    if not listed or not whole or len(set(listed)) < len(listed):
        faults.append(
            f"{file.origin('seeds')}: must say how many seeds, {MOST_SEEDS} at most, such as 5, or which, such as"
            f" [0, 1, 2], each once; not {str(plain(given))[:80]}."
        )
        return [0]
    return listed


def _roles(file: YamlMapping, faults: list[str]) -> dict[str, bool]:
    """The setting that says it."""
    given = file.values.get("roles")
    if given is None and "roles" not in file.values:
        return {}
    trained_on_labels = ROLES[:3]  # with texts that have none, the self-trained student comes with the control
    for roles in (trained_on_labels, ROLES[:2]):
        if isinstance(given, list) and sorted(map(str, given)) == sorted(roles):
            return {"no_control": roles != trained_on_labels}
    faults.append(
        f"{file.origin('roles')}: must be [teacher, student, control], or [teacher, student] where nothing is asked"
        f" of a control, not {plain(given)!r}. A suite is about students, a student needs a teacher, and a control is"
        " that student without it."
    )
    return {}


def _section(parent: YamlMapping, key: str, faults: list[str]) -> YamlMapping:
    if key == "experiments":
        wanted = "a line `name: {settings}` for each experiment, such as\nexperiments:\n  mine: {alpha: 0.7}"
    elif key == "grid":
        wanted = "a list of values for each setting, such as\ngrid:\n  alpha: [0.3, 0.7]"
    else:
        wanted = f"`setting: value` lines, not {plain(parent.values.get(key))!r}."
    return parent.section(key, wanted, faults)
