"""`lora-distill predict` as it is called: on every kind of model, through pipes, and killed again and again."""

import copy
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lora_distill import Classifier
from lora_distill.deployment.finished import open_role
from lora_distill.run_folder import RunFolder
from lora_distill.seeding import generator
from tests.deployment.exported import WORDS, write_exported
from tests.end_to_end.conftest import WORDS as TOPICS
from tests.end_to_end.conftest import Command, metrics_of
from tests.end_to_end.refusal import assert_refused

KILLS = 10  # of each format


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_exported(tmp_path / "model")


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "lora_distill", "predict", *map(str, arguments)]


def write_texts(path: Path, rows: int) -> Path:
    """Rows of which some are bad, or hold line breaks."""
    draw = generator(0, "texts")
    words = draw.choice(WORDS, size=(rows, 6))
    lengths = draw.integers(1, 7, rows)
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        for number in range(rows):
            text = ("\n" if number % 10 == 3 else " ").join(words[number, : lengths[number]])
            file.write(f'{number},"{text}"\n' if number % 97 else f"{number}\n")
    return path


def test_the_command(call: Command, model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("tulip hedge\noven\n\ncomet comet comet\n")
    done = call("predict", "model", "rows.txt", "--output", "out/rows.jsonl", "--threshold", "0.7")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["3 rows labelled: out/rows.jsonl", "1 row for a person to read, of less confidence than 0.7"],
    )
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [(row["text"], row["label"], row["review"]) for row in rows] == [
        ("tulip hedge", "garden", False),
        ("oven", "kitchen", True),
        ("comet comet comet", "space", False),
    ]
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "rows.jsonl"]
    assert_refused(
        call("predict", "model", "rows.txt", "--output", "out/rows.jsonl"), "out/rows.jsonl: exists", "--overwrite"
    )


