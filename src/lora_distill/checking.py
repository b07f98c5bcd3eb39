"""Whether a suite's experiments can run, found out before the first one does."""

import re
import warnings

from lora_distill.config import Config
from lora_distill.errors import UserError
from lora_distill.inputs import check_files
from lora_distill.progress import warnings_only
from lora_distill.remembering import remembering
from lora_distill.run_folder import PLACES, RunFolder, TakenError
from lora_distill.running import RENAME
from lora_distill.suite import Suite


def misfits(suite: Suite, *, overwrite: bool = False) -> list[str]:
    """What is wrong with each experiment, and where the setting stands that it is about.

    Every name is looked up. Of each experiment one run that is not finished is prepared as it is before it trains;
    models and data sets that experiments share are read once. A suite that is finished loads no library for that.

    Args:
        suite: as it was read.
        overwrite: as for the runs.
    """
    faults = []
    # What the libraries warn of is for programmers.
    with remembering(), warnings_only(), warnings.catch_warnings(action="ignore"):
        for experiment, runs in suite.experiments.items():
            configs = [suite.runs[run] for run in runs]
            try:
                _check(configs, overwrite=overwrite)
            except UserError as error:
                faults.append(_told(error, configs[0], suite.origins[experiment]))
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


def _told(error: UserError, config: Config, origins: dict[str, str]) -> str:
    """A fault as those of the file are told, below its line."""
    if isinstance(error, TakenError):
        return f"{origins['exp_name']}: {error.reason}\n{RENAME}"
    message = str(error)
    first = message.splitlines()[0]
    named = [name for name in re.findall(r"--(\w+)", message) if name != "exp_name"]
    # Messages on these begin with what was given.
    named += [name for name in PLACES if str(getattr(config, name)) in first]
    name = next((name for name in named if name in origins), "exp_name")
    if message.startswith(f"--{name}"):
        return origins[name] + message.removeprefix(f"--{name}")
    return f"{origins[name]}: {message}"
