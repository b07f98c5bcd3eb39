"""A search of settings, read whole from its file: what is varied, and between which bounds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_distill.config import Config
from lora_distill.errors import UserError
from lora_distill.faults import find_faults, suggest
from lora_distill.yaml_file import YamlMapping, plain, read_yaml

KEYS = ("name", "base", "search", "trials", "seed")
TRIALS = 20
# Trials are compared on the same rows and within the same budget, and only what a student becomes is searched.
FIXED = {
    *("exp_name", "output_dir", "seed", "dataset", "text_column", "label_column", "max_train_rows", "labels_per_class"),
    *("text_pair_column", "unlabelled"),
    *("validation_fraction", "test_fraction", "student_budget", "teacher_label_map", "no_control", "logging_steps"),
    *("preset", "report_to", "cache_limit", "device", "precision"),
}
OF_THE_CONTROL = ("control_learning_rate", "control_num_epochs")  # all else it shares with the student
BOUNDS = ("low", "high")
Scalar = str | int | float | bool


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included; whole ones where the setting is a whole number.

    Attributes:
        low: the lower bound.
        high: the upper bound.
        log: whether the numbers are drawn even in their logarithm.
    """

    low: int | float
    high: int | float
    log: bool

    @property
    def extremes(self) -> list[Scalar]:
        """The values that show whether all of it can be had."""
        return [self.low, self.high]

    def up_to(self, most: int) -> "Range":
        """What of it is no more than that."""
        return replace(self, low=min(self.low, most), high=min(self.high, most))


