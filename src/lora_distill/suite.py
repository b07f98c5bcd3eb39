"""Many experiments from one file: read whole, run one after the other, resumable."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_distill.config import Config, find_faults, suggest
from lora_distill.data.catalogue import open_source
from lora_distill.data.files import Columns
from lora_distill.errors import UserError
from lora_distill.model.base import has_changed
from lora_distill.run_folder import RunFolder, TakenError, changed_since
from lora_distill.yaml_file import YamlMapping, read_yaml

logger = logging.getLogger(__name__)
KEYS = ("name", "base", "experiments")
RENAME = (
    "Rename the experiment, or the suite, in the file; --overwrite trains all experiments of the suite again instead."
)


@dataclass(frozen=True)
class Suite:
    """Experiments by name, each config complete.

    Attributes:
        name: begins the name of every run.
        experiments: in the order of the file.
    """

    name: str
    experiments: dict[str, Config]


@dataclass(frozen=True)
class SuiteResult:
    """What came of a suite.

    Attributes:
        results: metrics.json of each experiment that finished, in order.
        failures: message of each that did not, by name.
    """

    results: list[dict[str, Any]]
    failures: dict[str, str]


def read_suite(path: Path, flags: Mapping[str, str], flag_origins: Mapping[str, str]) -> Suite:
    """Read a suite file: `base`, settings of all; `experiments`, named overrides; `name`, else the file's own.

    Args:
        path: a YAML file.
        flags: settings that win over the file's, for every experiment.
        flag_origins: where they stand, for messages.

    Raises:
        UserError: with a line for each fault of the whole file.
    """
    file = read_yaml(path)
    faults = [
        f"{file.origin(key)}: no such key{suggest(key, list(KEYS))}; a suite has {', '.join(KEYS)}"
        for key in file.values
        if key not in KEYS
    ]
    base, experiments = (_section(file, key, faults) for key in ("base", "experiments"))
    name = str(file.values.get("name", path.stem))
    if not experiments.values and not faults:
        faults.append(f"{path}: has no experiments. Add `experiments:` with a line for each, such as `base: {{}}`.")
    configs: dict[str, Config] = {}
    for experiment in experiments.values:
        overrides = _section(experiments, experiment, faults)
        values = base.values | overrides.values | dict(flags)
        origins = base.origins() | overrides.origins() | dict(flag_origins)
        if "exp_name" in values:
            faults.append(f"{origins['exp_name']}: a suite names its runs itself, after its experiments.")
        else:
            plain = {key: value.plain() if isinstance(value, YamlMapping) else value for key, value in values.items()}
            plain["exp_name"] = f"{name}-{experiment}"
            origins["exp_name"] = experiments.origin(experiment)
            found = find_faults(plain, origins)
            faults += [fault for fault in found if fault not in faults]
            if not found:
                configs[experiment] = Config(**plain)
    if faults:
        raise UserError("\n".join(faults))
    return Suite(name, configs)


def _section(parent: YamlMapping, key: str, faults: list[str]) -> YamlMapping:
    value = parent.values.get(key)
    if isinstance(value, YamlMapping):
        return value
    if value is not None:
        if key == "experiments":
            lines = "a line `name: {settings}` for each experiment, such as\nexperiments:\n  mine: {alpha: 0.7}"
        else:
            lines = f"`setting: value` lines, not {value!r}."
        faults.append(f"{parent.origin(key)}: must hold {lines}")
    return YamlMapping(parent.path, {}, {})


def run_suite(suite: Suite, *, overwrite: bool = False, outcome: SuiteResult | None = None) -> SuiteResult:
    """Run every experiment; what is finished is read, what was begun goes on, what fails does not stop the rest.

    Args:
        suite: as it was read.
        overwrite: as in `experiment.run_experiment`, for each of them.
        outcome: is filled and given back; for a caller that may be interrupted.
    """
    outcome = outcome or SuiteResult([], {})
    renewed: set[str] = set()
    for number, (name, config) in enumerate(suite.experiments.items(), start=1):
        logger.info("── %s (%d of %d)", name, number, len(suite.experiments))
        try:
            begun = RunFolder.of(config).begun
            outcome.results.append(run_or_read(config, resume=begun, overwrite=overwrite, renewed=renewed))
        except UserError as error:
            outcome.failures[name] = f"{error.reason}\n{RENAME}" if isinstance(error, TakenError) else str(error)
            logger.info("%s failed", name)
    return outcome


def run_or_read(config: Config, *, resume: bool, overwrite: bool, renewed: set[str] | None = None) -> dict[str, Any]:
    """The results of an experiment: read when it is finished, without loading what only training needs.

    Args:
        config: as it was asked for.
        resume: as in `experiment.run_experiment`.
        overwrite: as in `experiment.run_experiment`.
        renewed: as in `experiment.run_experiment`.
    """
    run = RunFolder.of(config)
    if config.exp_name and run.finished and not overwrite:
        run.admit(config, resume=True, overwrite=False)
        _check_unchanged(run)
        logger.info("%s: already finished, nothing was trained; --overwrite trains it again", run.path)
        return run.results()
    from lora_distill.experiment import run_experiment

    return run_experiment(config, resume=resume, overwrite=overwrite, renewed=renewed)


def _check_unchanged(run: RunFolder) -> None:
    """Results of files that say something else by now would be believed to be those files'."""
    config, trained_on = run.resolved(), run.results()["data"]["source"]
    if trained_on["kind"] in ("file", "folder") and Path(trained_on["location"]).exists():
        now = open_source(config.dataset, Columns(config.text_column, config.label_column)).origin
        if now["revision"] != trained_on["revision"]:
            raise changed_since(run.path, config.dataset)
    if has_changed(run.environment()["base_model"]):
        raise changed_since(run.path, config.base_model)