def test_pairs(call: Command, tmp_path: Path) -> None:
    write_exported(tmp_path / "model", pairs=True)
    (tmp_path / "rows.csv").write_text("text_pair,text,other\nhedge,oven,comet\ncomet,oven,oven\n")
    for flags, labels in ((), ["garden", "space"]), (("--text_pair_column", "other"), ["space", "kitchen"]):
        done = call("predict", "model", "rows.csv", "--output", "out.jsonl", "--overwrite", *flags)
        assert (done.returncode, done.stdout) == (0, "2 rows labelled: out.jsonl\n")
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [row["label"] for row in rows] == labels
    (tmp_path / "single.csv").write_text("text\noven\n")
    assert_refused(
        call("predict", "model", "single.csv", "--output", "out.csv"), "no column 'text_pair'", "--text_pair_column"
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["no-model", "rows.txt", "--output", "o.csv"], ["model no-model: no such folder"]),
        (["rows.txt", "rows.txt", "--output", "o.csv"], ["model rows.txt: is a file"]),
        (["empty", "rows.txt", "--output", "o.csv"], ["model empty: holds no model", "Nor does a folder below it."]),
        (["model", "no.csv", "--output", "o.csv"], ["no.csv: no such file"]),
        (["model", "rows.dat", "--output", "o.csv"], ["rows.dat: its name says no format", "--format csv|"]),
        (["model", "-", "--output", "o.csv"], ["-: say in which format standard input is: --format"]),
        (["model", "rows.txt", "--output", "o.txt"], ["o.txt: its name says no format. Allowed: .csv"]),
        (["model", "rows.txt", "--output", "o.csv", "--threshold", "2"], ["--threshold 2.0: is no confidence"]),
        (["model", "rows.txt"], ["--output"]),
        (
            ["model", "rows.txt", "--output", "o.csv", "--text_pair_column", "b"],
            ["model reads single texts. Leave it out"],
        ),
    ],
)
def test_what_is_refused(arguments: list[str], parts: list[str], call: Command, model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("tulip\n")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert_refused(call("predict", *arguments), *parts)
    assert sorted(tmp_path.rglob("*")) == before


def test_through_pipes(model: Path, tmp_path: Path) -> None:
    rows = write_texts(tmp_path / "rows.csv", 30_000)
    with rows.open("rb") as given:
        done = subprocess.run(
            program(model, "-", "--format", "csv", "--output", "-", "--quiet"),
            stdin=given,
            capture_output=True,
            check=True,
        )
    assert done.stdout.startswith(b"id,text,label,confidence,probability_garden")
    assert b"standard input, line 2: 1 columns found, 2 expected." in done.stderr
    with subprocess.Popen(
        program(model, rows, "--output", "-", "--quiet"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert (process.wait(), b"Traceback" in said) == (0, False), said


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_killed_at_random_moments_and_called_again_the_bytes_are_those_of_an_unbroken_run(
    suffix: str, model: Path, tmp_path: Path
) -> None:
    rows = write_texts(tmp_path / "rows.csv", 60_000)
    call = program(model, rows, "--output", f"out.{suffix}", "--quiet")
    begun = time.monotonic()
    subprocess.run(call, cwd=tmp_path, check=True, capture_output=True)
    seconds = time.monotonic() - begun
    whole, bad = ((tmp_path / name).read_bytes() for name in (f"out.{suffix}", f"out.{suffix}.bad.jsonl"))
    assert bad.count(b"\n") == 619

    def assert_whole(folder: Path) -> None:
        assert (folder / f"out.{suffix}").read_bytes() == whole
        assert (folder / f"out.{suffix}.bad.jsonl").read_bytes() == bad
        assert sorted(path.name for path in folder.iterdir()) == [f"out.{suffix}", f"out.{suffix}.bad.jsonl"]

    draw = generator(0, f"kills {suffix}")
    kills, ended, again = 0, False, tmp_path / "again"
    again.mkdir()
    while kills < KILLS or not ended:  # the last call is no killed one: what a kill left is for the next to remove
        limit = draw.uniform(0.2, 0.6) * seconds if kills < KILLS else None
        with subprocess.Popen(call, cwd=again, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            try:
                _, said = process.communicate(timeout=limit)
                if process.returncode == 2:  # killed between the last rename and its end
                    assert f"out.{suffix}: exists" in said
                assert_whole(again)
                ended = kills == KILLS
                if not ended:
                    again = tmp_path / f"again after {kills}"
                    again.mkdir()
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1


# Through torch


def test_a_run_and_its_roles_answer_as_the_report_says(call: Command, small_run: Path, tmp_path: Path) -> None:
    predictions = pq.read_table(small_run / "predictions.parquet")
    pq.write_table(predictions.select(["text"]), tmp_path / "rows.parquet")
    for folder, role in ((small_run, "student"), (small_run / "teacher", "teacher")):
        done = call("predict", folder, "rows.parquet", "--output", f"{role}.parquet")
        assert done.returncode == 0, done.stderr
        found = pq.read_table(tmp_path / f"{role}.parquet")
        logits = np.array(predictions.column(f"{role}_logits").to_pylist())
        temperature = metrics_of(small_run)[role]["temperature_scaling"]["temperature"]
        powers = np.exp(logits / temperature)
        classifier = Classifier.load(folder)
        assert classifier.about["made_from"]["role"] == role
        names = [f"probability_{label}" for label in classifier.labels]
        probabilities = np.array([found.column(name) for name in names]).T
        np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-4)


def test_a_whole_classifier_and_an_adapter_from_elsewhere(tiny_base: Path, tmp_path: Path) -> None:
    texts = ["orbit rocket planet", "oven", "tulip " * 20]
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=3)
    plain.config.id2label = dict(enumerate(TOPICS))
    settings = LoraConfig(task_type="SEQ_CLS", target_modules=["query"], init_lora_weights=False)
    adapted = get_peft_model(copy.deepcopy(plain), settings)
    for model, labels in ((plain, tuple(TOPICS)), (adapted, ("LABEL_0", "LABEL_1", "LABEL_2"))):
        folder = tmp_path / type(model).__name__
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found = Classifier.load(folder)
        assert (found.labels, found.max_length, found.temperature) == (labels, 512, 1.0)
        with torch.inference_mode():
            logits = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits.numpy()
        np.testing.assert_allclose(found.logits(texts), logits, atol=1e-5)
    assert found.fingerprint() != Classifier.load(tmp_path / type(plain).__name__).fingerprint()


def test_a_copied_role_of_a_run_answers_as_the_run_does(small_run: Path, tmp_path: Path) -> None:
    texts = ["orbit rocket planet", "oven", "tulip " * 200]
    run, copied = Classifier.load(small_run), Classifier.load(shutil.copytree(small_run / "student", tmp_path / "mine"))
    assert (copied.labels, copied.max_length, copied.temperature) == (run.labels, run.max_length, run.temperature)
    assert (run.max_length, run.temperature) != (512, 1.0)
    assert copied.about["made_from"] == run.about["made_from"]
    np.testing.assert_array_equal(copied.predict_proba(texts), run.predict_proba(texts))


def test_a_model_opens_without_a_word_of_the_libraries(small_run: Path) -> None:
    code = f"from lora_distill import Classifier; Classifier.load({str(small_run / 'student')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_an_exported_merged_folder_has_its_own_names_and_temperature(small_run: Path, tmp_path: Path) -> None:
    merged = open_role(RunFolder(small_run), "student").merged()
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(small_run / "student").save_pretrained(tmp_path / "merged")
    run = Classifier.load(small_run)
    about = run.about | {"form": "merged", "labels": ["x", "y", "z"], "temperature": 2 * run.temperature}
    (tmp_path / "merged" / "classifier.json").write_text(json.dumps(about))
    found = Classifier.load(tmp_path / "merged")
    texts = ["orbit rocket", "oven"]
    assert (found.labels, found.max_length) == (("x", "y", "z"), 32)
    np.testing.assert_allclose(found.logits(texts), run.logits(texts), atol=1e-5)
    assert (found.predict_proba(texts).max(axis=1) < run.predict_proba(texts).max(axis=1)).all()
