"""The folder of one experiment: its state, and what is written into it."""

import logging
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import yaml

from lora_distill.config import ROLES, Config, Role, make_config
from lora_distill.errors import UserError
from lora_distill.program import program
from lora_distill.store import (
    ARTEFACTS,
    is_locked,
    lock,
    read_json,
    remove_folder,
    whole_folder,
    write_json,
    write_text,
)
from lora_distill.yaml_file import read_yaml

logger = logging.getLogger(__name__)
CONFIG, ENVIRONMENT, METRICS, LOG = "config.yaml", "environment.json", "metrics.json", "train.log"
PREDICTIONS, HISTORY = "predictions.parquet", "history.jsonl"
REPORT, SPEED = "report.html", "speed.json"
# Where a run lies, how it is watched, and what stands for settings that are there as well.
DECIDES_NOTHING = ("output_dir", "exp_name", "cache_limit", "report_to", "preset")
# Settings that may hold a path.
PLACES = ("base_model", "student_base_model", "dataset", "unlabelled", "teacher_checkpoint", "teacher_predictions")
NO_PATHS = {"ag_news", "bbc_news", "minilm"}  # whatever folder has this name


class RunFolder:
    """`<output_dir>/<exp_name>/`.

    It appears when everything that was given has been checked. `metrics.json` is written last: a run is
    finished when it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path if path.name not in ("", "..") else path.resolve()  # the folder's name is the run's

    @classmethod
    def of(cls, config: Config) -> "RunFolder":
        """The folder that a config names."""
        return cls(Path(config.output_dir) / config.exp_name)

    @property
    def finished(self) -> bool:
        """Whether its results are there."""
        return (self.path / METRICS).is_file()

    @property
    def begun(self) -> bool:
        """Whether it is a run's folder, finished or not."""
        return (self.path / ENVIRONMENT).is_file() and (self.path / CONFIG).is_file()

    def results(self) -> dict[str, Any]:
        """The contents of metrics.json, under the name that the folder has now.

        Raises:
            UserError: there is no such run, or it has not finished.
        """
        if not self.path.is_dir():
            raise UserError(f"{self.path}: no such run. Give the folder of a run, such as outputs/.../<exp_name>.")
        if not self.finished:
            reason = "this run has not finished" if self.begun else "not the folder of a run"
            way_out = f" Go on with: {self.resume_command()}" if self.begun else ""
            raise UserError(f"{self.path}: {reason}, for it has no {METRICS}.{way_out}")
        return self._read(METRICS, "exp_name") | {"exp_name": self.path.name}

    def results_of(self, role: Role) -> dict[str, Any]:
        """What metrics.json says of one role.

        Raises:
            UserError: there is no such run, it has not finished, or has no such role.
        """
        results = self.results()
        if role not in results:
            there = ", ".join(name for name in ROLES if name in results)
            raise UserError(f"--role {role}: this run has none. It has: {there}.")
        return dict(results[role])

    def resume_command(self) -> str:
        """What goes on with this run."""
        folder, name = shlex.quote(str(self.path.parent)), shlex.quote(self.path.name)
        return f"{program()} train --output_dir {folder} --exp_name {name} --resume"

    def requested(self) -> Config:
        """The config as it was asked for, defaults still known as defaults."""
        request = self.environment()["requested"]
        values = {name: value for name, value in request["config"].items() if name in request["named"]}
        return self._here(make_config(values, {name: f"{self.path / ENVIRONMENT}: {name}" for name in values}))

    def resolved(self) -> Config:
        """The config that config.yaml holds: what the run really uses, everything named."""
        if not (self.path / CONFIG).is_file():
            raise self._damaged(CONFIG, "missing")
        file = read_yaml(self.path / CONFIG)
        return self._here(make_config(file.plain(), file.origins()))

    def environment(self) -> dict[str, Any]:
        """The contents of environment.json."""
        return self._read(ENVIRONMENT, "requested")

    def inputs(self) -> dict[str, str | None]:
        """What a finished run was made of: the revision of its data, and the fingerprint of each model it began with.

        Not of the rows as they were split, for a seed may draw those.
        """
        environment = self.environment()
        models = {
            name.replace("_", " "): (environment.get(name) or {}).get("fingerprint")
            for name in ("base_model", "student_base_model", "given_teacher")
        }
        data = self.results()["data"]
        origins = {
            "data": data.get("source"),
            "unlabelled texts": data.get("unlabelled_source"),
            "teacher's answers": environment.get("answers"),
        }
        return {what: (origin or {}).get("revision") for what, origin in origins.items()} | models

    def answers_as(self, other: "RunFolder") -> bool:
        """Whether the models of both gave the same logits, to the bit, for the same test rows; damaged files say no."""
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table

        try:
            return bool(read_table(self.path / PREDICTIONS).equals(read_table(other.path / PREDICTIONS)))
        except (OSError, ArrowException):
            return False

    def _here(self, config: Config) -> Config:
        """The folder says where the run is: it may have been moved since it was begun, or be seen from elsewhere."""
        return config.model_copy(update={"output_dir": str(self.path.parent), "exp_name": self.path.name})

    def _read(self, name: str, key: str) -> dict[str, Any]:
        """A JSON file that this program wrote, which always holds `key`."""
        try:
            contents: dict[str, Any] = read_json(self.path / name)
            contents[key]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise self._damaged(name, f"{type(error).__name__}: {error}") from None
        return contents

    def _damaged(self, name: str, reason: str) -> UserError:
        again = "with --overwrite" if self.begun else "under another --exp_name"
        return UserError(
            f"{self.path / name}: missing, damaged, or not as it was written ({reason})."
            f"\nPut it back, or train the run again {again}."
        )

    def admit(self, config: Config, *, resume: bool, overwrite: bool) -> None:
        """Check that this config may use the folder.

        Raises:
            UserError: it holds another config's run, an unfinished run that is not to be resumed, or other files.
        """
        check_writable(self.path)
        if not self.path.exists() or not any(self.path.iterdir()):
            if resume:
                raise UserError(f"{self.path}: nothing to resume, there is no such run. Start it without --resume.")
            return
        if not self.begun:
            raise UserError(f"{self.path}: exists and is not the folder of a run. Choose another --exp_name.")
        if overwrite:
            return
        differing = _differences(config, self.requested())
        if differing and _differences(config, self.resolved()):
            raise TakenError(f"{self.path}: holds a run with another config ({differing}).")
        if not self.finished and not resume:
            raise UserError(
                f"{self.path}: this run was begun and has not finished."
                "\n--resume goes on with it, --overwrite starts it again."
            )

    def begin(self, resolved: Config, environment: Mapping[str, Any]) -> None:
        """Make the folder and say in it what will be run."""
        command = "# lora-distill train --config THIS_FILE\n"
        values = yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        with whole_folder(self.path) as folder:
            write_json(folder / ENVIRONMENT, environment)
            write_text(folder / CONFIG, command + values)

    @contextmanager
    def resumable(self) -> Iterator[None]:
        """Let whoever reports what stopped the run say how it goes on: the last note of the exception."""
        try:
            yield
        except BaseException as error:
            error.add_note(f"Go on with: {self.resume_command()}")
            raise

    def lock(self) -> AbstractContextManager[None]:
        """Hold off other processes that want to run the same."""
        return lock(*self._lock())

    @property
    def in_training(self) -> bool:
        """Whether another process holds its lock."""
        return is_locked(*self._lock())

    def _lock(self) -> tuple[Path, str]:
        return self.path.parent / ARTEFACTS, f"run-{self.path.name}"

    @property
    def _again(self) -> Path:
        return self.path.parent / ARTEFACTS / f"{self._lock()[1]}.again"

    @property
    def outdated_since(self) -> float:
        """When it was marked to be trained again, in seconds since the epoch; 0.0: it is not."""
        return self._again.stat().st_mtime if self._again.exists() else 0.0

    @property
    def done(self) -> bool:
        """Whether its results are there, and are not to be made again."""
        return self.finished and not self.outdated_since

    def mark_outdated(self, *, outdated: bool = True) -> None:
        """Let it be known, also when this process is gone, that it is to be trained again; or that it has been."""
        if outdated:
            self._again.parent.mkdir(parents=True, exist_ok=True)
            self._again.touch()
        else:
            self._again.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder and all that is in it, if it is a run's."""
        if self.begun:
            remove_folder(self.path)


