"""How fast the models of a finished run answer, as one deploys them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_distill.data.batches import Batch
from lora_distill.deployment import engine, exported, speed
from lora_distill.deployment.engine import Engine
from lora_distill.deployment.finished import open_role
from lora_distill.deployment.forms import ONNX_FILES
from lora_distill.run_folder import RunFolder
from lora_distill.training.logits import plain
from tests.deployment.exported import watch_graphs
from tests.end_to_end.conftest import Command, metrics_of, small_settings


def test_merged_it_answers_as_before_and_has_no_adapter(small_run: Path) -> None:
    opened = open_role(RunFolder(small_run), "student")
    rows = Batch(np.arange(3), torch.arange(15).reshape(3, 5), torch.ones(3, 5, dtype=torch.int64))
    with torch.inference_mode():
        before = plain(opened.model)(rows)
        merged = opened.merged()
        assert torch.allclose(plain(merged)(rows), before, atol=1e-5)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    found = speed._size([merged])
    # Three layers 32 wide with 64 between: query, key, value, output, and two of the feed-forward.
    assert found["multiply_adds"] == 3 * (4 * 32 * 32 + 2 * 32 * 64)
    assert found["total_parameters"] == metrics_of(small_run)["student"]["total_parameters"]
    assert found["weight_bytes"] == 4 * found["total_parameters"]


def test_the_command(call: Command, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    run = shutil.copytree(small_run, tmp_path / "small")
    done = call("speed", run, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    measured = json.loads((run / "speed.json").read_text())
    assert [(each["batch"], each["texts"]) for each in measured["timings"][:4]] == [
        (size, kind) for size in (1, 32) for kind in ("short", "long")
    ]
    for each in measured["timings"]:
        for role in speed.TIMED:
            assert 0 < each[role]["median"] <= each[role]["p95"]
            assert each[role]["rounds"] == speed.LEAST
    student = metrics_of(run)["student"]
    trained, total = student["trainable_parameters"]["total"], student["total_parameters"]
    assert (
        f"Student: {trained:,} trained parameters of {total:,} in all, 0.0 million multiply-adds a token" in done.stdout
    )
    assert "Merged, the student is exactly as fast as its teacher" in done.stdout


@pytest.mark.parametrize("form", ONNX_FILES)
def test_as_what_export_makes_of_them_in_the_batches_that_answer(
    form: str, call: Command, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    asked: list[tuple[str, int]] = []
    real = exported.open_engine

    def open_engine(folder: Path, file: str, labels: list[str], threads: int, *, segments: bool) -> Engine:
        opened = real(folder, file, labels, threads, segments=segments)
        asked.append((file, threads))
        return opened

    monkeypatch.setattr(exported, "open_engine", open_engine)
    run = shutil.copytree(small_run, tmp_path / "small")
    done = call("speed", run, "--form", form)
    assert done.returncode == 0, done.stderr
    measured = json.loads((run / "speed.json").read_text())
    assert (measured["form"], measured["device"]) == (form, "cpu")
    threads = sorted({each["threads"] for each in measured["timings"]})
    assert asked == [(ONNX_FILES[form], number) for number in threads for _ in speed.TIMED]
    assert ("ONNX graphs in eight bits" if "int8" in form else "ONNX graphs in fp32") in done.stdout
    refused = call("speed", run, "--form", form, "--device", "cuda")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --device cuda: ONNX graphs answer on the processor here.")


def test_a_graph_answers_as_its_model_chunks_and_all(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = watch_graphs(monkeypatch)
    opened = open_role(RunFolder(small_run), "student")
    tokens = replace(opened.tokenised(["a short text", "and one of more words", "x"]), starts=np.array([0, 2, 3]))
    rows = np.array([1, 0, 1])
    forward = speed._graph(opened, opened.merged(), tmp_path, "onnx")(1)
    with torch.inference_mode():
        expected = plain(open_role(RunFolder(small_run), "student").model)(tokens.batch(rows))
    np.testing.assert_allclose(forward(tokens, rows), expected, atol=1e-4)
    assert asked == [(1, 0), (1, 4)]
    monkeypatch.setattr(engine, "BATCH_TOKENS", 1)  # as who asks the export for labels would
    forward(tokens, rows)
    assert asked[2:] == [(1, 1)] * 4


def test_a_student_of_fewer_layers_does_less(call: Command, tmp_path: Path, tiny_base: Path, rows_csv: Path) -> None:
    settings = [*small_settings(tiny_base, rows_csv), "--num_epochs", 1, "--no_control", "--student_target_layers", 1]
    assert call("train", *settings, "--student_depth", 1, "--exp_name", "one").returncode == 0
    run = RunFolder(tmp_path / "outputs" / "lora_distillation" / "one")
    teacher, student = (speed._size([open_role(run, role).merged()]) for role in speed.TIMED)
    assert teacher["multiply_adds"] == 3 * student["multiply_adds"]


def test_what_is_no_finished_run_is_refused(call: Command, tmp_path: Path) -> None:
    done = call("speed", tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
