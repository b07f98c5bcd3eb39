"""`--teacher_checkpoint`: a teacher with another backbone, another tokenizer and labels in another order."""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lora_distill.config import make_config
from lora_distill.experiment import run_experiment
from tests.end_to_end.conftest import (
    WORDS,
    Command,
    evaluation_of,
    flags_of,
    metrics_of,
    small_values,
    untaught_values,
    write_rows,
)
from tests.teachers import train_adapter, train_whole
from tests.tiny import tiny_model

THEIRS = ["space", "kitchen", "garden"]
OURS = sorted(WORDS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole BERT classifier, its labels in an order of its own."""
    folder = tmp_path_factory.mktemp("teachers")
    base = tiny_model("bert", folder / "bert", layers=2)
    return train_whole(base, folder / "whole", THEIRS, names=THEIRS)


@pytest.fixture(scope="module")
def bare_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's adapter on a DistilBERT: nobody says what its labels are called."""
    folder = tmp_path_factory.mktemp("teachers")
    base = tiny_model("distilbert", folder / "distilbert", layers=2)
    return train_adapter(base, folder / "adapter", OURS, ["q_lin", "k_lin", "v_lin"])


def values(base: Path, rows: Path, teacher: Path | str, **changes: object) -> dict[str, object]:
    return untaught_values(base, rows) | {"exp_name": "run", "teacher_checkpoint": str(teacher)} | changes


def quick(base: Path, rows: Path, teacher: Path | str, **changes: object) -> list[str]:
    """Flags of a run whose student need not learn anything."""
    return [*flags_of(values(base, rows, teacher, num_epochs=1, **changes)), "--no_control"]


def runs(folder: Path) -> Path:
    return folder / "outputs" / "lora_distillation"


@pytest.fixture(scope="module")
def given_run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, rows_csv: Path, whole: Path) -> Path:
    """A run whose student learned from the whole BERT alone. Read it, do not write into it."""
    folder = tmp_path_factory.mktemp("given-run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_experiment(make_config(learning(tiny_base, rows_csv, whole), {}))
    return runs(folder) / "run"


def learning(base: Path, rows: Path, teacher: Path) -> dict[str, object]:
    """Settings of a student that has no labels to learn from, and room to learn."""
    room = {"student_target_layers": 3, "student_lora_r": 8, "lora_dropout": 0, "learning_rate": 2e-2, "num_epochs": 10}
    return values(base, rows, teacher, alpha=1.0, no_control=True, **room)


def logits_by_hand(teacher: Path, rows_csv: Path, run: Path) -> np.ndarray:
    """The teacher's own logits on the run's test rows, in its own order of labels."""
    with rows_csv.open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    ids = pq.read_table(run / "predictions.parquet")["row_id"].to_pylist()
    batch = AutoTokenizer.from_pretrained(teacher)(
        [texts[row] for row in ids], truncation=True, max_length=32, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        logits: np.ndarray = AutoModelForSequenceClassification.from_pretrained(teacher).eval()(**batch).logits.numpy()
    return logits


def test_the_teacher_s_logits_are_its_own_in_the_data_s_order_of_labels(
    given_run: Path, whole: Path, rows_csv: Path
) -> None:
    written = np.array(pq.read_table(given_run / "predictions.parquet")["teacher_logits"].to_pylist())
    own = logits_by_hand(whole, rows_csv, given_run)
    assert metrics_of(given_run)["data"]["label_names"] == OURS
    assert np.abs(written - own[:, [THEIRS.index(name) for name in OURS]]).max() < 1e-5


def test_metrics_and_files_of_such_a_run(given_run: Path, whole: Path) -> None:
    metrics = metrics_of(given_run)
    teacher = metrics["teacher"]
    assert teacher["trainable_parameters"] is None
    assert teacher["checkpoint"] == str(whole)
    assert teacher["total_parameters"] == sum(
        p.numel() for p in AutoModelForSequenceClassification.from_pretrained(whole).parameters()
    )
    assert "budget" not in teacher
    assert [path.name for path in (given_run / "teacher").iterdir()] == ["README.md"]
    assert yaml.safe_load((given_run / "config.yaml").read_text())["teacher_checkpoint"] == str(whole)
    recorded = json.loads((given_run / "environment.json").read_text())["given_teacher"]
    assert (recorded["location"], recorded["reference"], recorded["revision"]) == (str(whole), str(whole), None)
    history = [json.loads(line) for line in (given_run / "history.jsonl").read_text().splitlines()]
    assert {line["role"] for line in history} == {"student"}
    assert f"given, as {whole}" in (given_run / "train.log").read_text()


def test_a_student_learns_from_its_teacher_alone(given_run: Path) -> None:
    metrics = metrics_of(given_run)
    assert metrics["teacher"]["test"]["accuracy"] > 0.75
    assert metrics["student"]["test"]["accuracy"] > 0.65
    assert metrics["agreement"]["student_teacher"]["rate"] > 0.75


def test_the_cards_say_what_the_teacher_is(given_run: Path, whole: Path) -> None:
    location = str(whole).replace("_", r"\_")
    teacher, student = ((given_run / role / "README.md").read_text() for role in ("teacher", "student"))
    assert f"was given, as {location}. This folder holds no weights" in teacher
    assert "How to load it" not in teacher
    assert f"Teacher: given, as {location}" in student
    assert "exactly as fast" not in student  # not known of another backbone


def test_show_and_evaluate_from_anywhere(given_run: Path, call: Command, tmp_path: Path, rows_csv: Path) -> None:
    run = shutil.copytree(given_run, tmp_path / "moved")
    lines = rows_csv.read_text().splitlines()
    ids = pq.read_table(run / "predictions.parquet")["row_id"].to_pylist()
    test = tmp_path / "test.csv"
    test.write_text("\n".join([lines[0], *(lines[1 + row] for row in ids)]) + "\n")
    shown = call("show", run)
    assert shown.returncode == 0
    assert "teacher" in shown.stdout
    judged = call("evaluate", run, "--dataset", test)
    assert judged.returncode == 0, judged.stderr
    new, own = evaluation_of(run), metrics_of(run)
    for role in ("teacher", "student"):
        assert new[role]["test"]["accuracy"] == own[role]["test"]["accuracy"]
        assert new[role]["test"]["nll"] == pytest.approx(own[role]["test"]["nll"], abs=1e-5)
    assert new["teacher"]["checkpoint"] == own["teacher"]["checkpoint"]


def test_evaluate_refuses_a_teacher_that_has_changed_or_gone(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, whole: Path
) -> None:
    teacher = shutil.copytree(whole, tmp_path / "teacher")
    assert call("train", *quick(tiny_base, rows_csv, "teacher")).returncode == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = runs(tmp_path) / "run"
    assert call("evaluate", run, "--dataset", rows_csv, cwd=elsewhere).returncode == 0
    edit(teacher / "config.json", hidden_dropout_prob=0.3)
    assert_refused(call("train", *quick(tiny_base, rows_csv, "teacher")), "has changed since", "--overwrite")
    assert_refused(call("evaluate", run, "--dataset", rows_csv, "--quiet"), "has changed since")
    shutil.rmtree(teacher)
    assert_refused(call("evaluate", run, "--dataset", rows_csv, "--quiet"), str(teacher), "no such folder")


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_second_experiment_and_a_resumed_one_take_the_logits_that_are_there(
    given_run: Path, call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, whole: Path
) -> None:
    shutil.copytree(given_run.parent, runs(tmp_path))
    settings = learning(tiny_base, rows_csv, whole)
    del settings["no_control"]
    again = call("train", *flags_of(settings), "--no_control")
    assert again.returncode == 0, again.stderr
    assert "already finished" in again.stderr

    copied = shutil.copytree(whole, tmp_path / "copied")
    other = call("train", *quick(tiny_base, rows_csv, copied, exp_name="other", temperature=3.0))
    assert other.returncode == 0, other.stderr
    teacher = metrics_of(runs(tmp_path) / "other")["teacher"]
    assert teacher["reused"]
    assert teacher["checkpoint"] == str(copied)
    assert (runs(tmp_path) / "other" / "predictions.parquet").is_file()

    run = runs(tmp_path) / "run"
    (run / "metrics.json").unlink()
    for student in (runs(tmp_path) / ".artefacts").glob("student-*/"):
        shutil.rmtree(student)
    resumed = call("train", "--exp_name", "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "its logits are at hand" in resumed.stderr
    assert not metrics_of(run)["teacher"]["reused"]  # but for its own
    assert (run / "predictions.parquet").read_bytes() == (given_run / "predictions.parquet").read_bytes()


def test_a_resumed_run_does_not_go_on_with_another_teacher(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, whole: Path
) -> None:
    teacher = shutil.copytree(whole, tmp_path / "teacher")
    assert call("train", *quick(tiny_base, rows_csv, teacher)).returncode == 0
    (runs(tmp_path) / "run" / "metrics.json").unlink()
    edit(teacher / "config.json", hidden_dropout_prob=0.3)
    assert_refused(call("train", "--exp_name", "run", "--resume", "--quiet"), "has changed since")


# A finished run


def test_a_run_on_other_data_with_the_same_labels_in_other_cases(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path
) -> None:
    rows = write_rows(tmp_path / "others.csv", 150, seed=1)
    header, *lines = rows.read_text().splitlines()
    capital = [f"{line.rpartition(',')[0]},{line.rpartition(',')[2].capitalize()}" for line in lines]
    rows.write_text("\n".join([header, *capital]) + "\n")
    first = [*flags_of(small_values(tiny_base, rows) | {"exp_name": "first", "num_epochs": 10}), "--no_control"]
    assert call("train", *first).returncode == 0
    first_run = runs(tmp_path) / "first"
    assert metrics_of(first_run)["data"]["label_names"] == ["Garden", "Kitchen", "Space"]

    done = call("train", *quick(tiny_base, rows_csv, first_run, exp_name="second"))
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    teacher = metrics_of(runs(tmp_path) / "second")["teacher"]
    assert teacher["trainable_parameters"] is None
    assert teacher["test"]["accuracy"] > 0.7

    given_again = call("train", *quick(tiny_base, rows_csv, runs(tmp_path) / "second", exp_name="third"), "--quiet")
    assert_refused(given_again, "holds no teacher of its own")
    by_student = call("train", *quick(tiny_base, rows_csv, runs(tmp_path) / "second" / "student", exp_name="fourth"))
    assert by_student.returncode == 0, by_student.stderr


def test_a_run_that_has_seen_the_test_rows_is_said_to(
    small_run: Path, call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path
) -> None:
    again = call("train", *quick(tiny_base, rows_csv, small_run))
    assert again.returncode == 0, again.stderr
    assert "hold texts" not in again.stderr + again.stdout

    other = call("train", *quick(tiny_base, rows_csv, small_run, exp_name="other", test_fraction=0.4))
    assert other.returncode == 0, other.stderr
    (note,) = (n for n in metrics_of(runs(tmp_path) / "other")["data"]["notes"] if n.startswith("teacher: "))
    assert re.match(r"teacher: \d+ of 96 test rows and \d+ of 14 validation rows hold texts that the run trained", note)
    for told in (other.stderr, other.stdout, (runs(tmp_path) / "other" / "student" / "README.md").read_text()):
        assert note in " ".join(told.split())
    assert f"WARNING: {note}" in " ".join(other.stderr.split())


def test_labels_of_texts_to_judge_may_differ_by_case(
    small_run: Path, call: Command, tmp_path: Path, rows_csv: Path
) -> None:
    run = shutil.copytree(small_run, tmp_path / "run")
    capitals = tmp_path / "capitals.csv"
    capitals.write_text(rows_csv.read_text().replace(",space\n", ",SPACE\n"))
    done = call("evaluate", run, "--dataset", capitals)
    assert done.returncode == 0, done.stderr
    assert evaluation_of(run)["student"]["test"]["per_class"]["space"]["support"] == 80


# A stranger's adapter


def test_labels_without_names_in_the_right_order(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, bare_adapter: Path
) -> None:
    done = call("train", *quick(tiny_base, rows_csv, bare_adapter))
    assert done.returncode == 0, done.stderr
    assert "WARNING: the teacher's labels have no names" in done.stderr
    assert "LABEL_0 = garden, LABEL_1 = kitchen, LABEL_2 = space" in done.stderr
    run = runs(tmp_path) / "run"
    assert metrics_of(run)["teacher"]["test"]["accuracy"] > 0.7
    assert "LABEL_0 = garden" in (run / "train.log").read_text()


def test_labels_without_names_in_the_wrong_order_are_refused_before_anything_is_written_and_a_map_settles_it(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, bare_adapter: Path
) -> None:
    renamed = tmp_path / "renamed.csv"  # the same texts, the labels' names moved on by one
    moved = dict(zip(OURS, [*OURS[1:], OURS[0]], strict=True))
    header, *lines = rows_csv.read_text().splitlines()
    renamed.write_text(
        "\n".join([header, *(f"{row.rpartition(',')[0]},{moved[row.rpartition(',')[2]]}" for row in lines)])
    )
    before = sorted(tmp_path.rglob("*"))
    refused = call("train", *quick(tiny_base, renamed, bare_adapter))
    assert refused.returncode == 2
    assert "The order is wrong: say which is which with --teacher_label_map" in refused.stderr
    assert sorted(tmp_path.rglob("*")) == before

    label_map = ",".join(f"LABEL_{index}={moved[name]}" for index, name in enumerate(OURS))
    settled = call("train", *quick(tiny_base, renamed, bare_adapter, teacher_label_map=label_map))
    assert settled.returncode == 0, settled.stderr
    assert "WARNING" not in settled.stderr
    assert metrics_of(runs(tmp_path) / "run")["teacher"]["test"]["accuracy"] > 0.7
    from_file = call("train", "--config", runs(tmp_path) / "run" / "config.yaml", "--exp_name", "again")
    assert from_file.returncode == 0, from_file.stderr

    # The logits are there by now, and the order is as wrong as before; and what was there is not replaced.
    kept = (runs(tmp_path) / "run" / "metrics.json").read_bytes()
    refused = call("train", *quick(tiny_base, renamed, bare_adapter), "--overwrite")
    assert refused.returncode == 2
    assert "The order is wrong" in refused.stderr
    assert (runs(tmp_path) / "run" / "metrics.json").read_bytes() == kept


def test_an_adapter_whose_base_model_is_gone(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, bare_adapter: Path
) -> None:
    adapter = shutil.copytree(bare_adapter, tmp_path / "adapter")
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(tmp_path / "gone"))
    before = sorted(tmp_path.rglob("*"))
    refused = call("train", *quick(tiny_base, rows_csv, adapter), "--quiet")
    assert_refused(refused, "the model that it was trained on", "gone")
    assert sorted(tmp_path.rglob("*")) == before


# Refused


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if line]) <= 3
    for word in words:
        assert word in done.stderr


