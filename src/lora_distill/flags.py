"""The flags of every command; settings are the config's."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from lora_distill.config import ROLES, Config
from lora_distill.data.formats import INPUT_FORMATS
from lora_distill.deployment.forms import ADAPTER, MERGED, ONNX_FILES
from lora_distill.parser import Parser
from lora_distill.serving.settings import ServeSettings


def given(arguments: argparse.Namespace, kind: type[BaseModel] = Config) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that flags give, and where each stands."""
    values = {name: value for name, value in vars(arguments).items() if name in kind.model_fields}
    return values, {name: f"--{name}" for name in values}


def _add_train(train: Parser) -> None:
    train.add_argument("--config", metavar="FILE", type=Path, help="YAML with the settings below; flags win")
    either = train.add_mutually_exclusive_group()
    either.add_argument("--resume", action="store_true", help="go on with the run named by --exp_name")
    train.add_argument("--since", type=float, help=argparse.SUPPRESS)  # a suite's: when its --overwrite began
    train.add_argument("--profile", action="store_true", help="show where the time went, and write profile.json")
    _add_running_flags(train, either)
    _add_config_flags(train, leave_out=())


def _add_suite(suite: Parser) -> None:
    suite.add_argument("file", metavar="FILE", type=Path, help="a suite in YAML, such as configs/quickstart.yaml")
    suite.add_argument("--only", metavar="PATTERN", help="run the experiments with such names only, as in 'alpha-*'")
    failing = suite.add_mutually_exclusive_group()
    failing.add_argument("--fail_fast", action="store_true", help="stop at the first experiment that fails")
    failing.add_argument(
        "--keep_going", action="store_false", dest="fail_fast", help="run the others all the same, as it does anyway"
    )
    _add_jobs(suite, "run so many at a time, the threads divided")
    _add_running_flags(suite, suite)
    _add_config_flags(suite, leave_out=("exp_name",))


def _add_tune(tune: Parser) -> None:
    tune.add_argument("file", metavar="FILE", type=Path, help="a search in YAML, such as configs/search.yaml")
    tune.add_argument("--quiet", action="store_true", help="show warnings and the result only")
    _add_config_flags(tune, leave_out=("exp_name",))


def _add_plan(plan: Parser) -> None:
    plan.add_argument("file", metavar="FILE", type=Path, nargs="?", help="a suite in YAML")
    plan.add_argument(
        "--classes", metavar="…", type=int, help="without a suite: how many labels there are (default: 4)"
    )
    _add_jobs(plan, "with a suite: as for suite, so many runs at a time")
    plan.add_argument("--quiet", action="store_true", help="show warnings and the result only")
    _add_config_flags(plan, leave_out=("exp_name",))


def _add_cache(cache: Parser) -> None:
    cache.add_argument("action", choices=("list", "clear"), help="what to do with it; runs lose nothing by it")


def _add_evaluate(evaluate: Parser) -> None:
    evaluate.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    evaluate.add_argument("--dataset", required=True, help="a file, a folder or a name, as for train")
    for name in ("text_column", "text_pair_column", "label_column", "device"):
        _add_config_flag(evaluate, name)
    evaluate.add_argument("--quiet", action="store_true", help="show warnings and the result only")


def _add_speed(speed: Parser) -> None:
    speed.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    speed.add_argument(
        "--form",
        choices=(MERGED, *ONNX_FILES),
        default=MERGED,
        help="what they answer as: merged, through torch (default), or what export makes of them, through ONNX Runtime",
    )
    _add_config_flag(speed, "device")
    speed.add_argument("--quiet", action="store_true", help="show warnings and the result only")


def _add_export(export: Parser) -> None:
    export.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    export.add_argument(
        "--to",
        required=True,
        choices=(MERGED, *ONNX_FILES, "all"),
        help="merged: a plain folder of transformers; onnx: an ONNX graph; onnx-int8: the same in eight bits",
    )
    export.add_argument("--role", choices=ROLES, default="student", help="which of the run's models (default: student)")
    export.add_argument(
        "--output", metavar="DIR", type=Path, help="where to, with a folder in it for each of all; else RUN/exported"
    )
    export.add_argument("--force", action="store_true", help="keep also what does not answer as the run's model did")
    export.add_argument("--quiet", action="store_true", help="show warnings and the result only")


def _add_show(show: Parser) -> None:
    show.add_argument("run", metavar="RUN", type=Path, help="the run's folder, or a folder of runs")


def _add_compare(compare: Parser) -> None:
    compare.add_argument("runs", metavar="DIR", type=Path, nargs="+", help="a run's folder, or a folder of runs")
    compare.add_argument(
        "--against",
        metavar="EXPERIMENT",
        help="hold each other experiment's student against that of this one, called as in the table",
    )
    formats = compare.add_mutually_exclusive_group()
    for name in ("csv", "json", "markdown"):
        formats.add_argument(f"--{name}", dest="format", action="store_const", const=name, help=f"as {name}")
    compare.set_defaults(format="table")


