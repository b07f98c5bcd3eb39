"""Whether a suite's experiments can run, found out before the first one does."""

import re
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial

from lora_distill.combinations import without
from lora_distill.config import WITHOUT_BUDGET, Config
from lora_distill.errors import UserError
from lora_distill.inputs import check_files, load_data
from lora_distill.progress import warnings_only
from lora_distill.remembering import remembering
from lora_distill.run_folder import RunFolder, TakenError
from lora_distill.running import RENAME
from lora_distill.suite import Suite

ENCODERS = ("base_model", "student_base_model")
# What says something of a student with any data; it is all that is looked at where the data are at fault.
WITHOUT_DATA = {
    *(*ENCODERS, "base_depth", "student_depth", "student_keep", "output_dir", "device", "precision", "report_to"),
    *(
        f"{role}_{setting}"
        for role in ("teacher", "student")
        for setting in ("lora_r", "target_layers", "rank_pattern")
    ),
    *("target_modules", "max_length", "pooled_weight", "exp_name"),
}
STAND_IN = {"dataset": "bbc_news"} | WITHOUT_BUDGET  # packaged; with other labels a student has another size


def misfits(suite: Suite, faulty: Container[str] = (), *, overwrite: bool = False) -> list[str]:
    """What is wrong with each experiment, and where the setting stands that it is about.

    Every name is looked up. Of each experiment one run that is not finished is prepared as it is before it trains;
    models and data sets that experiments share are read once. A suite that is finished loads no library for that. What
    is found is left out then, and the rest looked at again, until no more is found.

    Args:
        suite: as it was read.
        faulty: names of experiments that lack a setting that was at fault: they are not what their runs would be.
        overwrite: as for the runs.
    """
    faults: list[str] = []
    # What the libraries warn of is for programmers.
    with remembering(), warnings_only(), warnings.catch_warnings(action="ignore"):
        for experiment, runs in suite.experiments.items():
            configs = [suite.runs[run] for run in runs]
            is_whole = experiment not in faulty
            check = partial(_check, configs, overwrite=overwrite) if is_whole else partial(_prepare, configs[0])
            faults += _faults(configs[0], check, suite.origins[experiment])
    return faults


def _check(configs: list[Config], *, overwrite: bool) -> None:
    runs = [(each, run := RunFolder.of(each), overwrite or bool(run.outdated_since)) for each in configs]
    for config, folder, again in runs:
        folder.admit(config, resume=folder.begun, overwrite=again)
    for config, folder, again in runs:
        if again or not folder.finished:
            check_files(config, resume=folder.begun and not again)
            from lora_distill.experiment import prepare_run

            prepare_run(config, resume=folder.begun and not again, overwrite=again)
            return


def _prepare(config: Config) -> None:
    from lora_distill.preparation import prepare

    prepare(config)


def _faults(config: Config, check: Callable[[], object], origins: Mapping[str, str]) -> Iterator[str]:
    """What `check` finds wrong with an experiment, and then what there is beside that."""
    told: set[str] = set()
    while True:
        try:
            check()
            return
        except UserError as error:
            name = _setting(error, origins)
            yield _told(error, name, origins)
        if name in told:  # of encoders, which stay among the settings
            return
        told.add(name)
        is_of_data = name not in WITHOUT_DATA
        if name not in config.model_fields_set or (is_of_data and config.dataset == STAND_IN["dataset"]):
            return
        if name in ENCODERS:  # then only the data can be looked at
            check = partial(load_data, config)
            continue
        named = without(config.model_dump(include=config.model_fields_set), {name, "exp_name"})
        if is_of_data:
            named = {each: value for each, value in named.items() if each in WITHOUT_DATA}
            if named.keys() <= {"output_dir"}:  # nothing else was asked for, so that torch need not be loaded
                return
            named |= STAND_IN
        config = Config(**named)
        check = partial(_prepare, config)


def _setting(error: UserError, origins: Mapping[str, str]) -> str:
    """The setting of those that were given that a fault is about; `exp_name` where it is about none."""
    if isinstance(error, TakenError):  # it tells other settings, too
        return "exp_name"
    named = [name for name in re.findall(r"--(\w+)", str(error)) if name != "exp_name"]
    return next((name for name in (*named, error.setting) if name in origins), "exp_name")


def _told(error: UserError, name: str, origins: Mapping[str, str]) -> str:
    """A fault as those of the file are told, below its line."""
    if isinstance(error, TakenError):
        return f"{origins['exp_name']}: {error.reason}\n{RENAME}"
    message = str(error)
    if message.startswith(f"--{name}"):
        return origins[name] + message.removeprefix(f"--{name}")
    return f"{origins[name]}: {message}"
