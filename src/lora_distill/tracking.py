"""What trackers are told while a run trains: losses, rates and scores, through Accelerate's trackers."""

import io
import json
import logging
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import (
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
    get_available_trackers,
)

from lora_distill.config import Config, Role
from lora_distill.errors import UserError
from lora_distill.progress import ONCE
from lora_distill.store import write_text
from lora_distill.training.loop import Observer, nobody
from lora_distill.training.outcome import Outcome

logger = logging.getLogger(__name__)
TRACKERS = ".trackers"  # beside the runs: their own views show many runs together
PROJECT = "lora-distill"
LOOK = {
    "tensorboard": "tensorboard --logdir {0}",
    "mlflow": "mlflow ui --backend-store-uri sqlite:///{0}/mlflow.db",
    "trackio": "TRACKIO_DIR={0} trackio show",
    "wandb": "wandb sync {0}",
}
INSTALL = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny sqlalchemy alembic"}


def check_tracker(name: str) -> None:
    """Find out before the training whether a tracker is there.

    Raises:
        UserError: it is not installed.
    """
    if name != "none" and name not in map(str, get_available_trackers()):
        raise UserError(f"--report_to {name}: is not installed. Install it: pip install {INSTALL.get(name, name)}")


@dataclass(frozen=True)
class Tracking:
    """A run as its tracker knows it: a tracker's run for each role.

    Attributes:
        config: resolved.
        resume: whether to go on in what an earlier process has begun, where the tracker can.
    """

    config: Config
    resume: bool
    _begun: set[Role] = field(default_factory=set)

    def follow(self, role: Role, train: Callable[[Observer], Outcome], other: Observer = nobody) -> Outcome:
        """Tell the tracker of a role's training, while it runs, or afterwards where it ran for somebody else.

        Another is told only while it runs.
        """
        was_told = self.resume and self._told(role).mark.is_file()
        with self._tracker(role) as observe:

            def both(line: dict[str, Any]) -> None:
                observe(line)
                other(line)

            outcome = train(both)
            if outcome.reused and not was_told:
                for line in outcome.history:
                    observe(line)
        return outcome

    def test(self, role: Role, outcome: Outcome, metrics: dict[str, Any]) -> None:
        """Tell of what a role's model scores on the test split, at its last step."""
        with self._tracker(role) as observe:
            observe({"event": "test", "step": outcome.history[-1]["step"] if outcome.history else 0} | metrics)

    @contextmanager
    def _tracker(self, role: Role) -> Iterator[Observer]:
        """Yields what takes lines of the history; a tracker that fails is given up, with a warning."""
        if self.config.report_to == "none":
            yield nobody
            return
        tracker: GeneralTracker | None = None
        is_lost = False

        @contextmanager
        def trying() -> Iterator[None]:
            nonlocal is_lost
            try:
                with redirect_stdout(io.StringIO()):  # some greet
                    yield
            except Exception as error:
                is_lost = True
                logger.warning("%s: %s failed and is told no more: %s", role, self.config.report_to, error)

        def observe(line: dict[str, Any]) -> None:
            nonlocal tracker
            if not is_lost:
                with trying():
                    tracker = tracker or self._open(role, None if line["event"] == "test" else line["step"])
                    _log(tracker, line)

        try:
            yield observe
        finally:
            if tracker:
                with trying():
                    _finish(tracker)

    def _open(self, role: Role, step: int | None) -> GeneralTracker:
        told = self._told(role, step)
        told.folder.mkdir(parents=True, exist_ok=True)
        PartialState()  # Accelerate's log asks for it
        tracker, is_new = _OPENERS[self.config.report_to](told)
        tracker.start()
        self._begun.add(role)
        where = shlex.quote(str(told.folder))
        logger.info("to look on: %s", LOOK[self.config.report_to].format(where), extra=ONCE)
        write_text(told.mark, tracker.tracker.info.run_id if isinstance(tracker, MLflowTracker) else told.name)
        if is_new:
            tracker.store_init_configuration(told.settings)
        return tracker

    def _told(self, role: Role, step: int | None = None) -> "_Told":
        config = self.config
        folder = Path(config.output_dir).resolve() / TRACKERS / config.report_to
        return _Told(folder, config.exp_name, role, _flat(config), self.resume or role in self._begun, step)


@dataclass(frozen=True)
class _Told:
    """What a tracker is opened for.

    Attributes:
        folder: of the tracker.
        run: of this program.
        role: whose training.
        settings: the run's, as plain values.
        goes_on: whether to go on in a tracker's run that is there.
        step: the first of training that will be told.
    """

    folder: Path
    run: str
    role: Role
    settings: dict[str, Any]
    goes_on: bool
    step: int | None

    @property
    def name(self) -> str:
        """Of the tracker's run."""
        return f"{self.run}-{self.role}"

    @property
    def mark(self) -> Path:
        """A file that says that it was told, and MLflow's name for it, whose variables may put it anywhere."""
        return self.folder / f"{self.name}.id"


_Opener = Callable[[_Told], tuple[GeneralTracker, bool]]  # the tracker, not started, and whether its run is new


def _tensorboard(told: _Told) -> tuple[GeneralTracker, bool]:
    own = told.folder / told.run / told.role
    if not told.goes_on:
        shutil.rmtree(own, ignore_errors=True)
    # What a killed process told of the epoch that is done again is told again: TensorBoard then forgets the first.
    return TensorBoardTracker(f"{told.run}/{told.role}", told.folder, purge_step=told.step), not own.exists()


def _mlflow(told: _Told) -> tuple[GeneralTracker, bool]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri(f"sqlite:///{told.folder / 'mlflow.db'}")
    last = None
    if told.goes_on and told.mark.is_file():
        with suppress(mlflow.MlflowException):  # it began in another store
            last = mlflow.get_run(told.mark.read_text(encoding="utf-8")).info.run_id
    return MLflowTracker(PROJECT, told.folder.as_uri(), run_id=last, run_name=told.name), last is None


def _trackio(told: _Told) -> tuple[GeneralTracker, bool]:
    os.environ.setdefault("TRACKIO_DIR", str(told.folder))  # read once, when it is imported
    resume = "allow" if told.goes_on else "never"
    quiet = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
    tracker = TrackioTracker(PROJECT, name=told.name, group=told.run, config=told.settings, resume=resume, **quiet)
    return tracker, False


def _wandb(told: _Told) -> tuple[GeneralTracker, bool]:
    return WandBTracker(PROJECT, name=told.name, group=told.run, dir=str(told.folder)), True


_OPENERS: dict[str, _Opener] = {"tensorboard": _tensorboard, "mlflow": _mlflow, "trackio": _trackio, "wandb": _wandb}


def _log(tracker: GeneralTracker, line: dict[str, Any]) -> None:
    group = "train" if line["event"] == "step" else line["event"]
    values = {
        f"{group}/{name}": value
        for name, value in line.items()
        if isinstance(value, int | float) and name not in ("step", "epoch", "member")
    }
    # MLflow would wait for its disk.
    extra = {"synchronous": False} if isinstance(tracker, MLflowTracker) else {}
    tracker.log(values, step=line["step"], **extra)


def _finish(tracker: GeneralTracker) -> None:
    if isinstance(tracker, TrackioTracker):
        import trackio

        trackio.finish()  # Accelerate's lets it end once more, and say so, when the process ends
    else:
        tracker.finish()


def _flat(config: Config) -> dict[str, Any]:
    """The settings as plain values."""
    values = config.model_dump(mode="json").items()
    return {name: value if isinstance(value, bool | int | float | str) else json.dumps(value) for name, value in values}
