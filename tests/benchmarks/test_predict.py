"""The benchmark of predict, on almost nothing."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import predict
from benchmarks.machine import Process
from tests.deployment.exported import write_exported


def test_texts_come_again_and_again(rows: Path, tmp_path: Path) -> None:
    lines = predict.write_texts(rows / "test.csv", tmp_path / "rows.csv", 30).read_text().splitlines()
    assert lines[0] == "id,text"
    assert (len(lines), lines[1].split(",")[1]) == (31, lines[13].split(",")[1])


def test_memory_is_told_above_what_the_model_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "run_python", lambda _: Process([], 1.0, 100, 0))
    assert predict.memory_above(Path("m"), {10: Process([], 1.0, 130, 0), 100: Process([], 1.0, 150, 0)}) == {
        10: 30,
        100: 50,
    }


@pytest.mark.benchmark
def test_the_command(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_exported(tmp_path / "model")
    out = tmp_path / "predict.json"
    arguments = ["--model", model, "--data", rows, "--rows", 200, "--rounds", 1, "--out", out, "--work", tmp_path / "w"]
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
    predict.main()
    found = json.loads(out.read_text())
    assert found["in_process"][0] > 0
    assert set(found["bytes_above_the_model"]) == {"20", "200"}
