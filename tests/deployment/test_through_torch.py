"""What lies by itself and is opened through torch must fit together."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lora_distill.deployment import through_torch
from lora_distill.deployment.classifier import Classifier
from lora_distill.errors import UserError
from tests.deployment.exported import READING
from tests.tiny import tiny_model


def test_labels_of_another_number_than_logits_are_refused(tmp_path: Path) -> None:
    folder = tiny_model("bert", tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder, id2label=dict(enumerate("abc")))
    model.save_pretrained(folder)
    about = {"form": "merged", **READING, "temperature": 1.0, "made_from": {}, "made_with": {}}
    (folder / "classifier.json").write_text(json.dumps(about | {"labels": ["a", "b", "c"]}))
    assert Classifier.load(folder).logits(["a text"]).shape == (1, 3)
    (folder / "classifier.json").write_text(json.dumps(about | {"labels": ["a", "b"]}))
    with pytest.raises(UserError, match=r"its classifier\.json is missing or damaged: it has 2 labels for 3 logits"):
        Classifier.load(folder)


@pytest.mark.parametrize(("asked", "computing"), [(None, 1), (2, 2)])
def test_it_computes_on_no_more_threads_than_there_are_cores_for_it(
    asked: int | None, computing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = tiny_model("bert", tmp_path / "model"), torch.get_num_threads()
    AutoModelForSequenceClassification.from_pretrained(folder, id2label=dict(enumerate("ab"))).save_pretrained(folder)
    monkeypatch.setattr(through_torch, "cores", lambda: 1)
    torch.set_num_threads(4)
    try:
        Classifier.load(folder, threads=asked)
        assert torch.get_num_threads() == computing
    finally:
        torch.set_num_threads(before)
