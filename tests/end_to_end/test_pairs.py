"""Rows of two texts that are judged together, from the command to what a stranger gets of what it leaves."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.end_to_end.conftest import (
    WORDS,
    Command,
    card_logits,
    evaluation_of,
    flags_of,
    logits_of,
    run_command,
    small_values,
    untaught_values,
)
from tests.end_to_end.exported_forms import assert_every_form_answers_as
from tests.end_to_end.refusal import assert_refused

COLUMNS = {"text_column": "premise", "text_pair_column": "hypothesis"}
LABELS = ["other", "same"]


def write_pairs(path: Path, rows: int, seed: int = 0) -> Path:
    """A CSV of pairs: whether both texts are of one topic is their label."""
    draw = np.random.default_rng(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["premise", "hypothesis", "label"])
        for number in range(rows):
            first, second = draw.choice(list(WORDS), size=2, replace=False)
            topics = (first, first if number % 2 else second)
            texts = [" ".join(draw.choice(WORDS[topic], size=draw.integers(2, 14))) for topic in topics]
            writer.writerow([*texts, LABELS[number % 2]])
    return path


def settings(base: Path, rows: Path, **changes: object) -> list[str]:
    values = untaught_values if "teacher_checkpoint" in changes else small_values
    return flags_of(values(base, rows) | COLUMNS | {"num_epochs": 1, "max_length": 16} | changes)


@pytest.fixture(scope="module")
def pair_run(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Read it, do not write into it."""
    folder = tmp_path_factory.mktemp("pairs")
    rows, more = write_pairs(folder / "rows.csv", 60), write_pairs(folder / "more.csv", 20, seed=1)
    flags = settings(tiny("bert"), rows, unlabelled=more, exp_name="run", output_dir=folder)
    done = run_command("train", *flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def columns_of(run: Path) -> tuple[list[str], list[str]]:
    table = pq.read_table(run / "predictions.parquet")
    return table["text"].to_pylist(), table["text_pair"].to_pylist()


def test_the_card_s_own_code_gets_the_logits_of_every_role(pair_run: Path) -> None:
    firsts, seconds = columns_of(pair_run)
    with (pair_run.parent / "rows.csv").open(encoding="utf-8") as file:
        given = {(row["premise"], row["hypothesis"]) for row in csv.DictReader(file)}
    assert set(zip(firsts, seconds, strict=True)) < given
    for role in ("teacher", "student", "control", "self-trained"):
        card = (pair_run / role / "README.md").read_text()
        assert "A classifier of pairs of texts into 2 classes" in card
        found = card_logits(pair_run, role, texts=firsts, others=seconds)
        assert np.abs(found - logits_of(pair_run, role)).max() < 1e-5


def test_every_exported_form_reads_both_texts(pair_run: Path, tmp_path: Path) -> None:
    assert_every_form_answers_as(pair_run, tmp_path)
    inputs = [each.name for each in onnx.load(tmp_path / "onnx" / "onnx" / "model.onnx").graph.input]
    assert inputs == ["input_ids", "attention_mask", "token_type_ids"]


def test_both_texts_are_shown_and_judged_elsewhere(pair_run: Path, call: Command) -> None:
    page, (firsts, seconds) = (pair_run / "report.html").read_text(encoding="utf-8"), columns_of(pair_run)
    assert any(f"<td>{first}<br>{second}</td>" in page for first, second in zip(firsts, seconds, strict=True))
    rows = write_pairs(pair_run.parent / "others.csv", 30, seed=2)
    done = call("evaluate", pair_run, "--dataset", rows, *flags_of(COLUMNS))
    assert done.returncode == 0, done.stderr
    assert evaluation_of(pair_run)["data"]["test_rows"] == 30
    assert_refused(
        call("evaluate", pair_run, "--dataset", rows, "--text_column", "premise"),
        "was trained on pairs of texts",
        "--text_pair_column",
    )


def test_a_given_teacher_reads_both_texts_by_its_own_tokenizer(
    pair_run: Path, call: Command, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    names = dict(enumerate(reversed(LABELS)))
    whole = AutoModelForSequenceClassification.from_pretrained(tiny("electra"), num_labels=2, id2label=names).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny("electra"))
    for each in (whole, tokenizer):
        each.save_pretrained(tmp_path / "whole")
    rows = pair_run.parent / "rows.csv"
    flags = settings(tiny("mpnet"), rows, teacher_checkpoint=tmp_path / "whole", exp_name="given", output_dir=tmp_path)
    done = call("train", *flags, "--no_control")
    assert done.returncode == 0, done.stderr
    firsts, seconds = columns_of(tmp_path / "given")
    batch = tokenizer(firsts, seconds, truncation=True, max_length=16, padding=True, return_tensors="pt")
    assert batch["token_type_ids"].any()
    with torch.inference_mode():
        expected = whole(**batch).logits[:, [1, 0]].numpy()
    assert np.abs(logits_of(tmp_path / "given", "teacher") - expected).max() < 1e-5


def test_a_run_of_single_texts_is_not_judged_on_pairs(small_run: Path, pair_run: Path, call: Command) -> None:
    done = call("evaluate", small_run, "--dataset", pair_run.parent / "rows.csv", *flags_of(COLUMNS))
    assert_refused(done, "--text_pair_column hypothesis", "was trained on single texts. Leave it out.")
