"""A classifier run in two parts, lean or not, computes what transformers and PEFT compute."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoTokenizer

from lora_distill.data.batches import Batch
from lora_distill.data.tokenising import tokenise
from lora_distill.model import frozen
from lora_distill.model.adapter import AdapterSettings, attach_adapter, load_classifier
from lora_distill.model.base import resolve_base_model
from lora_distill.model.dropout import Dropout
from lora_distill.model.layers import FAMILIES as KNOWN
from lora_distill.model.lean import attend_by_products, attend_fused
from lora_distill.model.packing import rounded
from lora_distill.model.split import SplitClassifier, is_plain_lora
from tests.tiny import FAMILIES, RARE

Tiny = Callable[[str], Path]
TEXTS = [
    "A short one.",
    "Another text, which is a good deal longer than the first one is.",
    "So. Is it?",
    "Three words more.",
]
LEAN = {"bert", "roberta", "distilbert", "mpnet", "electra"}
WHOLE = {"albert", "deberta-v2 with convolution", "longformer"}


def settings(placement: str = "last", modules: tuple[str, ...] = ()) -> AdapterSettings:
    return AdapterSettings(4, 8, 1 if placement == "first" else 2, modules, 0.0, placement)


def split(folder: Path, adapter: AdapterSettings, dtype: torch.dtype = torch.float32, *, lean: bool) -> SplitClassifier:
    classifier = load_classifier(resolve_base_model(str(folder)), ["a", "b", "c"], seed=0)
    layers = classifier.model.config.num_hidden_layers
    if classifier.model.config.model_type == "albert":
        adapter = replace(adapter, target_layers=1, placement="last")
    if classifier.model.config.model_type == "deberta":  # whose query, key and value are one module
        adapter = replace(adapter, target_modules=("in_proj",))
    model = attach_adapter(classifier, adapter, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # at zero, A would have no gradient
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(layers))
    return SplitClassifier(model, dtype, lean=lean)


def batch_of(folder: Path, texts: list[str] = TEXTS) -> Batch:
    return tokenise(texts, folder, 64).batch(np.arange(len(texts)))


def gradients(network: SplitClassifier, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    parameters = {name: p for name, p in network.model.named_parameters() if p.requires_grad}
    weights = torch.linspace(-1, 1, logits.numel(), device=logits.device).view_as(logits)
    return dict(zip(parameters, torch.autograd.grad((logits * weights).sum(), list(parameters.values())), strict=True))


def assert_close(one: torch.Tensor, other: torch.Tensor, relative: float = 1e-5) -> None:
    assert float((one - other).detach().abs().max()) <= relative * max(float(other.detach().abs().max()), 1e-6)


@pytest.mark.parametrize("placement", ["last", "first"])
@pytest.mark.parametrize("family", [*FAMILIES, *RARE])
def test_the_same_logits_and_gradients_as_the_plain_model_s(family: str, placement: str, tiny: Tiny) -> None:
    folder = tiny(family)
    batch = batch_of(folder)
    expected_of = split(folder, settings(placement), lean=False)
    expected_of.eval()
    expected = expected_of.model(**batch.inputs()).logits
    wanted = gradients(expected_of, expected)
    for lean in (False, True):
        network = split(folder, settings(placement), lean=lean)
        network.eval()
        assert network.lean == (lean and family in LEAN)
        assert network.depth == (1 if placement == "last" and family not in WHOLE else 0)
        kept = replace(batch, hidden=network.prefix(batch)) if network.depth or network.lean else batch
        for logits in (network.logits(kept), network.logits(batch)):
            assert_close(logits, expected)
            found = gradients(network, logits)
            assert found.keys() == wanted.keys()
            for name, gradient in found.items():
                assert_close(gradient, wanted[name])


@pytest.mark.parametrize("family", ["camembert", "xlm-roberta"])
def test_what_is_a_roberta_by_another_name_is_split_as_one(family: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("roberta"), tmp_path / family))
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": family}))
    network = split(folder, settings(), lean=False)
    network.eval()
    assert (network.classifier.config.model_type, network.depth) == (family, 1)
    assert_close(network.logits(batch_of(folder)), network.model(**batch_of(folder).inputs()).logits)


def test_every_family_that_is_split_is_held_against_transformers() -> None:
    assert {*KNOWN} == ({*FAMILIES, *RARE} - (WHOLE - {"albert"})) | {"camembert", "xlm-roberta"}


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_get_the_logits_that_plain_transformers_gives_them(family: str, tiny: Tiny) -> None:
    folder = tiny(family)
    pairs = [(TEXTS[1], TEXTS[0]), (TEXTS[2], TEXTS[3]), (TEXTS[0], TEXTS[1] * 8)]
    firsts, seconds = map(list, zip(*pairs, strict=True))
    batch = tokenise(pairs, folder, 64).batch(np.arange(len(pairs)))
    inputs = AutoTokenizer.from_pretrained(folder)(
        firsts, seconds, truncation=True, max_length=64, padding=True, return_tensors="pt"
    )
    for lean in (False, True):
        network = split(folder, settings(), lean=lean)
        network.eval()
        with torch.inference_mode():
            expected = network.model(**inputs).logits
            assert (network.logits(batch) - expected).abs().max() <= 1e-5
            if batch.segments is not None:
                swapped = network.logits(replace(batch, segments=(1 - batch.segments) * batch.attention_mask))
                assert (swapped - expected).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "albert"])
def test_a_prefix_may_go_on_from_a_shallower_one(family: str, dtype: torch.dtype, tiny: Tiny) -> None:
    """To the same bits: a run must not depend on what the cache happened to hold."""
    network = split(tiny(family), AdapterSettings(4, 8, 1, (), 0.0, "last"), dtype, lean=True)
    shallower = split(tiny(family), settings(), dtype, lean=True)
    for each in (network, shallower):
        each.eval()
    assert (network.depth, shallower.depth) == (2, 1)
    batch = batch_of(tiny(family))
    half_way = shallower.prefix(batch)
    assert half_way.dtype == dtype
    assert torch.equal(network.prefix(replace(batch, hidden=half_way), 1), network.prefix(batch))


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("family", sorted(LEAN))
def test_in_bfloat16_lean_layers_are_as_near_to_fp32_as_plain_ones(family: str, dora: bool, tiny: Tiny) -> None:
    batch, adapter = batch_of(tiny(family)), replace(settings(), dora=dora)
    exact = split(tiny(family), adapter, lean=False)
    wanted = gradients(exact, exact.logits(batch))
    for lean in (False, True):
        rounded = split(tiny(family), adapter, torch.bfloat16, lean=lean)
        for name, gradient in gradients(rounded, rounded.logits(batch)).items():
            assert_close(gradient, wanted[name], relative=0.1)


@pytest.mark.parametrize(
    "modules", [("dense",), ("query", "value"), ("query", "key", "value", "dense"), ("attention",), ("all-linear",)]
)
@pytest.mark.parametrize("dora", [False, True])
def test_lora_may_sit_on_any_linear_module_with_a_rank_of_its_own(
    modules: tuple[str, ...], dora: bool, tiny: Tiny
) -> None:
    batch = batch_of(tiny("roberta"))
    adapter = replace(settings(modules=modules), rslora="query" in modules, rank_pattern=((1, 2), (2, 7)), dora=dora)
    plain, lean = (split(tiny("roberta"), adapter, lean=each) for each in (False, True))
    assert lean.lean
    wanted, found = (gradients(network, network.logits(batch)) for network in (plain, lean))
    for name, gradient in found.items():
        assert_close(gradient, wanted[name])


class Same(torch.nn.Dropout):
    """A dropout that always drops the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return kept(x) * 1.5


