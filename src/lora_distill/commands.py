"""The commands: each takes its flags, lets the program's parts work, prints, and returns an exit code."""

import argparse
import shlex
from contextlib import nullcontext
from pathlib import Path

from lora_distill.commands_on_models import export, predict, push, serve
from lora_distill.commands_on_runs import compare, evaluate, report, show, speed
from lora_distill.commands_on_suites import plan, suite, tune
from lora_distill.config import make_config
from lora_distill.errors import UserError
from lora_distill.flags import given
from lora_distill.printing import console, point_to, print_lines, print_results
from lora_distill.profiling import PROFILE, profiled
from lora_distill.program import OK, program
from lora_distill.run_folder import RunFolder
from lora_distill.store import write_json
from lora_distill.yaml_file import read_yaml


def train(arguments: argparse.Namespace) -> int:
    """One experiment."""
    from lora_distill.reporting.tables import profile_tables
    from lora_distill.running import run_or_read

    values, origins = given(arguments)
    if arguments.config:
        file = read_yaml(arguments.config)
        if "experiments" in file.values:
            call = f"{program()} suite {shlex.quote(str(arguments.config))}"
            raise UserError(f"{arguments.config}: holds experiments, so it is a suite. Call: {call}")
        values, origins = file.plain() | values, file.origins() | origins
    config = make_config(values, origins)
    if arguments.resume:
        if not config.exp_name:
            raise UserError("--resume: say which run with --exp_name NAME; its folder's name is its name.")
        run = RunFolder.of(config)
        if run.begun:
            # The run knows its settings; what is given again must agree with them.
            config = run.requested().model_copy(update={name: getattr(config, name) for name in values})
    finished = bool(config.exp_name) and RunFolder.of(config).finished and not arguments.overwrite
    with profiled() if arguments.profile else nullcontext() as profile:
        results = run_or_read(config, resume=arguments.resume, overwrite=arguments.overwrite, since=arguments.since)
    folder = Path(config.output_dir) / results["exp_name"]
    print_results([results])
    if profile and profile["operators"]:  # else nothing was trained, and what is there stays
        for table in profile_tables(profile):
            console().print(table)
        write_json(folder / PROFILE, profile)
    point_to(folder, is_new=not finished)
    return OK


def cache(arguments: argparse.Namespace) -> int:
    """What lies in the cache; to clear it."""
    from lora_distill.cache import Cache, cache_folder
    from lora_distill.data.wording import byte_size
    from lora_distill.reporting.tables import cache_table

    cache = Cache(cache_folder())
    if arguments.action == "clear":
        print_lines(f"{cache.folder}: {byte_size(cache.clear())} removed.")
        return OK
    entries = cache.entries()
    if entries:
        console().print(cache_table(entries))
    print_lines(f"{cache.folder}: {byte_size(sum(entry.size for entry in entries))}.")
    return OK


COMMANDS = {
    "train": train,
    "suite": suite,
    "tune": tune,
    "evaluate": evaluate,
    "predict": predict,
    "speed": speed,
    "export": export,
    "push": push,
    "show": show,
    "compare": compare,
    "report": report,
    "serve": serve,
    "plan": plan,
    "cache": cache,
}
