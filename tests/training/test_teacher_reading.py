"""A teacher that was trained elsewhere: what its logits are known by, and whose are refused."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import XLNetConfig, XLNetForSequenceClassification

from lora_distill.cache import Cache
from lora_distill.config import Config
from lora_distill.data.tokenising import tokenise
from lora_distill.errors import UserError
from lora_distill.model.adapter import load_classifier
from lora_distill.model.base import BaseModel
from lora_distill.model.given_teacher import GivenTeacher
from lora_distill.training import teacher_reading as reading_module
from lora_distill.training.logits import plain, predict_logits
from lora_distill.training.teacher_reading import TeacherReading
from tests.training.test_role import DATA, NO_CACHE, PLAN, SOFT, STUDENTS, TEACHERS


def test_a_given_teacher_is_known_by_its_weights_and_the_order_of_its_labels() -> None:
    given = GivenTeacher("t", "/t", None, Path("/t"), None, ["a", "b"], np.array([0, 1]), False, "weights")

    def key_of(given: GivenTeacher = given, **changes: Any) -> str:  # noqa: ANN401
        config = changes.pop("config", Config())
        parts: dict[str, Any] = {"dataset": DATA, "plan": PLAN, "cache": NO_CACHE, **changes}
        return TeacherReading(given, config, **parts).artefact().key

    before = key_of()
    for other in (
        key_of(replace(given, fingerprint="other")),
        key_of(replace(given, columns=np.array([1, 0]))),
        key_of(config=Config(max_length=77)),
        key_of(dataset=replace(DATA, fingerprint="other")),
        key_of(plan=replace(PLAN, precision="bf16")),
    ):
        assert other != before
    assert key_of(replace(given, location="copy", reference="/copy", folder=Path("/copy"))) == before
    assert key_of(config=Config(**SOFT, **TEACHERS, **STUDENTS, seed=7, learning_rate=7)) == before


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_given_teacher_that_answers_no_numbers_is_refused(
    split: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = {name: np.zeros((3, 2), np.float32) for name in ("train", "validation", "test")}
    logits[split][2, 1] = value
    monkeypatch.setattr(GivenTeacher, "load", lambda _: nn.Identity())
    answers = iter([logits["test"], logits["validation"], logits["train"]])
    monkeypatch.setattr(reading_module, "predict_logits", lambda *_: next(answers))
    monkeypatch.setattr(reading_module, "plain", lambda model: model)
    given = GivenTeacher("there", "/t", None, Path("/t"), None, ["a", "b"], np.array([0, 1]), False, "weights")
    reading = TeacherReading(given, Config(output_dir=str(tmp_path)), DATA, PLAN, NO_CACHE)
    with pytest.raises(UserError, match="--teacher_checkpoint there: answers some rows with no numbers"):
        reading.run(dict.fromkeys(("train", "validation", "test"), None))  # type: ignore[arg-type]
    assert not reading.artefact().folder.exists()


def test_a_given_teacher_that_reads_padding_as_text_is_refused(tiny_bert: BaseModel) -> None:
    rows = tokenise(["rise", "fall and sink and drop"], tiny_bert.folder, 32)
    vocabulary = int(rows.flat.max()) + 1
    sizes = {"vocab_size": vocabulary, "d_model": 8, "n_layer": 1, "n_head": 1, "d_inner": 8}
    xlnet = XLNetForSequenceClassification(XLNetConfig(**sizes, initializer_range=1.0)).eval()
    given = GivenTeacher("there", "/t", None, Path("/t"), None, ["a", "b"], np.array([0, 1]), False, "weights")
    reading = TeacherReading(given, Config(), DATA, PLAN, NO_CACHE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GivenTeacher, "load", lambda _: xlnet)
        with pytest.raises(UserError, match=r"--teacher_checkpoint there: .* reads padding as text"):
            reading.check(rows)
        whole = load_classifier(tiny_bert, ["a", "b"], seed=0).model
        patch.setattr(GivenTeacher, "load", lambda _: whole)
        reading.check(rows)


@pytest.mark.parametrize("dora", [False, True])
def test_a_given_adapter_has_as_many_parameters_as_the_same_that_is_trained(dora: bool, tiny_bert: BaseModel) -> None:
    whole = load_classifier(tiny_bert, ["a", "b"], seed=0).model
    total = sum(p.numel() for p in whole.parameters())
    assert reading_module._total_parameters(whole) == total
    settings = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"], use_dora=dora)
    assert reading_module._total_parameters(get_peft_model(whole, settings)) == total


@pytest.mark.parametrize("odd", [{"trainable_token_indices": [5, 6, 7, 8]}, {"layer_replication": [[1, 2], [0, 2]]}])
def test_what_changes_the_layers_below_an_adapter_is_not_read_with_the_base_model_s(
    odd: dict[str, Any], tiny_bert: BaseModel, tmp_path: Path
) -> None:
    """Whose outputs the cache holds by the base model's name."""
    rows = tokenise(["rise and climb", "fall and sink and drop"], tiny_bert.folder, 32)
    rows = replace(rows, flat=np.where(np.arange(len(rows.flat)) % 3 == 1, 5, rows.flat).astype(np.int32))
    cache = Cache(tmp_path / "cache", sys.maxsize)
    for name, other in {"plain": {}, "odd": odd}.items():
        base = load_classifier(tiny_bert, ["a", "b"], seed=0).model
        settings = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"], layers_to_transform=[1], **other)
        adapter = get_peft_model(base, settings)
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in adapter.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=draw))
        adapter.save_pretrained(tmp_path / name, save_embedding_layers=False)
        given = GivenTeacher(name, name, None, tmp_path / name, tiny_bert, ["a", "b"], np.array([0, 1]), False, name)
        model = given.load()
        found = TeacherReading(given, Config(), DATA, PLAN, cache)._logits(model, {"train": rows})["train"]
        assert np.abs(found - predict_logits(plain(model), rows)).max() < 1e-4
    assert cache.entries()
