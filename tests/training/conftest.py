"""A tiny classifier and rows that it can learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import PeftModel

from lora_distill.config import Config, make_config
from lora_distill.data.tokenising import tokenise
from lora_distill.model.adapter import AdapterSettings, attach_adapter, load_classifier
from lora_distill.model.base import BaseModel, resolve_base_model
from lora_distill.training import loop
from lora_distill.training import role as role_module
from lora_distill.training.plan import ExecutionPlan
from lora_distill.training.recipe import Split, TrainingSettings
from tests.end_to_end.conftest import small_values, write_rows
from tests.tiny import tiny_model

CPU = ExecutionPlan("cpu", "fp32", 1)
ADAPTER = AdapterSettings(4, 8, 2, (), 0.1, "last")
RECIPE = TrainingSettings(
    learning_rate=1e-2,
    batch_size=8,
    num_epochs=3,
    weight_decay=0.01,
    warmup_ratio=0.1,
    lr_schedule="linear",
    max_grad_norm=1.0,
    keep_epoch="best",
    early_stopping_patience=0,
    logging_steps=2,
    class_weights="none",
    label_smoothing=0.0,
    labelled_per_batch=0,
    lora_plus_ratio=1.0,
)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return resolve_base_model(str(tiny_model("bert", tmp_path_factory.mktemp("tiny") / "bert", layers=2)))


@pytest.fixture
def make_model(tiny_bert: BaseModel) -> Callable[[], PeftModel]:
    return lambda: attach_adapter(load_classifier(tiny_bert, ["up", "down"], seed=0), ADAPTER, seed=0)


def split_of(folder: Path, rows: int, seed: int) -> Split:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, rows)
    words = [["rise", "climb", "ascend"], ["fall", "sink", "drop"]]
    texts = [" ".join(draw.choice(words[label], size=draw.integers(2, 9))) for label in labels]
    return Split(tokenise(texts, folder, 32), labels.astype(np.int64))


@pytest.fixture
def with_texts(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[..., Config]:
    """What makes the config of a run with texts without labels beside its rows, and with these settings."""

    def make(**settings: Any) -> Config:  # noqa: ANN401
        rows, texts = write_rows(tmp_path / "rows.csv", 60), write_rows(tmp_path / "texts.csv", 50, seed=1)
        more = {"output_dir": str(tmp_path / "out"), "exp_name": "run", "num_epochs": 1}
        more |= {"unlabelled": str(texts), "labelled_per_batch": 3}
        return make_config(small_values(tiny("roberta"), rows) | more | settings, {})

    return make


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The soft logits, float32 [N, C], that each role is trained with, or None, by role as they are trained."""
    of_each: dict[str, Any] = {}

    def see(*arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
        of_each[settings["role"]] = settings["soft_labels"] and settings["soft_labels"].logits
        return loop.train(*arguments, **settings)

    monkeypatch.setattr(role_module, "train", see)
    return of_each


@pytest.fixture(scope="session")
def training_rows(tiny_bert: BaseModel) -> Split:
    return split_of(tiny_bert.folder, 48, seed=1)


@pytest.fixture(scope="session")
def validation_rows(tiny_bert: BaseModel) -> Split:
    return split_of(tiny_bert.folder, 24, seed=2)