def kept(x: torch.Tensor) -> torch.Tensor:
    """Two thirds of it."""
    return x * (torch.arange(x.shape[-1]) % 3 > 0)


class SameWhereLoraDrops(Dropout):
    """The same for lean layers, whose other dropouts have other rates."""

    def thin(self, x: torch.Tensor, rate: float) -> tuple[torch.Tensor, float]:
        return (kept(x), 1.5) if rate == 0.25 else (x, 1.0)


@pytest.mark.parametrize("family", sorted(LEAN))
def test_what_is_dropped_before_dora_is_missing_from_the_weights_part_too(family: str, tiny: Tiny) -> None:
    adapter = replace(settings(modules=("all-linear",)), dora=True, dropout=0.25)
    batch = batch_of(tiny(family))
    plain, lean = (split(tiny(family), adapter, lean=each) for each in (False, True))
    plain.eval()
    for module in plain.model.modules():
        if isinstance(module, LoraLayer):
            module.training = True
            module.lora_dropout["default"] = Same(0.25)
    lean.eval()
    undropped = lean.logits(batch)
    lean._dropout = SameWhereLoraDrops()
    wanted, found = (gradients(network, network.logits(batch)) for network in (plain, lean))
    assert not torch.allclose(lean.logits(batch), undropped)
    assert any("magnitude" in name for name in found)
    for name, gradient in found.items():
        assert_close(gradient, wanted[name])


