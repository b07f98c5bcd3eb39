"""`lora-distill train`, as a user runs it."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.end_to_end.conftest import Command, evaluation_of, metrics_of, small_settings

ROLES = ("teacher", "student", "control")


def timeless_metrics(run: Path) -> dict[str, object]:
    """metrics.json without what is a time, or says whether work was shared."""
    timeless = {"seconds", "spared_seconds", "examples_per_second", "peak_memory", "reused", "exp_name"}

    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {key: strip(inner) for key, inner in value.items() if key not in timeless}
        return value

    stripped = strip(metrics_of(run))
    assert isinstance(stripped, dict)
    return stripped


def assert_same_bits(one: Path, other: Path) -> None:
    adapters = [f"{role}/adapter_{part}" for role in ROLES for part in ("config.json", "model.safetensors")]
    for file in (*adapters, "predictions.parquet", "history.jsonl"):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    assert timeless_metrics(one) == timeless_metrics(other)


def test_a_run_leaves_all_that_it_says(small_run: Path) -> None:
    names = {path.name for path in small_run.iterdir()}
    assert names == {
        *ROLES,
        "metrics.json",
        "config.yaml",
        "environment.json",
        "history.jsonl",
        "train.log",
        "predictions.parquet",
        "report.html",
    }
    for role in ROLES:
        files = {path.name for path in (small_run / role).iterdir()}
        assert {
            "adapter_config.json",
            "adapter_model.safetensors",
            "tokenizer.json",
            "labels.json",
            "README.md",
        } <= files


def test_metrics_have_the_promised_shape(small_run: Path) -> None:
    metrics = json.loads((small_run / "metrics.json").read_text())
    history = [json.loads(line) for line in (small_run / "history.jsonl").read_text().splitlines()]
    for role in ROLES:
        judged = [line for line in history if line["role"] == role and line["event"] == "validation"]
        best = min(judged, key=lambda line: line["calibrated_nll"])
        assert metrics[role]["steps"] == judged[-1]["step"] > 0
        assert metrics[role]["still_learning"] == (best is judged[-1])
        assert set(metrics[role]["execution"]["kept"].values()) == {1.0}
        assert metrics[role]["execution"]["lean"] is True
        assert metrics[role]["learning_rate"] > 0
        for split in ("test", "validation"):
            assert {"accuracy", "macro_f1", "nll", "ece", "brier", "per_class", "confusion"} <= set(
                metrics[role][split]
            )
        count = metrics[role]["trainable_parameters"]
        assert count["total"] == count["lora"] + count["head"] > 0
        assert metrics[role]["seconds"] > 0
        assert metrics[role]["examples_per_second"] > 0
    assert "budget" not in metrics["teacher"]
    assert metrics["student"]["budget"] == metrics["control"]["budget"] == 1_000_000
    # 2 layers x q, k, v x (in + out) x rank, and a head of 32 x 32 + 32 + 3 x 32 + 3
    assert metrics["student"]["trainable_parameters"] == {"total": 1536 + 1155, "lora": 1536, "head": 1155}
    assert metrics["teacher"]["trainable_parameters"]["lora"] == 3 * 3 * 64 * 8
    difference = metrics["student_minus_control"]
    assert difference["interval"][0] <= difference["accuracy"] <= difference["interval"][1]
    student, control = (metrics[role]["test"]["accuracy"] for role in ("student", "control"))
    assert difference["accuracy"] == pytest.approx(student - control)
    assert 0 <= metrics["agreement"]["student_teacher"]["rate"] <= 1


def test_predictions_are_what_the_metrics_say(small_run: Path) -> None:
    table = pq.read_table(small_run / "predictions.parquet")
    metrics = json.loads((small_run / "metrics.json").read_text())
    labels = np.array(table["label"])
    assert len(set(table["row_id"].to_pylist())) == len(labels) == metrics["data"]["test_rows"]
    for role in ROLES:
        logits = np.array(table[f"{role}_logits"].to_pylist(), dtype=np.float32)
        assert logits.shape == (len(labels), 3)
        predicted = np.array(table[f"{role}_prediction"])
        assert (logits.argmax(axis=1) == predicted).all()
        assert metrics[role]["test"]["accuracy"] == pytest.approx((predicted == labels).mean())


def test_history_has_a_line_for_each_logging_step_and_evaluation(small_run: Path) -> None:
    lines = [json.loads(line) for line in (small_run / "history.jsonl").read_text().splitlines()]
    rows = json.loads((small_run / "metrics.json").read_text())["data"]["train_rows"]
    per_epoch = math.ceil(rows / 16)
    for role in ROLES:
        mine = [line for line in lines if line["role"] == role]
        assert [line["epoch"] for line in mine if line["event"] == "validation"] == [1, 2]
        steps = [line["step"] for line in mine if line["event"] == "step"]
        assert steps == sorted(
            {step for step in range(1, 2 * per_epoch + 1) if step % 10 == 0 or step % per_epoch == 0}
        )
        rates = [line["learning_rate"] for line in mine if line["event"] == "step"]
        assert 1e-2 > rates[0] > rates[-1] > 0


def test_environment_and_log(small_run: Path) -> None:
    environment = json.loads((small_run / "environment.json").read_text())
    assert {"torch", "transformers", "peft", "python"} <= set(environment["versions"])
    assert environment["plan"]["precision"] in ("fp32", "bf16")
    assert len(environment["data"]["fingerprint"]) == 64
    log = (small_run / "train.log").read_text()
    assert "drawn stratified" in log
    assert "student: epoch 2 of 2: validation accuracy" in log


def test_the_same_seed_gives_the_same_bits_and_its_config_gives_the_run_again(
    small_run: Path, call: Command, tmp_path: Path
) -> None:
    done = call("train", "--config", small_run / "config.yaml", "--exp_name", "again")
    assert done.returncode == 0, done.stderr
    again = tmp_path / "outputs" / "lora_distillation" / "again"
    assert_same_bits(small_run, again)
    one, other = (yaml.safe_load((run / "config.yaml").read_text()) for run in (small_run, again))
    assert one | {"exp_name": ""} == other | {"exp_name": ""}


def test_with_alpha_0_the_student_is_its_control_to_the_bit(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path
) -> None:
    settings = [*small_settings(tiny_base, rows_csv), "--alpha", 0, "--num_epochs", 1, "--exp_name", "same"]
    done = call("train", *settings)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "outputs" / "lora_distillation" / "same"
    student, control = ((run / role / "adapter_model.safetensors").read_bytes() for role in ("student", "control"))
    assert student == control
    assert json.loads((run / "metrics.json").read_text())["student_minus_control"]["p_value"] == 1.0


def test_a_finished_run_is_read_and_another_config_refused(call: Command, small_run: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run.parent, tmp_path / "outputs" / "lora_distillation")
    again = ["train", "--config", small_run / "config.yaml"]
    done = call(*again)
    assert done.returncode == 0, done.stderr
    assert "already finished" in done.stderr
    assert "small" in done.stdout
    refused = call(*again, "--alpha", 0.9)
    assert refused.returncode == 2
    assert "alpha 0.5, now 0.9" in refused.stderr
    replaced = call(*again, "--alpha", 0.9, "--overwrite", "--num_epochs", 1, "--no_control")
    assert replaced.returncode == 0, replaced.stderr
    metrics = json.loads((tmp_path / "outputs" / "lora_distillation" / "small" / "metrics.json").read_text())
    assert "control" not in metrics
    assert not (tmp_path / "outputs" / "lora_distillation" / "small" / "control").exists()


def test_data_that_has_changed_since_is_not_taken_for_the_same(
    call: Command, small_run: Path, tmp_path: Path, tiny_base: Path, rows_csv: Path
) -> None:
    rows = shutil.copy(rows_csv, tmp_path / "rows.csv")
    settings = [*small_settings(tiny_base, Path("rows.csv")), "--exp_name", "small", "--num_epochs", 1]
    assert call("train", *settings).returncode == 0
    assert call("train", *settings).returncode == 0
    with Path(rows).open("a") as file:
        file.write("one more row,space\n")
    for flags in ([], ["--resume"]):
        refused = call("train", *settings, *flags)
        assert refused.returncode == 2
        assert "rows.csv: has changed since" in refused.stderr
    (tmp_path / "outputs" / "lora_distillation" / "small" / "metrics.json").unlink()
    refused = call("train", *settings, "--resume")
    assert refused.returncode == 2
    assert "rows.csv: has changed since" in refused.stderr


def test_show_and_evaluate(call: Command, small_run: Path, tmp_path: Path, rows_csv: Path) -> None:
    run = tmp_path / "renamed"
    shutil.copytree(small_run, run)
    shown = call("show", run)
    assert shown.returncode == 0, shown.stderr
    assert all(role in shown.stdout for role in ROLES)
    judged = call("evaluate", run, "--dataset", rows_csv)
    assert judged.returncode == 0, judged.stderr
    assert all("renamed: " in each.stdout for each in (shown, judged))
    result = evaluation_of(run)
    (note,) = result["data"]["notes"]
    assert note.startswith("192 of 240 test rows hold texts that the run trained on")
    assert note in " ".join(judged.stderr.split())
    assert result["data"]["test_rows"] == 240
    assert re.search(r"evaluation-rows-[0-9a-f]{8}\.json", judged.stdout)
    assert "Seconds" in shown.stdout
    assert "Seconds" not in judged.stdout
    assert re.search(r"^Student - control [+-]\d+\.\d\d points \[.*\]: .* \(p = ", judged.stdout, re.M)
    (file,) = run.glob("evaluation-*.json")
    file.unlink()
    file.mkdir()  # even root cannot replace it
    refused = call("evaluate", run, "--dataset", rows_csv)
    assert refused.returncode == 2
    assert refused.stdout == judged.stdout.partition("Written")[0]
    assert f"error: {file}: Is a directory. So it is not kept.\n" in refused.stderr


def test_evaluating_on_the_test_rows_gives_the_run_s_own_numbers(
    call: Command, small_run: Path, tmp_path: Path, rows_csv: Path
) -> None:
    lines = rows_csv.read_text().splitlines()
    ids = pq.read_table(small_run / "predictions.parquet")["row_id"].to_pylist()
    test = tmp_path / "test.csv"
    test.write_text("\n".join([lines[0], *(lines[1 + row] for row in ids)]) + "\n")
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    assert call("evaluate", run, "--dataset", test).returncode == 0
    judged, own = evaluation_of(run), metrics_of(run)
    assert judged["data"]["notes"] == []
    for role in ROLES:
        assert judged[role]["test"]["accuracy"] == own[role]["test"]["accuracy"]
        assert judged[role]["test"]["nll"] == pytest.approx(own[role]["test"]["nll"], abs=1e-5)


def test_a_stranger_with_transformers_and_peft_gets_the_logits_of_the_predictions(
    small_run: Path, rows_csv: Path
) -> None:
    check_as_a_stranger(small_run, rows_csv)


def check_as_a_stranger(run: Path, rows: Path) -> None:
    script = """
