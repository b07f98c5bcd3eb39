"""What a file answers lies where a student looks for it, known by the answers alone."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from lora_distill.config import Config
from lora_distill.data.answers import Answers
from lora_distill.training.filed_teacher import FiledTeacher
from lora_distill.training.outcome import read_outcome
from tests.training.test_role import DATA

LOGITS = {"train": np.array([[1.0, 2.0]], np.float32), "validation": np.array([[0.5, 0.0]], np.float32)}
ANSWERS = Answers("answers.csv", "bytes", LOGITS, [])


def teacher(folder: Path, answers: Answers = ANSWERS, **settings: object) -> FiledTeacher:
    return FiledTeacher(answers, Config(**{"output_dir": str(folder), **settings}), DATA)


def test_it_is_known_by_its_answers(tmp_path: Path) -> None:
    key = teacher(tmp_path).artefact().key
    elsewhere = replace(ANSWERS, location="other.tsv", revision="others", notes=["read"])
    assert teacher(tmp_path, elsewhere, seed=7, learning_rate=7.0, alpha=0.7).artefact().key == key
    others = replace(ANSWERS, logits=LOGITS | {"train": LOGITS["train"] + 1})
    fewer = replace(ANSWERS, logits={"train": LOGITS["train"]})
    data = replace(teacher(tmp_path), dataset=replace(DATA, fingerprint="other"))
    keys = [teacher(tmp_path, answers).artefact().key for answers in (others, fewer)] + [data.artefact().key]
    assert len({key, *keys}) == 4


def test_its_answers_are_put_into_the_store_once(tmp_path: Path) -> None:
    filed = teacher(tmp_path)
    outcome = filed.run({})
    assert not outcome.reused
    assert outcome.facts["file"] == "answers.csv"
    assert outcome.adapters == {}
    written = read_outcome(filed.artefact(), reused=True).logits
    assert {name: each.tolist() for name, each in written.items()} == {k: v.tolist() for k, v in LOGITS.items()}
    assert filed.run({}).reused
    assert not filed.run({}, since=time.time() + 1).reused
