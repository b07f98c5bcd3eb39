"""`--long_text`: training, test, `evaluate` and the card's code read the same of a text that is too long."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
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
    metrics_of,
    untaught_values,
    write_rows,
)
from tests.end_to_end.exported_forms import assert_every_form_answers_as


@pytest.fixture
def whole(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A whole ELECTRA classifier with random weights."""
    torch.manual_seed(0)
    names = dict(enumerate(sorted(WORDS)))
    model = AutoModelForSequenceClassification.from_pretrained(tiny("electra"), num_labels=len(names), id2label=names)
    for each in (model, AutoTokenizer.from_pretrained(tiny("electra"))):
        each.save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize(
    ("long_text", "note", "said"),
    [
        ("head_tail", "texts are longer than 16 tokens and lost their middle", "reads the first 4 and the last 12."),
        ("chunk_mean", "texts are longer than 8 chunks of 16 tokens and were cut", "in chunks of so many"),
    ],
)
def test_all_that_reads_texts_reads_the_same(
    long_text: str, note: str, said: str, whole: Path, call: Command, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.csv", 60)
    with rows.open("a", encoding="utf-8") as file:
        file.write(f"{'orbit rocket ' * 200},space\n")
    changes = {"num_epochs": 1, "max_length": 16, "long_text": long_text, "teacher_checkpoint": whole}
    flags = flags_of(untaught_values(tiny("bert"), rows) | changes | {"exp_name": "run", "output_dir": tmp_path})
    done = call("train", *flags, "--no_control")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert note in (run / "train.log").read_text()
    card = (run / "student" / "README.md").read_text()
    assert said in card
    table = pq.read_table(run / "predictions.parquet")
    assert np.abs(card_logits(run, "student", texts=table["text"].to_pylist()) - logits_of(run, "student")).max() < 1e-5
    assert_every_form_answers_as(run, tmp_path / "exported")
    with (tmp_path / "test.csv").open("w", newline="", encoding="utf-8") as file:
        names = metrics_of(run)["data"]["label_names"]
        pairs = zip(table["text"].to_pylist(), (names[label] for label in table["label"].to_pylist()), strict=True)
        csv.writer(file).writerows([("text", "label"), *pairs])
    judged = call("evaluate", run, "--dataset", tmp_path / "test.csv")
    assert judged.returncode == 0, judged.stderr
    for role in ("teacher", "student"):
        ours, again = (each[role]["test"]["nll"] for each in (metrics_of(run), evaluation_of(run)))
        assert again == pytest.approx(ours, abs=1e-6)