import csv, sys, numpy as np, torch
import pyarrow.parquet as pq
from peft import PeftConfig, PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer
run, rows = sys.argv[1:]
table = pq.read_table(run + "/predictions.parquet")
texts = [row["text"] for row in csv.DictReader(open(rows))]
base = PeftConfig.from_pretrained(run + "/student").base_model_name_or_path
model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
model = PeftModel.from_pretrained(model, run + "/student").eval()
tokenizer = AutoTokenizer.from_pretrained(run + "/student")
batch = tokenizer(
    [texts[i] for i in table["row_id"].to_pylist()], truncation=True, max_length=32, padding=True, return_tensors="pt"
)
logits = model(**batch).logits.detach().numpy()
assert np.abs(logits - np.array(table["student_logits"].to_pylist())).max() < 1e-4
assert "lora_distill" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, str(run), str(rows)], check=True)


def test_an_encoder_cut_to_fewer_layers_is_a_base_model_for_strangers_and_is_made_again_where_it_is_missing(
    call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_DISTILL_CACHE", str(tmp_path / "cache"))
    settings = [*small_settings(tiny_base, rows_csv), "--num_epochs", 1, "--no_control", "--teacher_target_layers", 2]
    output = tmp_path / "outputs" / "lora_distillation"
    assert call("train", *settings, "--exp_name", "whole").returncode == 0
    kept = sorted(path.name for path in (tmp_path / "cache").iterdir())
    done = call("train", *settings, "--student_target_layers", 1, "--base_depth", 2, "--exp_name", "cut")
    assert done.returncode == 0, done.stderr
    (base,) = output.glob(".artefacts/base-*[!k]")
    for role in ("teacher", "student"):
        assert json.loads((output / "cut" / role / "adapter_config.json").read_text())[
            "base_model_name_or_path"
        ] == str(base)
    whole, cut = (metrics_of(output / name)["student"]["total_parameters"] for name in ("whole", "cut"))
    assert whole - cut == 8 * 32 * 32 + 9 * 32 + 2 * 32  # a layer's matrices, biases and norms
    # What the first layer gives is the whole encoder's, and was kept for that.
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == kept
    check_as_a_stranger(output / "cut", rows_csv)
    shutil.rmtree(base)
    moved = output.rename(tmp_path / "moved")
    judged = call("evaluate", moved / "cut", "--dataset", rows_csv)
    assert judged.returncode == 0, judged.stderr
    assert (moved / ".artefacts" / base.name / "config.json").is_file()
    assert (
        call(
            "train",
            *settings,
            "--student_target_layers",
            1,
            "--base_depth",
            2,
            "--exp_name",
            "cut",
            "--output_dir",
            moved,
        ).returncode
        == 0
    )


def test_a_student_on_another_encoder_or_on_some_of_its_layers(
    call: Command, tmp_path: Path, tiny: Callable[[str], Path], tiny_base: Path, rows_csv: Path
) -> None:
    settings = [*small_settings(tiny_base, rows_csv), "--num_epochs", 1, "--student_target_layers", 1]
    output = tmp_path / "outputs" / "lora_distillation"
    other = ["--student_base_model", tiny("bert")]
    cut = ["--student_depth", 2, "--student_keep", "spread"]
    for name, asked in {"other": other, "cut": cut, "both": [*other, *cut]}.items():
        done = call("train", *settings, *asked, "--exp_name", name)
        assert done.returncode == 0, done.stderr
        results, card = metrics_of(output / name), (output / name / "student" / "README.md").read_text()
        assert not results["same_backbone"]
        assert "exactly as fast" not in done.stdout + card
        assert "on 3 layers of " + results["teacher"]["base_model"].replace("_", "\\_") in card
        assert results["teacher"]["total_parameters"] > results["student"]["total_parameters"]
        assert results["control"]["total_parameters"] == results["student"]["total_parameters"]
        check_as_a_stranger(output / name, rows_csv)
        judged = call("evaluate", output / name, "--dataset", rows_csv)
        assert judged.returncode == 0, judged.stderr
    own, of_others = (metrics_of(output / name)["student"]["base_model"] for name in ("cut", "both"))
    assert own == f"layers 1 and 3 of {tiny_base}"
    assert of_others == f"layers 1 and 3 of {tiny('bert')}"
    # One teacher for all of them, and its own tokenizer.
    assert len(list(output.glob(".artefacts/teacher-*[!k]"))) == 1
    tokenizers = [(output / "other" / role / "tokenizer.json").read_bytes() for role in ROLES]
    assert tokenizers[0] != tokenizers[1] == tokenizers[2]
    before = timeless_metrics(output / "both")
    (output / "both" / "metrics.json").unlink()
    assert call("train", *settings, *other, *cut, "--exp_name", "both", "--resume").returncode == 0
    assert timeless_metrics(output / "both") == before
