"""The command line: flags in, messages and tables out."""

import argparse
import errno
import io
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from lora_distill import __version__
from lora_distill.config import Config, make_config, suggest
from lora_distill.errors import UserError
from lora_distill.hub import quiet as quiet_libraries
from lora_distill.progress import log_to_terminal
from lora_distill.run_folder import RunFolder
from lora_distill.yaml_file import read_yaml

OK, SOME_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
PIPED_WIDTH = 140


class _Parser(argparse.ArgumentParser):
    """Argparse that raises instead of printing its usage, and knows no abbreviations."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        message = message.replace("ignored explicit argument", "takes no value, but was given")
        raise UserError(f"{message}. See {self.prog} --help.")


def main(argv: list[str] | None = None) -> int:
    """Run a command and return the exit code: 0 done, 1 some experiments failed, 2 wrong input, 130 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a letter shows a question mark
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        _say_error(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "lora_distill":
            raise
        _say_error(f"the package {error.name} is not installed. Install it: pip install 'lora-distill[train]'")
    except OSError as error:
        if error.errno not in _USERS_TO_MEND:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _say_error(f"{where}{error.strerror}. {_USERS_TO_MEND[error.errno]}{_way_on(error)}")
    except KeyboardInterrupt as error:
        way_on = _way_on(error)
        kept = ". What was trained up to the last whole epoch is kept." if way_on else " before the training began."
        _say_error(f"stopped{kept}{way_on}")
        return INTERRUPTED
    return WRONG_INPUT


_USERS_TO_MEND = {
    errno.ENOSPC: "Free some room on the disk.",
    errno.EDQUOT: "Free some of your quota.",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f).",
    errno.EACCES: "Give another --output_dir, or mend the permissions.",
    errno.EPERM: "Give another --output_dir, or mend the permissions.",
    errno.EROFS: "Give another --output_dir: that file system cannot be written.",
    errno.ENAMETOOLONG: "Give a shorter --exp_name or --output_dir.",
    errno.EEXIST: "Give another --output_dir, or move it away.",
    errno.ENOTDIR: "Give another --output_dir, or move it away.",
    errno.ELOOP: "Give another --output_dir: that one is a link to itself.",
}


def _way_on(error: BaseException) -> str:
    """How to go on, from whoever knew it last and so knew most; empty where nothing was begun."""
    notes: list[str] = getattr(error, "__notes__", [])
    return f"\n{notes[-1]}" if notes else ""