def test_other_labels_are_refused_with_both_lists(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, whole: Path
) -> None:
    teacher = shutil.copytree(whole, tmp_path / "teacher")
    names = {"0": "space", "1": "cellar", "2": "garden"}
    edit(teacher / "config.json", id2label=names, label2id={name: int(index) for index, name in names.items()})
    refused = call("train", *quick(tiny_base, rows_csv, teacher), "--quiet")
    lists = "The teacher's: 'space', 'cellar', 'garden'. The data's: 'garden', 'kitchen', 'space'."
    assert_refused(refused, "other labels than the data", lists, "--teacher_label_map")
    assert not (tmp_path / "outputs").exists()
    mended = call("train", *quick(tiny_base, rows_csv, teacher, teacher_label_map="cellar=kitchen"))
    assert mended.returncode == 0, mended.stderr
    assert metrics_of(runs(tmp_path) / "run")["teacher"]["test"]["accuracy"] > 0.75


def test_a_map_without_a_teacher(call: Command, tiny_base: Path, rows_csv: Path) -> None:
    settings = flags_of(small_values(tiny_base, rows_csv) | {"teacher_label_map": "a=b"})
    assert_refused(call("train", *settings, "--quiet"), "--teacher_label_map", "none was given")


def test_weights_that_are_not_whole_are_found_before_anything_is_written(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, whole: Path
) -> None:
    from safetensors.torch import load_file, save_file

    teacher = shutil.copytree(whole, tmp_path / "teacher")
    weights = load_file(teacher / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, teacher / "model.safetensors", metadata={"format": "pt"})
    assert_refused(call("train", *quick(tiny_base, rows_csv, teacher), "--quiet"), "its weights lack classifier.bias")
    assert not (tmp_path / "outputs").exists()


def test_layers_of_a_teacher_that_is_given_are_its_own_affair(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, whole: Path
) -> None:
    settings = values(tiny_base, rows_csv, whole, num_epochs=1)  # the default is more than the base has
    del settings["exp_name"]
    done = call("train", *flags_of(settings), "--no_control")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    (run,) = (path for path in runs(tmp_path).iterdir() if not path.name.startswith("."))
    assert run.name.startswith("tiny-roberta-rows-given-s4x2-")
