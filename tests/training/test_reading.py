"""What frozen layers give is found again only where it would come out the same."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from lora_distill.cache import Cache
from lora_distill.model.base import BaseModel
from lora_distill.model.split import SplitClassifier
from lora_distill.training import reading as reading_module
from lora_distill.training.activations import keep_activations
from lora_distill.training.reading import Reading
from lora_distill.training.recipe import Split
from tests.training.conftest import CPU


def test_the_cache_s_recipe_holds_all_that_decides_the_bits(
    tiny_bert: BaseModel,
    make_model: Callable[[], PeftModel],
    training_rows: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipes: list[dict[str, Any]] = []
    keep = keep_activations

    def see(network: Any, tokens: Any, cache: Cache, recipe: dict[str, Any], title: str) -> Any:  # noqa: ANN401
        recipes.append(recipe)
        return keep(network, tokens, cache, recipe, title)

    monkeypatch.setattr(reading_module, "keep_activations", see)
    model, tokens = make_model(), training_rows.rows
    plain = Reading("student", tiny_bert, CPU, Cache(tmp_path, 0))
    network = SplitClassifier(model, torch.float32)

    def read(reading: Reading, network: SplitClassifier) -> dict[str, Any]:
        reading.rows(network, {"train": tokens})  # type: ignore[dict-item]
        return recipes[-1]

    usual = read(plain, network)
    assert read(replace(plain, role="teacher"), SplitClassifier(model, torch.float32)) == usual  # all roles share it
    others = [
        read(plain, SplitClassifier(model, torch.bfloat16)),
        read(plain, SplitClassifier(model, torch.float32, lean=False)),
        read(replace(plain, base=replace(tiny_bert, fingerprint="other")), network),
        read(replace(plain, plan=replace(CPU, threads=2)), network),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(reading_module, "machine", lambda _: "another")
        others.append(read(plain, network))
    monkeypatch.setattr(reading_module, "versions", lambda: {"torch": "another"})
    others.append(read(plain, network))
    assert all(other != usual for other in others)