def runs_in(folder: Path) -> list[RunFolder]:
    """The runs that lie in a folder, by name."""
    return [run for run in map(RunFolder, sorted(folder.glob("[!.]*"))) if run.begun]


class TakenError(UserError):
    """The name is that of a run with another config, or with inputs that have changed since.

    Attributes:
        reason: without what to do, which in a suite is something else.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}\nChoose another --exp_name, or replace that run with --overwrite.")
        self.reason = reason


def changed_since(run: Path, what: str) -> TakenError:
    """The refusal to mix a run with inputs that it was not begun with."""
    return TakenError(f"{what}: has changed since the run {run} was begun with it.")


def _differences(one: Config, other: Config) -> str:
    settings = [name for name in Config.model_fields if name not in DECIDES_NOTHING]
    names = [name for name in settings if not _is_same(name, getattr(one, name), getattr(other, name))]
    return ", ".join(f"{name} {getattr(other, name)!r}, now {getattr(one, name)!r}" for name in names[:3])


def _is_same(name: str, one: Any, other: Any) -> bool:  # noqa: ANN401 - any setting
    """Whether two values of a setting mean the same: one file or folder has many paths."""
    if name not in PLACES or not one or not other or {one, other} & NO_PATHS:
        return bool(one == other)
    try:
        return one == other or Path(one).expanduser().samefile(Path(other).expanduser())
    except (OSError, RuntimeError):  # not there, no name that a file can have, no home
        return False


def check_writable(path: Path) -> None:
    """Find out before hours of work, not after, whether the folder can be made.

    Raises:
        UserError: it cannot.
    """
    for parent in [path, *path.parents]:
        if parent.exists():
            if not parent.is_dir():
                raise UserError(f"{path}: cannot be made, for {parent} is a file. Choose another --output_dir.")
            try:
                with tempfile.TemporaryFile(dir=parent):
                    pass
            except OSError as error:
                raise UserError(
                    f"{path}: cannot be written: {error.strerror} in {parent}. Choose another --output_dir."
                ) from None
            return
