"""How an experiment begins and goes on, and who else may be at work on it."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_distill import experiment, store
from lora_distill.config import Config
from lora_distill.errors import UserError
from lora_distill.experiment import run_experiment
from lora_distill.preparation import Prepared, prepare
from lora_distill.progress import log_to_terminal
from lora_distill.run_folder import RunFolder
from lora_distill.tracking import Tracking
from lora_distill.training import loop
from lora_distill.training import role as role_module
from tests.end_to_end.conftest import write_rows
from tests.test_experiment import config_of
from tests.tiny import tiny_model

Tiny = Callable[[str], Path]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.csv", 60)


def begin_run(
    config: Config, *, resume: bool = False, overwrite: bool = False
) -> tuple[RunFolder, Prepared, dict[str, Any]]:
    """As far as a run comes before it trains."""
    prepared, begun = experiment.prepare_run(config, resume=resume, overwrite=overwrite)
    run = RunFolder.of(prepared.config)
    with run.lock():
        return run, prepared, experiment._begin(run, config, prepared, begun, overwrite=overwrite, since=0.0)


def test_two_runs_that_begin_in_the_same_second_take_two_names(
    tiny: Tiny, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_: "20240102-030405")
    config = config_of(tiny("roberta"), rows, tmp_path)
    begun: list[Path] = []
    both_are_prepared = threading.Barrier(2)

    def prepared_together(*arguments: Any) -> Any:  # noqa: ANN401
        prepared = prepare(*arguments)
        both_are_prepared.wait(timeout=60)
        return prepared

    monkeypatch.setattr(experiment, "prepare", prepared_together)

    def begin() -> None:
        begun.append(begin_run(config)[0].path)

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = tmp_path / "roberta-rows-t8x3-s4x2-20240102-030405"
    assert sorted(begun) == [first, first.with_name(f"{first.name}-2")]
    for path in begun:
        assert f"exp_name: {path.name}" in (path / "config.yaml").read_text()


def test_of_two_that_begin_under_one_name_one_is_refused(
    tiny: Tiny, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tiny("roberta"), rows, tmp_path, exp_name="mine")

    def overtaken(*arguments: Any) -> Any:  # noqa: ANN401
        prepared = prepare(*arguments)
        monkeypatch.setattr(experiment, "prepare", prepare)
        begin_run(config)
        return prepared

    monkeypatch.setattr(experiment, "prepare", overtaken)
    with pytest.raises(UserError, match=r"mine: this run was begun .*\n--resume goes on"):
        begin_run(config)


def test_what_two_experiments_say_of_one_data_set_is_printed_once(
    tiny: Tiny, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = logging.getLogger("lora_distill")
    for name in ("handlers", "level", "propagate"):
        monkeypatch.setattr(package, name, getattr(package, name))
    log_to_terminal(quiet=False)
    for name in ("one", "two"):
        begin_run(config_of(tiny("roberta"), rows, tmp_path, exp_name=name))
    assert capsys.readouterr().err.count("drawn stratified") == 2  # validation and test


def test_a_place_that_cannot_be_written_is_found_first_also_without_a_name(
    tiny: Tiny, rows: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"file is a file\. Choose another --output_dir"):
            run_experiment(config_of(tiny("roberta"), rows, output))


def test_a_run_does_not_go_on_on_another_base_model(rows: Path, tmp_path: Path) -> None:
    base = tiny_model("roberta", tmp_path / "base")
    config = config_of(base, rows, tmp_path / "out", exp_name="run")
    begin_run(config)
    tiny_model("roberta", base, seed=1)
    with pytest.raises(UserError, match=r"base model .*: its files have changed since"):
        run_experiment(config, resume=True)
    shutil.rmtree(base)
    with pytest.raises(UserError, match="no such folder"):
        run_experiment(config, resume=True)


def test_a_run_goes_on_under_the_plan_that_it_was_begun_with_and_from_anywhere(
    tiny: Tiny, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny("roberta"), tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    config = config_of(Path("base"), rows, tmp_path / "out", exp_name="run")
    run, first, environment = begin_run(config)
    assert first.plan.threads == torch.get_num_threads() != 3
    environment["plan"]["threads"] = 3
    (run.path / "environment.json").write_text(json.dumps(environment))
    monkeypatch.chdir("/")
    _, again, _ = begin_run(config, resume=True)
    assert again.plan.threads == 3
    assert again.base == first.base
    assert again.config == first.config


def test_a_run_that_goes_on_computes_with_the_threads_of_its_plan(
    tiny: Tiny, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tiny("roberta"), rows, tmp_path, exp_name="run")
    run, _, environment = begin_run(config)
    environment["plan"]["threads"] = 3
    (run.path / "environment.json").write_text(json.dumps(environment))
    threads, before = list[int](), torch.get_num_threads()

    def teach(*_: object) -> None:
        threads.append(torch.get_num_threads())
        raise UserError("enough")

    monkeypatch.setattr(experiment, "run_training", teach)
    with pytest.raises(UserError, match="enough"):
        run_experiment(config, resume=True)
    assert threads == [3]
    assert torch.get_num_threads() == before


def test_a_run_that_goes_on_says_so_and_counts_the_time_of_all_its_sessions(
    tiny: Tiny, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    config = config_of(tiny("roberta"), rows, tmp_path, exp_name="run")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment, "run_training", stop)
        run_experiment(config)
    log, environment = tmp_path / "run" / "train.log", tmp_path / "run" / "environment.json"
    assert ": begun; if it is stopped, go on with: " in log.read_text()
    written = json.loads(environment.read_text())
    assert written["seconds"] > 0
    assert list(written["cost"]["seconds"]) == ["prepare"]
    environment.write_text(json.dumps(written | {"seconds": 1e6, "cost": {"seconds": {"prepare": 9e5}}}))
    results = run_experiment(config, resume=True)
    assert results["seconds"] > 1e6
    assert results["cost"]["seconds"]["prepare"] > 9e5
    assert {"teacher: training steps", "student: test in fp32", "judgement"} < set(results["cost"]["seconds"])
    assert log.read_text().count(": begun;") == log.read_text().count(": goes on; if it is stopped") == 1


@pytest.mark.parametrize(
    "settings", [{}, {"teacher_ensemble": 2}, {"teacher_self_training": True, "unlabelled": "others.csv"}]
)
def test_what_a_run_that_goes_on_had_trained_is_its_own_and_its_time_is_known_also_after_a_kill(
    settings: dict[str, Any], tiny: Tiny, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}

    def stop(*arguments: Any, **given: Any) -> Any:  # noqa: ANN401
        if given["role"] == "student":
            kept.update(json.loads((tmp_path / "run" / "environment.json").read_text()))
            raise KeyboardInterrupt
        return loop.train(*arguments, **given)

    if "unlabelled" in settings:
        settings = settings | {"unlabelled": str(write_rows(tmp_path / "others.csv", 30, seed=1))}
    config = config_of(tiny("roberta"), rows, tmp_path, exp_name="run", num_epochs=1, **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(role_module, "train", stop)
        run_experiment(config)
    assert kept["seconds"] > kept["cost"]["seconds"]["teacher: training steps"] > 0
    results = run_experiment(config, resume=True), run_experiment(config.model_copy(update={"exp_name": "other"}))
    assert [[each[role]["reused"] for role in ("teacher", "student")] for each in results] == [[False] * 2, [True] * 2]


def test_a_run_that_another_process_is_training_now(tiny: Tiny, rows: Path, tmp_path: Path) -> None:
    config = config_of(tiny("roberta"), rows, tmp_path, exp_name="run")
    run, *_ = begin_run(config)
    with run.lock(), pytest.raises(UserError, match=r"run: another process is training this run now\.\nWait"):
        begin_run(config)
    with pytest.raises(UserError, match=r"begun and has not finished\.\n--resume"):
        begin_run(config)


def test_a_run_that_is_being_trained_is_overwritten_only_when_that_has_ended(
    tiny: Tiny, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tiny("roberta"), rows, tmp_path, exp_name="run")
    training, waited_for = threading.Event(), threading.Event()
    kept: list[str] = []

    def teach(*_: object) -> None:
        training.set()
        waited_for.wait(timeout=20)
        kept.extend(path.name for path in (tmp_path / "run").iterdir())
        kept.append((tmp_path / "run" / "config.yaml").read_text())
        raise UserError("enough")

    def train() -> None:
        with pytest.raises(UserError, match="enough"):
            run_experiment(config)

    def warning(message: str, *_: object) -> None:
        if message.startswith("waiting"):
            waited_for.set()

    monkeypatch.setattr(experiment, "run_training", teach)
    monkeypatch.setattr(store.logger, "warning", warning)
    trainer = threading.Thread(target=train)
    trainer.start()
    assert training.wait(timeout=60)
    run, *_ = begin_run(config.model_copy(update={"seed": 5}), overwrite=True)
    assert waited_for.is_set()
    assert {"train.log", "environment.json"} < set(kept)
    assert f"seed: {config.seed}\n" in kept[-1]
    assert run.resolved().seed == 5
    assert not (run.path / "train.log").exists()
    trainer.join()


def test_a_run_that_was_begun_anew_in_the_meantime_is_not_mixed_with_its_settings(
    tiny: Tiny, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tiny("roberta"), rows, tmp_path, exp_name="run")
    begin_run(config)

    def overtaken(*arguments: Any) -> Any:  # noqa: ANN401
        prepared = prepare(*arguments)
        monkeypatch.setattr(experiment, "prepare", prepare)
        begin_run(config.model_copy(update={"seed": 5}), overwrite=True)
        return prepared

    monkeypatch.setattr(experiment, "prepare", overtaken)
    with pytest.raises(UserError, match="run: another process has begun it anew"):
        begin_run(config, resume=True)
    assert RunFolder(tmp_path / "run").resolved().seed == 5


def test_what_others_use_is_there_until_its_successor_is_whole(tiny: Tiny, rows: Path, tmp_path: Path) -> None:
    """A run that shares its teacher is not disturbed by one that trains that teacher again."""
    config = config_of(tiny("roberta"), rows, tmp_path, exp_name="run")
    first = run_experiment(config)
    adapters = list((tmp_path / ".artefacts").glob("teacher-*/adapter/adapter_model.safetensors"))
    there: list[bool] = []
    train = loop.train

    def watch(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        there.append(all(path.is_file() for path in adapters))
        return train(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(role_module, "train", watch)
        again = run_experiment(config, overwrite=True)
    assert (len(adapters), there) == (1, [True] * 2)
    assert again["teacher"]["test"] == first["teacher"]["test"]


def test_one_that_is_trained_again_goes_on_with_that(tiny: Tiny, rows: Path, tmp_path: Path) -> None:
    """What was there before is finished, and is neither taken for the new nor the end of its checkpoints."""
    config = config_of(tiny("roberta"), rows, tmp_path, exp_name="run", num_epochs=3)
    first, begun = run_experiment(config), time.time()

    def stop(line: dict[str, Any]) -> None:
        if (line["role"], line["event"], line["epoch"]) == ("student", "validation", 3):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracking, "follow", lambda _, _role, training, _keep: training(stop))
        with pytest.raises(KeyboardInterrupt):
            run_experiment(config, overwrite=True)
    again = run_experiment(config, resume=True)
    log = (tmp_path / "run" / "train.log").read_text()
    assert "student: goes on after epoch 2" in log
    assert log.count("teacher: already trained") == 1
    assert again["student"]["test"] == first["student"]["test"]
    for role in ("teacher", "student"):
        (recipe,) = tmp_path.glob(f".artefacts/{role}-*/recipe.json")
        assert recipe.stat().st_mtime > begun
    assert not list(tmp_path.glob(".artefacts/*.unfinished"))


def test_a_device_without_room_is_told_in_words(
    tiny: Tiny, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(experiment, "run_training", no_room)
    with pytest.raises(UserError, match=r"cpu: out of memory\.\nLower --batch_size"):
        run_experiment(config_of(tiny("roberta"), rows, tmp_path, device="cpu"))