def _say_error(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")


def _run(argv: list[str]) -> int:
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        fault = _describe_unknown(unknown[0], parser, arguments.command)
        raise UserError(f"{fault} See {parser.prog} {arguments.command} --help.")
    log_to_terminal(quiet=getattr(arguments, "quiet", False))
    quiet_libraries()
    commands = {"train": _train, "suite": _suite, "evaluate": _evaluate, "show": _show, "cache": _cache}
    return commands[arguments.command](arguments)


def _describe_unknown(argument: str, parser: _Parser, command: str) -> str:
    if not argument.startswith("-"):
        return f"{argument}: one argument too many."
    name = argument.partition("=")[0].lstrip("-")
    known = [flag.lstrip("-") for flag in _flags_of(parser, command)]
    return f"{argument}: no such flag{suggest(name, known, prefix='--') or '.'}"


def _parser() -> _Parser:
    parser = _Parser(
        prog="lora-distill",
        description="LoRA knowledge distillation for text classification: a small student under a hard budget of"
        " trainable parameters, and numbers that say whether it was worth it.",
    )
    parser.add_argument("--version", action="version", version=f"lora-distill {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="one experiment: teacher, student and control")
    train.add_argument("--config", metavar="FILE", type=Path, help="YAML with the settings below; flags win")
    either = train.add_mutually_exclusive_group()
    either.add_argument("--resume", action="store_true", help="go on with the run named by --exp_name")
    _add_running_flags(train, either)
    _add_config_flags(train, leave_out=())

    suite = commands.add_parser("suite", help="the experiments of a file, one after the other")
    suite.add_argument("file", metavar="FILE", type=Path, help="a suite in YAML, such as configs/quickstart.yaml")
    _add_running_flags(suite, suite)
    _add_config_flags(suite, leave_out=("exp_name",))

    evaluate = commands.add_parser("evaluate", help="judge a finished run on other labelled texts")
    evaluate.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    evaluate.add_argument("--dataset", required=True, help="a file, a folder or a name, as for train")
    for name in ("text_column", "label_column", "device"):
        _add_config_flag(evaluate, name)
    evaluate.add_argument("--quiet", action="store_true", help="show warnings and the result only")

    show = commands.add_parser("show", help="the results of a finished run")
    show.add_argument("run", metavar="RUN", type=Path, help="the run's folder")

    cache = commands.add_parser("cache", help="what is kept to save time: list it, or clear it")
    cache.add_argument("action", choices=("list", "clear"), help="what to do with it; runs lose nothing by it")
    return parser


def _add_running_flags(parser: argparse.ArgumentParser, overwriting: argparse._ActionsContainer) -> None:
    overwriting.add_argument("--overwrite", action="store_true", help="replace runs of the same name, train again")
    parser.add_argument("--quiet", action="store_true", help="show warnings and the result only")


def _add_config_flags(parser: argparse.ArgumentParser, *, leave_out: tuple[str, ...]) -> None:
    group = parser.add_argument_group("settings")
    for name in Config.model_fields:
        if name not in leave_out:
            _add_config_flag(group, name)


def _add_config_flag(parser: argparse._ActionsContainer, name: str) -> None:
    field = Config.model_fields[name]
    text = str(field.description).replace("%", "%%")
    if field.annotation is bool:
        parser.add_argument(f"--{name}", action="store_const", const=True, default=argparse.SUPPRESS, help=text)
        return
    default = "" if field.default in (None, "", (), {}) else f" (default: {field.default})"
    parser.add_argument(f"--{name}", default=argparse.SUPPRESS, metavar="…", help=text + default)


def _flags_of(parser: _Parser, command: str) -> list[str]:
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return list(subparsers.choices[command]._option_string_actions)


def _given(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that flags give, and where each stands."""
    values = {name: value for name, value in vars(arguments).items() if name in Config.model_fields}
    return values, {name: f"--{name}" for name in values}


def _train(arguments: argparse.Namespace) -> int:
    from lora_distill.suite import run_or_read

    values, origins = _given(arguments)
    if arguments.config:
        file = read_yaml(arguments.config)
        values, origins = file.plain() | values, file.origins() | origins
    config = make_config(values, origins)
    if arguments.resume:
        if not config.exp_name:
            raise UserError("--resume: say which run with --exp_name NAME; its folder's name is its name.")
        run = RunFolder.of(config)
        if run.begun:
            # The run knows its settings; what is given again must agree with them.
            config = run.requested().model_copy(update={name: getattr(config, name) for name in values})
    results = run_or_read(config, resume=arguments.resume, overwrite=arguments.overwrite)
    folder = Path(config.output_dir) / (config.exp_name or results["exp_name"])
    _print_results([results])
    _print_lines(
        f"Everything is in {folder}",
        f"Next: lora-distill show {folder}",
        f"      lora-distill evaluate {folder} --dataset FILE   (other labelled texts)",
    )
    return OK


def _suite(arguments: argparse.Namespace) -> int:
    from lora_distill.suite import read_suite, run_suite

    suite = read_suite(arguments.file, *_given(arguments))
    try:
        outcome = run_suite(suite, overwrite=arguments.overwrite)
    except (KeyboardInterrupt, OSError) as error:
        error.add_note(f"The same command{' without --overwrite' if arguments.overwrite else ''} goes on.")
        raise
    if outcome.results:
        _print_results(outcome.results)
        first = Path(next(iter(suite.experiments.values())).output_dir)
        _print_lines(
            f"Everything is in {first}, a folder for each experiment.",
            f"Next: lora-distill show {first / outcome.results[0]['exp_name']}",
            "      lora-distill train --base_model minilm --learning_rate 1e-3 --dataset YOUR_FILE.csv"
            "   (columns text, label)",
        )
    for message in dict.fromkeys(outcome.failures.values()):  # one mistake in the base fails them all
        names = ", ".join(name for name, told in outcome.failures.items() if told == message)
        _say_error(f"{names}: {message}")
    if not outcome.failures:
        return OK
    return SOME_FAILED if outcome.results else WRONG_INPUT


def _evaluate(arguments: argparse.Namespace) -> int:
    from lora_distill.evaluate_run import evaluate_run
    from lora_distill.reporting.tables import role_table

    config = make_config(*_given(arguments))
    with warnings.catch_warnings(action="ignore"):  # the libraries' warnings to programmers
        results, path = evaluate_run(arguments.run, config)
    _console().print(role_table(results))
    _print_lines(f"Written to {path}")
    return OK


def _show(arguments: argparse.Namespace) -> int:
    from lora_distill.reporting.tables import class_table, role_table

    results = RunFolder(arguments.run).results()
    console = _console()
    console.print(role_table(results))
    console.print(class_table(results))
    _print_results([results])
    return OK


def _cache(arguments: argparse.Namespace) -> int:
    from lora_distill.cache import Cache, cache_folder
    from lora_distill.data.wording import byte_size
    from lora_distill.reporting.tables import cache_table

    cache = Cache(cache_folder())
    if arguments.action == "clear":
        _print_lines(f"{cache.folder}: {byte_size(cache.clear())} removed.")
        return OK
    entries = cache.entries()
    if entries:
        _console().print(cache_table(entries))
    _print_lines(f"{cache.folder}: {byte_size(sum(entry.size for entry in entries))}.")
    return OK


def _print_results(results: list[dict[str, Any]]) -> None:
    from lora_distill.reporting.tables import explain, results_table

    console = _console()
    console.print(results_table(results))
    for line in explain(results):
        console.print(line, markup=False, highlight=False)


def _print_lines(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _console() -> Console:
    """Standard output; wide enough for a table where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
