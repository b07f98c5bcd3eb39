"""`--teacher_predictions`: a teacher that is a file."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lora_distill.evidence import gather
from lora_distill.grouping import group_by_seed
from lora_distill.preparation import prepare
from lora_distill.reporting.summary import summarise
from lora_distill.run_folder import RunFolder
from tests.end_to_end.conftest import WORDS, Command, flags_of, metrics_of, untaught_values

OURS = sorted(WORDS)


def read(rows_csv: Path) -> list[dict[str, str]]:
    with rows_csv.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_answers(path: Path, rows: list[dict[str, str]], sure: float = 0.8) -> Path:
    """A teacher that knows the labels, and says how sure it is."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", *reversed(OURS)])
        for row in rows:
            shares = {name: sure if name == row["label"] else (1 - sure) / 2 for name in OURS}
            writer.writerow([row["text"], *(shares[name] for name in reversed(OURS))])
    return path


def flags(base: Path, rows: Path, answers: Path, **changes: object) -> list[str]:
    return flags_of(untaught_values(base, rows) | {"exp_name": "run", "teacher_predictions": answers} | changes)


@pytest.fixture
def answers(tmp_path: Path, rows_csv: Path) -> Path:
    return write_answers(tmp_path / "answers.csv", list(reversed(read(rows_csv))))


def run_folder(folder: Path, name: str = "run") -> Path:
    return folder / "outputs" / "lora_distillation" / name


def test_a_student_learns_from_a_file_whose_order_does_not_count(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, answers: Path
) -> None:
    done = call("train", *flags(tiny_base, rows_csv, answers))
    assert done.returncode == 0, done.stderr
    metrics, run = metrics_of(run_folder(tmp_path)), run_folder(tmp_path)
    assert metrics["teacher"]["test"]["accuracy"] == 1.0
    assert (metrics["teacher"]["file"], metrics["teacher"]["trainable_parameters"]) == (str(answers), None)
    assert not metrics["same_backbone"]
    logits = np.array(pq.read_table(run / "predictions.parquet")["teacher_logits"].to_pylist())
    assert np.exp(logits).max(axis=1) == pytest.approx(0.8, abs=1e-6)
    location = str(answers).replace("_", r"\_")
    cards = {role: (run / role / "README.md").read_text() for role in ("teacher", "student")}
    assert f"given, as the file of answers {location}. This folder holds no weights" in cards["teacher"]
    assert f"- Teacher: given, as the file of answers {location}" in cards["student"]

    # In another order and format nothing is made twice; other answers are another teacher.
    in_order = write_answers(tmp_path / "in-order.tsv", read(rows_csv))
    in_order.write_text(in_order.read_text().replace(",", "\t"))
    again = call("train", *flags(tiny_base, rows_csv, in_order, exp_name="again"))
    assert again.returncode == 0, again.stderr
    roles = ("teacher", "student", "control")
    assert [metrics_of(run_folder(tmp_path, "again"))[role]["reused"] for role in roles] == [True] * 3
    other = write_answers(tmp_path / "other.csv", read(rows_csv), sure=0.7)
    assert call("train", *flags(tiny_base, rows_csv, other, exp_name="other")).returncode == 0
    assert [metrics_of(run_folder(tmp_path, "other"))[role]["reused"] for role in roles] == [False, False, True]


@pytest.fixture
def unjudged(call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, answers: Path) -> Path:
    """A run whose teacher answers the rows that a student learns from, and no others."""
    assert call("train", *flags(tiny_base, rows_csv, answers, exp_name="first"), "--no_control").returncode == 0
    train = set(prepare(RunFolder(run_folder(tmp_path, "first")).resolved()).dataset.train.texts)
    write_answers(answers, [row for row in read(rows_csv) if row["text"] in train])
    done = call("train", *flags(tiny_base, rows_csv, answers))
    assert done.returncode == 0, done.stderr
    assert "answers: to 0 of 19 rows of validation and 0 of 48 rows of test" in done.stderr
    return run_folder(tmp_path)


def test_a_teacher_that_answers_no_test_row_is_judged_nowhere(
    unjudged: Path, call: Command, rows_csv: Path, answers: Path
) -> None:
    metrics = metrics_of(unjudged)
    assert not {"teacher", "agreement"} & metrics.keys()
    assert {"student", "control", "student_minus_control"} < metrics.keys()
    assert not (unjudged / "teacher").exists()
    assert str(answers).replace("_", r"\_") in (unjudged / "student" / "README.md").read_text()
    for command in (["show"], ["compare"], ["compare", "--markdown"], ["compare", "--csv"], ["report"]):
        done = call(command[0], unjudged, *command[1:])
        assert done.returncode == 0, done.stderr
    assert "<h1>Was the distillation worth it?" in (unjudged / "report.html").read_text()
    groups = group_by_seed([RunFolder(unjudged)])
    (experiment,) = summarise(gather(groups), groups)
    assert experiment.accuracy("teacher") is None
    assert "same as teacher" not in experiment.figures()

    judged = call("evaluate", unjudged, "--dataset", rows_csv)
    assert judged.returncode == 0, judged.stderr
    (evaluation,) = (json.loads(file.read_text()) for file in unjudged.glob("evaluation-*.json"))
    assert "teacher" not in evaluation
    assert evaluation["student"]["test"]["rows"] == 240
    refused = call("speed", unjudged)
    assert refused.returncode == 2
    assert f"its teacher is a file of answers, {answers}" in refused.stderr


def test_a_run_does_not_go_on_with_other_answers(
    unjudged: Path, call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, answers: Path
) -> None:
    again = flags(tiny_base, rows_csv, answers)
    assert "already finished" in call("train", *again).stderr
    kept = answers.read_bytes()
    answers.write_bytes(kept.replace(b"0.8", b"0.80"))
    refused = call("train", *again)
    assert (refused.returncode, "has changed since the run" in refused.stderr) == (2, True)
    (unjudged / "metrics.json").unlink()
    refused = call("train", "--exp_name", "run", "--resume")
    assert (refused.returncode, "has changed since the run" in refused.stderr) == (2, True)
    answers.write_bytes(kept)
    resumed = call("train", "--exp_name", "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "student: already trained" in resumed.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"teacher_checkpoint": "base"}, "--teacher_checkpoint and --teacher_predictions are two teachers"),
        ({"teacher_num_epochs": 3}, "--teacher_num_epochs: is for a teacher that is trained"),
        ({"student_base_model": "base"}, "--student_base_model: with --teacher_predictions, --base_model is"),
        ({"teacher_predictions": "absent.csv"}, "absent.csv: no such file"),
    ],
)
def test_what_does_not_go_with_a_file_is_refused(
    more: dict[str, Any], message: str, call: Command, tiny_base: Path, rows_csv: Path, answers: Path
) -> None:
    refused = call("train", *flags(tiny_base, rows_csv, answers, **more))
    assert refused.returncode == 2
    assert message in refused.stderr