@pytest.mark.parametrize("family", [*FAMILIES, "longformer"])
def test_dropout_is_on_from_the_first_adapted_layer_upwards_only(family: str, tiny: Tiny) -> None:
    network = split(tiny(family), AdapterSettings(4, 8, 1, (), 0.1, "last"), lean=True)
    network.train(seed=0)
    training = {
        name for name, module in network.model.named_modules() if module.training and "ropout" in type(module).__name__
    }
    assert any("classifier" in name or ".head." in name or name.endswith(("dropout", "drop")) for name in training)
    assert any("lora_dropout" in name for name in training)
    assert not any("embeddings" in name for name in training)
    if family != "albert":
        assert not any(f".{index}." in name for name in training for index in range(2))
        assert any(".2." in name for name in training)


@pytest.mark.parametrize("family", ["roberta", "modernbert"])
def test_dropout_is_drawn_from_the_seed(family: str, tiny: Tiny) -> None:
    network = split(tiny(family), replace(settings(), dropout=0.1), lean=True)
    batch = batch_of(tiny(family))

    def drawn(seed: int) -> list[torch.Tensor]:
        network.train(seed)
        return [network.logits(batch).detach() for _ in range(2)]

    first, second = drawn(0)
    assert not torch.equal(first, second)
    assert torch.equal(torch.stack(drawn(0)), torch.stack([first, second]))
    assert not torch.equal(drawn(1)[0], first)
    network.eval()
    assert torch.equal(network.logits(batch), network.logits(batch))


@pytest.mark.parametrize("family", FAMILIES)
def test_twenty_steps_come_to_the_same(family: str, tiny: Tiny) -> None:
    """As PEFT runs the model, in two parts, and lean; the frozen layers' outputs kept or not."""
    batch, targets = batch_of(tiny(family)), torch.tensor([0, 1, 2, 0])

    def end(*, lean: bool, whole: bool = False, kept: bool = False) -> torch.Tensor:
        network = split(tiny(family), settings(), lean=lean)
        network.eval()  # the models' own dropout is on otherwise
        read = replace(batch, hidden=network.prefix(batch)) if kept and network.depth else batch
        parameters = [p for p in network.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-2)
        for step in range(21):
            logits = network.model(**batch.inputs()).logits if whole else network.logits(read)
            if step < 20:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(logits, targets).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return logits.detach()

    expected = end(lean=False, whole=True)
    assert float((expected - split(tiny(family), settings(), lean=False).logits(batch)).detach().abs().max()) > 0.1
    for ours in (end(lean=False), end(lean=True), end(lean=True, kept=True)):
        assert float((ours - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("family", sorted(LEAN))
def test_a_lean_step_waits_for_nothing_of_the_device(family: str, tiny: Tiny) -> None:
    """What looks at a number of the device makes a GPU wait, and fails on the one that holds none."""
    network = split(tiny(family), settings(), lean=True)
    network.model.to("meta")
    network.eval()
    batch = batch_of(tiny(family))
    kept = torch.zeros(*batch.input_ids.shape, network.classifier.config.hidden_size)
    logits = network.logits(replace(batch, hidden=kept))
    assert (logits.device.type, logits.shape) == ("meta", (len(TEXTS), 3))
    assert {each.device.type for each in gradients(network, logits).values()} == {"meta"}


def test_fused_attention_is_the_same() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, length, 8, generator=draw) for length in (4, 5, 5))
    bias = torch.randn(2, 1, 1, 5, generator=draw)
    by_products, fused = (attend(q, k, v, bias, 0.5, Dropout()) for attend in (attend_by_products, attend_fused))
    assert_close(fused, by_products)
    dropped = attend_fused(q, k, v, bias, 0.5, Dropout.of(0, torch.device("cpu")))
    assert not torch.allclose(dropped, fused)


