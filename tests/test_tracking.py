"""Each tracker told for real, and its files read back."""

from pathlib import Path
from typing import Any

import pytest

from lora_distill import tracking
from lora_distill.config import Config
from lora_distill.errors import UserError
from lora_distill.experiment import run_experiment
from lora_distill.run_folder import RunFolder
from lora_distill.tracking import TRACKERS, Tracking, check_tracker
from lora_distill.training.loop import Observer
from lora_distill.training.outcome import Outcome
from tests.end_to_end.conftest import write_rows
from tests.test_experiment import config_of
from tests.training.test_role import TEACHER

Told = dict[str, list[tuple[int, float]]]


def lines(epoch: int) -> list[dict[str, Any]]:
    """Of an epoch of two steps."""
    steps = [
        {"role": "student", "event": "step", "epoch": epoch, "step": step, "loss": 1 / step, "learning_rate": 0.1}
        for step in (2 * epoch - 1, 2 * epoch)
    ]
    return [*steps, {"role": "student", "event": "validation", "epoch": epoch, "step": 2 * epoch, "accuracy": 0.5}]


def outcome(epochs: list[int], *, reused: bool = False) -> Outcome:
    return Outcome(TEACHER.key, {}, {}, [line for epoch in epochs for line in lines(epoch)], {}, reused=reused)


def track(config: Config, epochs: list[int], *, resume: bool = False, stop_before_end: bool = False) -> None:
    """A student's training, as the tracker sees it."""

    def train(observe: Observer) -> Outcome:
        trained = outcome(epochs)
        for line in trained.history:
            observe(line)
        if stop_before_end:
            raise KeyboardInterrupt
        return trained

    tracks = Tracking(config, resume=resume)
    tracks.test("student", tracks.follow("student", train), {"accuracy": 0.75, "per_class": {}})


def read_tensorboard(folder: Path, role: str = "student") -> tuple[Told, dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(folder / "run" / role))
    found.Reload()
    told = {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    (settings,) = (folder / "run" / role).rglob("hparams.yml")
    return told, yaml.safe_load(settings.read_text())


def read_mlflow(folder: Path) -> tuple[Told, dict[str, Any]]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.info.run_name == "run-student"
    told = {
        name: sorted({(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)})
        for name in run.data.metrics
    }
    return told, run.data.params


def read_trackio(_folder: Path) -> tuple[Told, dict[str, Any]]:
    from trackio.sqlite_storage import SQLiteStorage

    assert SQLiteStorage.get_runs("lora-distill") == ["run-student"]
    told: dict[str, set[tuple[int, float]]] = {}
    for each in SQLiteStorage.get_logs("lora-distill", "run-student"):
        for name, value in each.items():
            if "/" in name:
                told.setdefault(name, set()).add((each["step"], value))
    settings: dict[str, Any] = SQLiteStorage.get_run_config("lora-distill", "run-student")
    return {name: sorted(values) for name, values in told.items()}, settings


READERS = {"tensorboard": read_tensorboard, "mlflow": read_mlflow, "trackio": read_trackio}


@pytest.mark.parametrize("name", READERS)
def test_a_tracker_is_told_of_the_training_and_goes_on_where_it_was_stopped(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")  # Accelerate obeys it
    config = Config(report_to=name, output_dir=str(tmp_path), exp_name="run", seed=7)
    with pytest.raises(KeyboardInterrupt):
        track(config, [1, 2], stop_before_end=True)
    track(config, [2, 3], resume=True)
    told, settings = READERS[name](tmp_path / TRACKERS / name)
    assert told.keys() == {"train/loss", "train/learning_rate", "validation/accuracy", "test/accuracy"}
    assert dict(told["train/loss"]) == pytest.approx({step: 1 / step for step in range(1, 7)})
    assert told["validation/accuracy"] == [(2, 0.5), (4, 0.5), (6, 0.5)]
    assert told["test/accuracy"] == [(6, 0.75)]
    assert int(settings["seed"]) == 7
    assert capsys.readouterr().out == ""
    assert "is told no more" not in caplog.text


def test_of_what_another_run_has_trained_it_is_told_afterwards(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = Config(report_to="tensorboard", output_dir=str(tmp_path), exp_name="run")
    for resume in (False, True):  # the second has nothing to add
        Tracking(config, resume=resume).follow("student", lambda _: outcome([1], reused=True))
    told, _ = read_tensorboard(tmp_path / TRACKERS / "tensorboard")
    assert told["validation/accuracy"] == [(2, 0.5)]
    Tracking(config, resume=False).follow("student", lambda _: outcome([1, 2], reused=True))  # replaces the first
    told, _ = read_tensorboard(tmp_path / TRACKERS / "tensorboard")
    assert told["validation/accuracy"] == [(2, 0.5), (4, 0.5)]
    # Of a run that is resumed, too, where it had come to nobody's training of that role before.
    Tracking(config, resume=True).follow("teacher", lambda _: outcome([1], reused=True))
    assert read_tensorboard(tmp_path / TRACKERS / "tensorboard", "teacher")[0]["validation/accuracy"] == [(2, 0.5)]


def test_a_tracker_that_fails_is_given_up_with_a_warning_and_the_results_are_the_same(
    tiny: Any,  # noqa: ANN401
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("tensorboard")
    plain = config_of(
        tiny("roberta"), write_rows(tmp_path / "rows.csv", 60), tmp_path / "plain", exp_name="run", logging_steps=1
    )
    expected = run_experiment(plain)
    tracked = plain.model_copy(update={"output_dir": str(tmp_path / "tracked"), "report_to": "tensorboard"})
    watched = run_experiment(tracked)

    def refuse(*_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(tracking, "_log", refuse)
    failed = run_experiment(tracked.model_copy(update={"output_dir": str(tmp_path / "failed")}))
    assert caplog.text.count("tensorboard failed and is told no more: no room") == 4  # two roles, trained and tested
    whole = RunFolder.of(plain).path
    for folder, results in ((tmp_path / "tracked" / "run", watched), (tmp_path / "failed" / "run", failed)):
        assert results["student"]["test"] == expected["student"]["test"]
        for file in ("predictions.parquet", "history.jsonl", "student/adapter_model.safetensors"):
            assert (folder / file).read_bytes() == (whole / file).read_bytes()


def test_a_tracker_that_is_not_there_is_found_out_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    with pytest.raises(
        UserError, match=r"--report_to mlflow: is not installed\. Install it: pip install mlflow-skinny "
    ):
        run_experiment(Config(report_to="mlflow", output_dir=str(tmp_path), exp_name="run"))
    assert list(tmp_path.iterdir()) == []
    check_tracker("none")
