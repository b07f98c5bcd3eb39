"""Experiments side by side, each in a process of its own."""

import json
import signal
from pathlib import Path

import pytest

from lora_distill.run_folder import runs_in
from tests.end_to_end.conftest import Command, small_values
from tests.end_to_end.test_resume import artefacts, stage_reached, start_and_signal


@pytest.mark.slow
def test_stopped_by_a_kill_all_stop_and_called_again_they_go_on_and_share_what_they_can(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path
) -> None:
    base = small_values(tiny_base, rows_csv) | {"num_epochs": 5, "logging_steps": 1}
    experiments = {"one": {}, "two": {"alpha": 0.9}}
    (tmp_path / "s.yaml").write_text(json.dumps({"base": base, "seeds": 1, "experiments": experiments}))
    arguments = ["suite", "s.yaml", "--jobs", "2"]
    code, err = start_and_signal(tmp_path, arguments, stage_reached(tmp_path, "teacher training"), signal.SIGTERM)
    assert code == 130
    assert "Traceback" not in err
    assert "The same command goes on." in err
    runs = runs_in(tmp_path / "outputs" / "lora_distillation")
    assert [(run.finished, run.in_training) for run in runs] == [(False, False)] * len(runs) != []

    done = call(*arguments)
    assert done.returncode == 0, done.stderr
    assert {"s-one", "s-two"} <= set(done.stdout.split())
    assert "goes on" in (runs[0].path / "train.log").read_text()
    made = [path.name.partition("-")[0] for path in artefacts(tmp_path).iterdir() if path.is_dir()]
    assert sorted(made) == ["control", "student", "student", "teacher"]
    assert (tmp_path / "outputs" / "lora_distillation" / "s.html").is_file()