@pytest.mark.parametrize(
    "odd",
    [
        {"alora_invocation_tokens": [1]},
        {"lora_bias": True},
        {"bias": "all"},
        {"modules_to_save": ["query"]},
        {"trainable_token_indices": [5]},
        {"layer_replication": [[0, 2], [1, 3]]},
    ],
)
def test_another_kind_of_adapter_is_not_run_lean(odd: dict[str, Any], tiny: Tiny) -> None:
    model = load_classifier(resolve_base_model(str(tiny("bert"))), ["a", "b"], seed=0).model
    plain: dict[str, Any] = {"task_type": "SEQ_CLS", "target_modules": ["value"]}
    for usual in ({}, {"use_dora": True}):
        assert is_plain_lora(get_peft_model(copy.deepcopy(model), LoraConfig(**plain | usual)))
    assert not is_plain_lora(get_peft_model(copy.deepcopy(model), LoraConfig(**plain | odd)))
    embedded = LoraConfig(task_type="SEQ_CLS", target_modules=["value", "word_embeddings"])
    assert not is_plain_lora(get_peft_model(copy.deepcopy(model), embedded))


def test_a_model_that_reads_from_left_to_right_is_not_run_lean(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny("roberta"), tmp_path / "causal")
    settings_file = tmp_path / "causal" / "config.json"
    settings_file.write_text(json.dumps(json.loads(settings_file.read_text()) | {"is_decoder": True}))
    network = split(tmp_path / "causal", settings(), lean=True)
    assert not network.lean
    batch = batch_of(tiny("roberta"))
    network.eval()
    assert_close(network.logits(batch), network.model(**batch.inputs()).logits)


@pytest.mark.parametrize("family", sorted(LEAN))
def test_nothing_but_attention_computes_on_padding(family: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    network = split(tiny(family), settings(), lean=True)
    batch, computed = batch_of(tiny(family)), set[int]()
    product = frozen.Frozen.forward

    def counted(self: frozen.Frozen, x: torch.Tensor) -> torch.Tensor:
        computed.add(len(x))
        return product(self, x)

    monkeypatch.setattr(frozen.Frozen, "forward", counted)
    network.logits(batch)
    assert int(batch.attention_mask.sum()) < batch.input_ids.numel()
    assert computed == {rounded(int(batch.attention_mask.sum())), len(batch.rows)}


def test_where_weights_cannot_be_packed_plain_products_do(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(tiny("roberta"))
    packed = split(tiny("roberta"), settings(), lean=True)
    wanted = gradients(packed, packed.logits(batch))
    monkeypatch.setattr(frozen, "_can_pack", lambda _: False)
    plain = split(tiny("roberta"), settings(), lean=True)
    for name, gradient in gradients(plain, plain.logits(batch)).items():
        assert_close(gradient, wanted[name])


def test_a_weight_that_is_trained_is_not_taken_for_a_frozen_one() -> None:
    with pytest.raises(AssertionError, match="is trained"):
        frozen.Frozen([torch.nn.Linear(4, 4)], torch.float32)


@pytest.mark.parametrize("family", sorted(LEAN))
def test_drops_out_where_the_plain_model_does_and_as_much(
    family: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny(family), tmp_path / family))
    rates = {"attention_probs_dropout_prob": 0.11, "hidden_dropout_prob": 0.22, "classifier_dropout": 0.33}
    if family == "distilbert":
        rates = {"attention_dropout": 0.11, "dropout": 0.22, "seq_classif_dropout": 0.33}
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | rates))
    asked: list[float] = []

    def plainly(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        asked.extend([p] if training and p else [])
        return x

    def fused(*arguments: Any, dropout_p: float = 0.0, **named: Any) -> torch.Tensor:  # noqa: ANN401
        asked.extend([dropout_p] if dropout_p else [])
        return attention(*arguments, **named)

    def leanly(dropout: Dropout, x: torch.Tensor, rate: float) -> tuple[torch.Tensor, float]:
        asked.extend([rate] if dropout.is_on and rate else [])
        return x, 1.0

    attention = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "dropout", plainly)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused)
    monkeypatch.setattr(Dropout, "thin", leanly)
    found = []
    for lean in (True, False):
        asked.clear()
        network = split(folder, settings(), lean=lean)
        network.train(0)
        network.logits(batch_of(folder))
        found.append(list(asked))
    assert found[0] == found[1]
    assert {0.11, 0.22} <= set(found[0])
    assert len(found[0]) >= 4
