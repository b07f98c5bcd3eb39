from pathlib import Path
from typing import Any

import pytest

from lora_distill.config import Config, make_config
from lora_distill.errors import UserError
from lora_distill.program import program
from lora_distill.run_folder import CONFIG, ENVIRONMENT, METRICS, RunFolder, runs_in
from lora_distill.store import write_json
from tests.test_store import killed_in_a_removal


def config_of(folder: Path, **values: Any) -> Config:  # noqa: ANN401 - any setting
    return make_config({"output_dir": str(folder), "exp_name": "run", **values}, {})


def begin(config: Config, resolved: Config | None = None) -> RunFolder:
    run = RunFolder.of(config)
    request = {"config": config.model_dump(mode="json"), "named": sorted(config.model_fields_set)}
    run.begin(resolved or config, {"requested": request})
    return run


def test_a_new_run_is_admitted_and_writes_nothing_yet(tmp_path: Path) -> None:
    config = config_of(tmp_path / "deep" / "er")
    RunFolder.of(config).admit(config, resume=False, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_the_request_is_known_again_with_what_was_named_and_what_was_default(tmp_path: Path) -> None:
    config = config_of(tmp_path, alpha=0.5, seed=3)
    resolved = config.model_copy(update={"base_model": "minilm", "teacher_target_layers": 6})
    run = begin(config, resolved)
    assert run.requested() == config
    assert run.requested().model_fields_set == config.model_fields_set
    assert run.resolved() == resolved
    assert (run.begun, run.finished) == (True, False)


def test_an_unfinished_run_is_resumed_or_overwritten_but_not_by_chance(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    run = begin(config)
    with pytest.raises(UserError, match=r"--resume goes on.*--overwrite"):
        run.admit(config, resume=False, overwrite=False)
    run.admit(config, resume=True, overwrite=False)
    run.admit(config, resume=False, overwrite=True)


def test_another_config_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    run = begin(config_of(tmp_path))
    other = config_of(tmp_path, alpha=0.7)
    for resume in (False, True):
        with pytest.raises(UserError, match=r"alpha 0\.5, now 0\.7"):
            run.admit(other, resume=resume, overwrite=False)
    run.admit(other, resume=False, overwrite=True)


def test_the_resolved_config_counts_as_the_same(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    run = begin(config, config.model_copy(update={"base_model": "minilm", "dataset": "bbc_news"}))
    run.admit(run.resolved(), resume=True, overwrite=False)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "run" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    config = config_of(tmp_path)
    run = RunFolder.of(config)
    with pytest.raises(UserError, match="not the folder of a run"):
        run.admit(config, resume=False, overwrite=False)
    with pytest.raises(UserError, match="not the folder of a run"):
        run.admit(config, resume=False, overwrite=True)
    run.remove()
    assert precious.read_text() == "years of work"


def test_a_kill_while_a_run_is_removed_leaves_none_by_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(config_of(tmp_path))
    write_json(run.path / METRICS, {"exp_name": "run"})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_in_a_removal(patch)
        run.remove()
    assert (run.finished, runs_in(tmp_path)) == (False, [])
    run.admit(config_of(tmp_path), resume=False, overwrite=False)
    assert begin(config_of(tmp_path)).begun


def test_nothing_to_resume(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with pytest.raises(UserError, match="nothing to resume"):
        RunFolder.of(config).admit(config, resume=True, overwrite=False)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = config_of(tmp_path / "file" / "inside")
    with pytest.raises(UserError, match=r"is a file.*--output_dir"):
        RunFolder.of(config).admit(config, resume=False, overwrite=False)
    config = config_of(Path("/proc/nowhere"))
    with pytest.raises(UserError, match="--output_dir"):
        RunFolder.of(config).admit(config, resume=False, overwrite=False)


def test_results_of_what_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run"):
        RunFolder(tmp_path / "absent").results()
    with pytest.raises(UserError, match="not the folder of a run"):
        RunFolder(tmp_path).results()
    run = begin(config_of(tmp_path))
    with pytest.raises(UserError, match=r"not finished.*--exp_name run --resume"):
        run.results()
    write_json(run.path / METRICS, {"exp_name": "run"})
    assert run.results() == {"exp_name": "run"}


DAMAGED = {
    "cut short": b"{",
    "empty": b"{}",
    "no object": b"[]",
    "no text": b"\xff",
}


@pytest.mark.parametrize("contents", DAMAGED.values(), ids=DAMAGED)
def test_files_of_a_run_that_are_damaged(contents: bytes, tmp_path: Path) -> None:
    run = begin(config_of(tmp_path))
    (run.path / METRICS).write_bytes(contents)
    with pytest.raises(UserError, match=r"metrics\.json: missing, damaged.*\n.*--overwrite"):
        run.results()
    (run.path / ENVIRONMENT).write_bytes(contents)
    with pytest.raises(UserError, match=r"environment\.json: missing, damaged"):
        run.requested()
    run.admit(config_of(tmp_path), resume=False, overwrite=True)


def test_settings_of_a_run_that_no_longer_are_any(tmp_path: Path) -> None:
    run = begin(config_of(tmp_path))
    (run.path / CONFIG).write_text("alpha: 0.5\nalfa: 0.5\n")
    with pytest.raises(UserError, match=r"config\.yaml, line 2: alfa: no such setting"):
        run.resolved()
    write_json(run.path / ENVIRONMENT, {"requested": {"config": {"alfa": 1}, "named": ["alfa"]}})
    with pytest.raises(UserError, match=r"environment\.json: alfa: no such setting"):
        run.requested()


def test_a_run_that_was_moved_is_the_same_run(tmp_path: Path) -> None:
    run = begin(config_of(tmp_path / "before"))
    run.path.rename(tmp_path / "named anew")
    moved = RunFolder(tmp_path / "named anew")
    for config in (moved.requested(), moved.resolved()):
        assert (config.output_dir, config.exp_name) == (str(tmp_path), "named anew")
    moved.admit(config_of(tmp_path, exp_name="named anew"), resume=True, overwrite=False)
    assert moved.resume_command() == f"{program()} train --output_dir {tmp_path} --exp_name 'named anew' --resume"
    write_json(moved.path / METRICS, {"exp_name": "run"})
    assert moved.results()["exp_name"] == "named anew"


def test_a_run_seen_from_within_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = begin(config_of(tmp_path)).path
    (path / "student").mkdir()
    for folder, way in ((path, "."), (path / "student", "..")):
        monkeypatch.chdir(folder)
        assert RunFolder(Path(way)).requested().exp_name == "run"


def test_a_file_by_another_path_is_the_same_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.csv", "other.csv"):
        (tmp_path / name).write_text("")
    for name in ("base", "bbc_news"):
        (tmp_path / name).mkdir()
    one = {"dataset": "mine.csv", "base_model": "base", "teacher_checkpoint": "./base"}
    run = begin(config_of(tmp_path, **one))
    same = {"dataset": str(tmp_path / "mine.csv"), "base_model": "./base/", "teacher_checkpoint": "base"}
    run.admit(config_of(tmp_path, **same), resume=True, overwrite=False)
    for value in ("other.csv", "absent.csv", "x" * 5000):
        with pytest.raises(UserError, match=r"dataset 'mine\.csv', now"):
            run.admit(config_of(tmp_path, **one | {"dataset": value}), resume=True, overwrite=False)
    named = begin(config_of(tmp_path, exp_name="named", dataset="bbc_news"))  # the packaged one
    with pytest.raises(UserError, match=r"dataset 'bbc_news', now '\./bbc_news'"):
        named.admit(config_of(tmp_path, exp_name="named", dataset="./bbc_news"), resume=True, overwrite=False)


def test_a_run_that_lacks_a_file_is_damaged_and_only_a_whole_one_can_be_overwritten(tmp_path: Path) -> None:
    run = begin(config_of(tmp_path))
    (run.path / CONFIG).unlink()
    with pytest.raises(UserError, match=r"config\.yaml: missing, damaged.*\n.* under another --exp_name"):
        run.resolved()


def test_what_stops_a_run_carries_the_way_to_go_on(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt) as stopped, run.resumable():
        raise KeyboardInterrupt
    assert stopped.value.__notes__ == [f"Go on with: {run.resume_command()}"]