def _add_report(report: Parser) -> None:
    report.add_argument("runs", metavar="DIR", type=Path, nargs="+", help="a run's folder, or a folder of runs")
    report.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="the page, an .html file; when not given, report.html in DIR, or in the folder that holds all of several",
    )
    report.add_argument("--figures", metavar="FOLDER", type=Path, help="write its plots here too, as SVG and PNG files")


def _add_predict(predict: Parser) -> None:
    predict.add_argument(
        "model", metavar="MODEL", type=Path, help="the folder of an exported model, a run, an adapter or a classifier"
    )
    predict.add_argument(
        "input",
        metavar="INPUT",
        help="a .csv, .tsv, .jsonl, .parquet or .txt file, or - (standard input)",
    )
    predict.add_argument(
        "--output",
        metavar="OUT",
        required=True,
        help="a .csv, .tsv, .jsonl or .parquet file, or - (standard output: CSV and TSV as they came, all else JSON"
        " lines)",
    )
    predict.add_argument("--format", choices=INPUT_FORMATS, help="of INPUT, where its name does not say it")
    for name in ("text_column", "text_pair_column"):
        _add_config_flag(predict, name)
    predict.add_argument(
        "--threshold",
        metavar="…",
        type=float,
        help="mark rows of less confidence (above 0, up to 1), for a person to read",
    )
    predict.add_argument(
        "--prefix", metavar="…", default="", help="of the names of the columns that are added, where INPUT has such"
    )
    predict.add_argument("--overwrite", action="store_true", help="replace OUT, and what was begun of it")
    predict.add_argument("--quiet", action="store_true", help="show warnings and the result only")


def _add_push(push: Parser) -> None:
    push.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    push.add_argument("repository", metavar="REPO", help="OWNER/NAME on the hub; made if it is not there")
    push.add_argument("--role", choices=ROLES, default="student", help="which of the run's models (default: student)")
    push.add_argument(
        "--form",
        choices=(ADAPTER, MERGED),
        default=ADAPTER,
        help="adapter: a few megabytes, on a base model of the hub; merged: a whole model (default: adapter)",
    )
    push.add_argument("--private", action="store_true", help="for its owner alone")
    push.add_argument("--dry_run", action="store_true", help="push nothing, but write all that would be")
    push.add_argument(
        "--output", metavar="DIR", type=Path, help="where --dry_run writes: a new folder; else RUN/to-push/ROLE-FORM"
    )
    push.add_argument("--quiet", action="store_true", help="show warnings and the result only")


def _add_serve(serve: Parser) -> None:
    serve.add_argument("model", metavar="MODEL", type=Path, help="a folder: an exported model's, or a run's")
    for name in ServeSettings.model_fields:
        _add_config_flag(serve, name, ServeSettings)


def _add_jobs(parser: argparse.ArgumentParser, told: str) -> None:
    parser.add_argument("--jobs", metavar="…", type=int, default=1, help=f"{told} (default: 1)")


def _add_running_flags(parser: argparse.ArgumentParser, overwriting: argparse._ActionsContainer) -> None:
    overwriting.add_argument("--overwrite", action="store_true", help="replace runs of the same name, train again")
    parser.add_argument("--quiet", action="store_true", help="show warnings and the result only")


def _add_config_flags(parser: argparse.ArgumentParser, *, leave_out: tuple[str, ...]) -> None:
    group = parser.add_argument_group("settings")
    for name in Config.model_fields:
        if name not in leave_out:
            _add_config_flag(group, name)


def _add_config_flag(parser: argparse._ActionsContainer, name: str, kind: type[BaseModel] = Config) -> None:
    field = kind.model_fields[name]
    text = str(field.description).replace("%", "%%")
    if field.annotation is bool:
        either: dict[str, Any] = {"action": "store_const", "dest": name, "default": argparse.SUPPRESS}
        parser.add_argument(f"--{name}", const=True, help=text, **either)
        if not name.startswith("no_"):
            parser.add_argument(f"--no_{name}", const=False, help="though a file or a preset says so", **either)
        return
    if get_origin(field.annotation) is Literal:
        text += f": {', '.join(get_args(field.annotation))}"
    default = "" if field.default in (None, "", (), {}) else f" (default: {field.default})"
    parser.add_argument(f"--{name}", default=argparse.SUPPRESS, metavar="…", help=text + default)


FLAGS: dict[str, Callable[[Parser], None]] = {
    "train": _add_train,
    "suite": _add_suite,
    "tune": _add_tune,
    "plan": _add_plan,
    "evaluate": _add_evaluate,
    "speed": _add_speed,
    "predict": _add_predict,
    "export": _add_export,
    "push": _add_push,
    "show": _add_show,
    "compare": _add_compare,
    "report": _add_report,
    "serve": _add_serve,
    "cache": _add_cache,
}