@dataclass(frozen=True)
class Choices:
    """Values of which one is taken; lists and mappings are written as in flags."""

    values: tuple[Scalar, ...]

    @property
    def extremes(self) -> list[Scalar]:
        """The values that show whether all of it can be had."""
        return list(self.values)

    def up_to(self, most: int) -> "Choices":
        """Those of them that are no more than that."""
        return Choices(tuple(value for value in self.values if int(value) <= most))


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        path: the file.
        name: of the search and of its winner's run.
        base: the settings that all trials share, as they were named.
        space: what they vary, by setting.
        trials: how many.
        seed: of the draws; that of the trainings is a setting.
        origins: where each setting stands, for messages.
    """

    path: Path
    name: str
    base: dict[str, Any]
    space: dict[str, Range | Choices]
    trials: int
    seed: int
    origins: dict[str, str]

    def config(self, values: Mapping[str, Scalar], exp_name: str = "") -> Config:
        """The experiment with these values of what is varied."""
        return Config(**(self.base | dict(values) | {"exp_name": exp_name}))

    def of_student(self) -> "Search":
        """What is searched for the student: all but what the control has for itself, unless that teaches it."""
        taught_by_it = "learn_from" in self.space or self.config({}).learn_from == "both"
        space = {name: each for name, each in self.space.items() if taught_by_it or name not in OF_THE_CONTROL}
        return replace(self, space=space)

    def of_control(self, values: Mapping[str, Scalar], name: str) -> "Search":
        """What is searched for the control of the student with these values.

        That is its learning rate and epochs: between bounds of their own where they have some, else where they are
        searched for the student, too, between the same, and with no more epochs than the student has. What the base or
        its preset gives the control stays; and all, where the student learns from it: another would make another one.

        Args:
            values: of what was searched for the student.
            name: of this search.
        """
        space: dict[str, Range | Choices] = {}
        config = self.config(values)
        given = config.model_fields_set
        for own in OF_THE_CONTROL if config.learn_from == "teacher" else ():
            shared = own.removeprefix("control_")
            if own in self.space:
                space[own] = self.space[own]
            elif shared in self.space and own not in given:
                is_epochs = shared == "num_epochs"
                space[own] = self.space[shared].up_to(int(values[shared])) if is_epochs else self.space[shared]
        return replace(self, name=name, base=self.base | dict(values), space=space)


def read_search(
    path: Path,
    flags: Mapping[str, str],
    flag_origins: Mapping[str, str],
    misfits: Callable[[Search], list[str]] = lambda _search: [],
) -> Search:
    """Read a search file.

    It holds `base`, settings of all; `search`, for each setting that is varied `{low: 1, high: 8}`, with `log: true`
    where its size matters more than its value, or `{choices: [a, b]}`; `trials`; `seed`; `name`, else the file's own.

    Args:
        path: a YAML file.
        flags: settings that win over `base`.
        flag_origins: where they stand, for messages.
        misfits: what does not fit model or data, of what is sound as far as the file tells.

    Raises:
        UserError: with a line for each fault of the whole file.
    """
    file = read_yaml(path)
    faults = file.strange_keys("a search", KEYS)
    base, varied = (
        file.section(key, f"`setting: ...` lines, not {plain(file.values.get(key))!r}.", faults)
        for key in ("base", "search")
    )
    if not varied.values and not faults:
        faults.append(f"{path}: varies nothing. Add `search:` with a line such as `alpha: {{low: 0.1, high: 0.9}}`.")
    origins = base.origins() | dict(flag_origins)
    settings = base.plain() | dict(flags)
    if "exp_name" in settings:
        faults.append(f"{origins['exp_name']}: a search names its winner's run itself, after its `name`.")
    name = file.own_name()
    here = find_faults(Config, settings | {"exp_name": name}, origins | {"exp_name": file.place("name")})
    space: dict[str, Range | Choices] = {}
    for key, spec in varied.values.items():
        found = _faults_of(key, spec, varied, settings, origins)
        if not found:
            space[key] = _dimension(key, spec)
        faults += found
    trials, seed = (_whole(file, key, least, faults) for key, least in (("trials", 1), ("seed", 0)))
    search = Search(path, name, settings, space, trials or TRIALS, seed or 0, origins | varied.origins())
    faults += here
    if not here and space:
        faults += misfits(search)
    if faults:
        raise UserError("\n".join(faults))
    return search


def _whole(file: YamlMapping, key: str, least: int, faults: list[str]) -> int | None:
    value = file.values.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= least):
        return value
    faults.append(f"{file.origin(key)}: must be a whole number, at least {least}; not {plain(value)!r}.")
    return None


def _faults_of(
    key: str, spec: object, varied: YamlMapping, settings: Mapping[str, Any], origins: Mapping[str, str]
) -> list[str]:
    """What is wrong with one line of the space."""
    where = varied.origin(key)
    if key in FIXED or key not in Config.model_fields:
        fixed = ": cannot be searched, for it is no part of the recipe. Put it into `base`."
        return [where + (fixed if key in FIXED else f": no such setting{suggest(key, Config.model_fields)}")]
    faults = [f"{where}: stands in {origins[key]}, too. Take it out of one."] if key in settings else []
    keys = set(spec.values) if isinstance(spec, YamlMapping) else set()
    shape = "`{low: 1, high: 8}`, with `log: true` or not, or `{choices: [a, b]}`"
    if not isinstance(spec, YamlMapping) or not (
        keys == {"choices"} or {"low", "high"} <= keys <= {"low", "high", "log"}
    ):
        return [*faults, f"{where}: must be {shape}; not {plain(spec)!r}."]
    if "choices" in keys:
        choices = spec.values["choices"]
        if not isinstance(choices, list) or not choices:
            return [*faults, f"{where}: choices must be a list of values, not {plain(choices)!r}."]
        return faults + [fault for value in choices for fault in find_faults(Config, {key: value}, {key: where})]
    return faults + _faults_of_bounds(key, spec, where)


def _faults_of_bounds(key: str, spec: YamlMapping, where: str) -> list[str]:
    faults = [fault for name in BOUNDS for fault in find_faults(Config, {key: spec.values[name]}, {key: where})]
    if faults:
        return faults
    low, high = _bounds(key, spec)
    log = spec.values.get("log", False)
    if not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in (low, high)):
        return [f"{where}: has no bounds, for it is no number. Give its `choices`."]
    if low >= high:
        faults.append(f"{where}: low {low} must be less than high {high}.")
    if not isinstance(log, bool):
        faults.append(f"{where}: log must be true or false, not {plain(log)!r}.")
    elif log and low <= 0:
        faults.append(f"{where}: with log, low must be more than 0, not {low}.")
    return faults


def _dimension(key: str, spec: YamlMapping) -> Range | Choices:
    if "choices" in spec.values:
        return Choices(tuple(map(_as_flag, spec.values["choices"])))
    return Range(*_bounds(key, spec), spec.values.get("log", False))


def _bounds(key: str, spec: YamlMapping) -> tuple[Any, Any]:
    """As the setting has them: 1 is 1.0 where it is no whole number, and 1e-5 a number, though YAML reads a text."""
    low, high = (getattr(Config(**{key: spec.values[name]}), key) for name in BOUNDS)
    return low, high


def _as_flag(value: Any) -> Scalar:  # noqa: ANN401 - what YAML gives
    if isinstance(value, dict):
        value = [f"{key}={each}" for key, each in value.items()]
    return ",".join(value) if isinstance(value, list) else value
