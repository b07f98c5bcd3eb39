import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    ModernBertConfig,
    PreTrainedConfig,
    RobertaConfig,
)

from lora_distill.errors import UserError
from lora_distill.model.adapter import (
    AdapterSettings,
    Classifier,
    adapted_layers,
    attach_adapter,
    load_classifier,
)
from lora_distill.model.base import BaseModel, resolve_base_model
from lora_distill.model.budget import count_trainable
from lora_distill.model.layers import find_target_modules
from lora_distill.model.saved_adapter import load_adapter, save_adapter
from tests.tiny import FAMILIES, tiny_model

LABELS = ["World", "Sports", "Business", "Sci/Tech"]
LAYERS, HIDDEN = 3, 32
PREFIXES = {"bert": "bert.", "roberta": "roberta.", "distilbert": "distilbert.", "modernbert": "model."}


def settings(rank: int = 4, layers: int = 2, **other: object) -> AdapterSettings:
    values: dict[str, object] = {
        "rank": rank,
        "alpha": 2 * rank,
        "target_layers": layers,
        "target_modules": (),
        "dropout": 0.1,
        "placement": "last",
    }
    return AdapterSettings(**{**values, **other})  # type: ignore[arg-type]


def from_config(config: PreTrainedConfig) -> Classifier:
    """A full-sized model without weights, as its checkpoint would give it: only the head is fresh."""
    config.num_labels = 4
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    fresh = {name for name, _ in model.named_parameters() if not name.startswith(model.base_model_prefix + ".")}
    return Classifier(model, frozenset(fresh))


def test_roberta_base_has_the_known_counts() -> None:
    def roberta() -> Classifier:
        return from_config(RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1))

    student = count_trainable(attach_adapter(roberta(), settings(8, 6), seed=0))
    assert (student.total, student.lora, student.head) == (814_852, 221_184, 593_668)
    teacher = count_trainable(attach_adapter(roberta(), settings(16, 8), seed=0))
    assert (teacher.total, teacher.lora, teacher.head) == (1_183_492, 589_824, 593_668)


def test_known_heads_of_other_base_models() -> None:
    bert = count_trainable(attach_adapter(from_config(BertConfig()), settings(8, 6), seed=0))
    assert (bert.lora, bert.head) == (6 * 6 * 8 * 768, 3_076)
    distilbert = count_trainable(attach_adapter(from_config(DistilBertConfig()), settings(8, 6), seed=0))
    assert distilbert.head == 768 * 768 + 768 + 3_076
    modernbert = count_trainable(attach_adapter(from_config(ModernBertConfig()), settings(8, 6), seed=0))
    assert modernbert.lora == 4 * 6 * 8 * 768


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModel]:
    folder = tmp_path_factory.mktemp("tiny")
    made = {family: tiny_model(family, folder / family, layers=LAYERS, hidden=HIDDEN) for family in FAMILIES}
    made["bert without pooler"] = tiny_model("bert", folder / "bare", layers=LAYERS, hidden=HIDDEN, pooler=False)
    return {family: resolve_base_model(str(path)) for family, path in made.items()}


ALL = [*FAMILIES, "bert without pooler"]
HEADS = {
    # dense and out_proj; what the family puts before its classifier; a pooler that the checkpoint lacks
    "roberta": HIDDEN * HIDDEN + HIDDEN + 4 * HIDDEN + 4,
    "bert": 4 * HIDDEN + 4,
    "bert without pooler": HIDDEN * HIDDEN + HIDDEN + 4 * HIDDEN + 4,
    "distilbert": HIDDEN * HIDDEN + HIDDEN + 4 * HIDDEN + 4,
    "mpnet": HIDDEN * HIDDEN + HIDDEN + 4 * HIDDEN + 4,
    "deberta-v2": HIDDEN * HIDDEN + HIDDEN + 4 * HIDDEN + 4,
    "electra": HIDDEN * HIDDEN + HIDDEN + 4 * HIDDEN + 4,
    "modernbert": HIDDEN * HIDDEN + HIDDEN + 4 * HIDDEN + 4,
    "albert": 4 * HIDDEN + 4,
}


@pytest.mark.parametrize("family", ALL)
def test_lora_sits_on_query_key_and_value_of_the_last_layers(bases: dict[str, BaseModel], family: str) -> None:
    layers = 1 if family == "albert" else 2  # ALBERT has one set of weights for all of its layers
    model = attach_adapter(load_classifier(bases[family], LABELS, seed=0), settings(4, layers), seed=0)
    per_layer = (4 if family == "modernbert" else 6) * 4 * HIDDEN
    count = count_trainable(model)
    assert count.lora == layers * per_layer
    assert count.head == HEADS[family]


RICH: dict[str, Any] = {"target_modules": ("attention",), "dora": True}
STABLE: dict[str, Any] = {"target_modules": ("all-linear",), "rslora": True}


@pytest.mark.parametrize("other", [{}, RICH, STABLE], ids=["plain", "rich", "stable"])
@pytest.mark.parametrize("family", ALL)
def test_everything_freshly_drawn_is_trained_and_saved_and_reload_gives_the_same_logits(
    bases: dict[str, BaseModel], family: str, other: dict[str, Any], tmp_path: Path
) -> None:
    base = bases[family]
    layers, last = (1, 0) if family == "albert" else (2, LAYERS - 1)
    adapter = settings(4, layers, **other, rank_pattern=((last, 2),) if other else ())
    model = attach_adapter(load_classifier(base, LABELS, seed=1), adapter, seed=1)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():  # as if trained: every trainable parameter moves
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    save_adapter(model, base, LABELS, tmp_path)
    batch = AutoTokenizer.from_pretrained(tmp_path)(
        ["A text.", "Another, longer text here."], padding=True, return_tensors="pt"
    )
    ours = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    again = load_adapter(base, LABELS, tmp_path)
    assert torch.equal(again(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits, ours)

    torch.manual_seed(99)  # plain transformers and PEFT, which draw another head first
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert labels["id2label"] == dict(zip("0123", LABELS, strict=True))
    plain = AutoModelForSequenceClassification.from_pretrained(base.folder, num_labels=labels["num_labels"])
    plain = PeftModel.from_pretrained(plain, tmp_path).eval()
    assert torch.allclose(plain(**batch).logits, ours, atol=1e-5)


def test_what_is_saved_is_peft_s_own_format(bases: dict[str, BaseModel], tmp_path: Path) -> None:
    model = attach_adapter(load_classifier(bases["roberta"], LABELS, seed=0), settings(), seed=0)
    save_adapter(model, bases["roberta"], LABELS, tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["task_type"], saved["r"], saved["lora_alpha"]) == ("SEQ_CLS", 4, 8)
    assert sorted(saved["target_modules"]) == ["key", "query", "value"]
    assert saved["layers_to_transform"] == [1, 2]
    assert saved["base_model_name_or_path"] == bases["roberta"].reference
    names = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_model.safetensors", "tokenizer.json", "labels.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert (
        sum(t.numel() for t in load_file(tmp_path / "adapter_model.safetensors").values())
        == count_trainable(model).total
    )


def test_head_and_lora_are_drawn_from_the_seed(bases: dict[str, BaseModel]) -> None:
    def drawn(seed: int) -> dict[str, torch.Tensor]:
        model = attach_adapter(load_classifier(bases["bert"], LABELS, seed), settings(), seed)
        return {
            name: p for name, p in model.named_parameters() if p.requires_grad and p.ndim > 1 and "lora_B" not in name
        }

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
def test_a_head_that_came_with_the_encoder_is_drawn_anew(
    family: str, bases: dict[str, BaseModel], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may know the same classes in another order; a control would be taught by whoever made it."""
    fresh = load_classifier(bases[family], LABELS, seed=0)
    trained = {name: p for name, p in fresh.model.named_parameters() if name in fresh.fresh}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(1)
    fresh.model.save_pretrained(tmp_path / "whole")
    AutoTokenizer.from_pretrained(bases[family].folder).save_pretrained(tmp_path / "whole")
    whole = resolve_base_model(str(tmp_path / "whole"))
    drawn = [load_classifier(whole, LABELS, seed) for seed in (0, 0, 1)]
    assert "has a classification head of its own, which is drawn anew" in caplog.text
    first, again, other = (each.model.state_dict() for each in drawn)
    heads = {name for name in first if name not in fresh.model.base_model.state_dict(prefix=PREFIXES[family])}
    assert heads <= drawn[0].fresh
    for name, value in first.items():
        assert torch.equal(value, again[name])
        if name in heads and value.ndim > 1:
            assert not torch.equal(value, other[name])
        if name in heads:
            assert not torch.equal(value, trained[name])
            was = trained[name].detach().mean().item() - 1
            assert value.mean().item() == pytest.approx(was, abs=0.1)
        else:
            assert torch.equal(value, fresh.model.state_dict()[name])
    kept = load_classifier(whole, LABELS, seed=0, keeps_head=True).model.state_dict()
    assert all(torch.equal(kept[name], trained[name]) for name in heads)


def test_placement(bases: dict[str, BaseModel]) -> None:
    model = load_classifier(bases["roberta"], LABELS, seed=0).model
    assert list(adapted_layers(model, settings(layers=2, placement="first"))) == [0, 1]
    assert list(adapted_layers(model, settings(layers=2, placement="last"))) == [1, 2]


def test_more_layers_than_there_are(bases: dict[str, BaseModel]) -> None:
    with pytest.raises(UserError, match=r"has 3.*at most 3"):
        attach_adapter(load_classifier(bases["roberta"], LABELS, seed=0), settings(layers=4), seed=0)
    with pytest.raises(UserError, match="albert shares"):
        attach_adapter(load_classifier(bases["albert"], LABELS, seed=0), settings(layers=2), seed=0)


def test_a_rank_that_no_matrix_has(bases: dict[str, BaseModel]) -> None:
    with pytest.raises(UserError, match=r"rank 33.*1 to 32"):
        attach_adapter(load_classifier(bases["roberta"], LABELS, seed=0), settings(rank=33), seed=0)


def test_a_rank_stabilised_scale_is_in_the_settings_that_peft_reads(bases: dict[str, BaseModel]) -> None:
    for rslora, scale in ((False, 4.0), (True, 8.0)):
        adapter = settings(rank=4, alpha=16, rslora=rslora)
        model = attach_adapter(load_classifier(bases["roberta"], LABELS, seed=0), adapter, seed=0)
        assert model.peft_config["default"].use_rslora is rslora
        found = {module.scaling["default"] for module in model.modules() if isinstance(module, LoraLayer)}
        assert found == {scale}


OUTPUTS = {
    **dict.fromkeys(ALL, "attention.output.dense"),
    "distilbert": "attention.out_lin",
    "mpnet": "attention.attn.o",
    "modernbert": "attn.Wo",
    "albert": "attention.dense",
}


@pytest.mark.parametrize("family", ALL)
def test_attention_is_query_key_value_and_the_output_projection(bases: dict[str, BaseModel], family: str) -> None:
    adapter = settings(4, 1, target_modules=("attention",))
    model = attach_adapter(load_classifier(bases[family], LABELS, seed=0), adapter, seed=0)
    adapted = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    assert len(adapted) == (2 if family == "modernbert" else 4)
    assert sum(name.endswith(f".{OUTPUTS[family]}") for name in adapted) == 1
    per_layer = (6 if family == "modernbert" else 8) * 4 * HIDDEN
    assert count_trainable(model).lora == per_layer


@pytest.mark.parametrize("family", ALL)
def test_dora_adds_a_length_for_each_row_of_an_adapted_matrix(bases: dict[str, BaseModel], family: str) -> None:
    plain, dora = (
        count_trainable(attach_adapter(load_classifier(bases[family], LABELS, 0), settings(4, 1, dora=each), 0))
        for each in (False, True)
    )
    assert (dora.lora - plain.lora, dora.head) == (3 * HIDDEN, plain.head)


@pytest.mark.parametrize("family", ALL)
def test_layers_of_another_rank_have_the_scale_of_the_others(bases: dict[str, BaseModel], family: str) -> None:
    layers, last = (1, 0) if family == "albert" else (2, LAYERS - 1)
    for rslora, scales in ((False, {2.0}), (True, {8 / 4**0.5, 8 / 6**0.5})):
        adapter = settings(4, layers, rank_pattern=((last, 6),), rslora=rslora)
        model = attach_adapter(load_classifier(bases[family], LABELS, seed=0), adapter, seed=0)
        adapted = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
        ranks = {name: module.r["default"] for name, module in adapted.items()}
        assert {rank for name, rank in ranks.items() if f".{last}." in name} == {6}
        assert {rank for name, rank in ranks.items() if f".{last}." not in name} == ({4} if layers == 2 else set())
        found = {module.scaling["default"] for module in adapted.values()}
        assert found == (scales if layers == 2 else {min(scales)})
        per_rank = (4 if family == "modernbert" else 6) * HIDDEN
        assert count_trainable(model).lora == per_rank * (10 if layers == 2 else 6)


def test_a_rank_for_a_layer_that_is_not_adapted_or_too_large(bases: dict[str, BaseModel]) -> None:
    for pattern, told in (
        (((0, 2),), r"layer 0: was given a rank.* 3 layers.* 1 to 2"),
        (((3, 2),), r"layer 3: .*1 to 2"),
        (((2, 33),), r"rank 33.*1 to 32"),
    ):
        with pytest.raises(UserError, match=told):
            attach_adapter(load_classifier(bases["bert"], LABELS, 0), settings(rank_pattern=pattern), seed=0)


def test_all_linear_modules_by_one_name(bases: dict[str, BaseModel]) -> None:
    classifier = load_classifier(bases["bert"], LABELS, seed=0)
    assert find_target_modules(classifier.model, ("all-linear",)) == ["dense", "key", "query", "value"]
    model = attach_adapter(classifier, settings(target_modules=("all-linear",), target_layers=1, rank=1), seed=0)
    assert count_trainable(model).lora == 4 * 2 * HIDDEN + 2 * 3 * HIDDEN


def test_named_modules_are_adapted_and_unknown_ones_refused_with_those_there_are(bases: dict[str, BaseModel]) -> None:
    classifier = load_classifier(bases["distilbert"], LABELS, seed=0)
    assert find_target_modules(classifier.model) == ["q_lin", "k_lin", "v_lin"]
    with pytest.raises(
        UserError, match="no linear module query in its layers; it has k_lin, lin1, lin2, out_lin, q_lin, v_lin"
    ):
        attach_adapter(classifier, settings(target_modules=("query",)), seed=0)
    model = attach_adapter(
        load_classifier(bases["distilbert"], LABELS, seed=0), settings(target_modules=("q_lin",)), seed=0
    )
    assert count_trainable(model).lora == 2 * 2 * 4 * HIDDEN


def test_a_module_may_be_named_by_the_end_of_its_path(bases: dict[str, BaseModel]) -> None:
    """Where several have one name, as BERT's `dense`."""
    adapter = settings(4, 1, target_modules=("intermediate.dense",))
    model = attach_adapter(load_classifier(bases["bert"], LABELS, seed=0), adapter, seed=0)
    assert count_trainable(model).lora == 3 * 4 * HIDDEN


@pytest.mark.parametrize("family", ["bert", "bert without pooler", "roberta"])
def test_dense_means_the_layers_own_and_neither_pooler_nor_classifier(bases: dict[str, BaseModel], family: str) -> None:
    classifier = load_classifier(bases[family], LABELS, seed=0)
    model = attach_adapter(classifier, settings(4, LAYERS, target_modules=("dense",)), seed=0)
    adapted = {name.partition(".lora_A.")[0] for name, _ in model.named_parameters() if ".lora_A." in name}
    assert {name.partition(".layer.")[2] for name in adapted} == {
        f"{layer}.{part}.dense" for layer in range(LAYERS) for part in ("attention.output", "intermediate", "output")
    }
    count = count_trainable(model)
    assert count.lora == LAYERS * 4 * (2 + 3 + 3) * HIDDEN  # h to h, h to 2 h, 2 h to h
    assert count.head == HEADS[family]


def test_a_config_that_does_not_belong_to_the_weights(tmp_path: Path) -> None:
    folder = tiny_model("roberta", tmp_path, layers=2, hidden=HIDDEN)
    config = json.loads((folder / "config.json").read_text())
    for change in ({"num_hidden_layers": 4}, {"vocab_size": 900}, {"max_position_embeddings": 90}, {"hidden_size": 64}):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match="do not belong together"):
            load_classifier(resolve_base_model(str(folder)), LABELS, seed=0)
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "rolu"}))
    with pytest.raises(UserError, match="cannot be loaded: KeyError: 'rolu'"):
        load_classifier(resolve_base_model(str(folder)), LABELS, seed=0)


def test_a_stranger_opens_it_in_a_process_that_never_imports_us(bases: dict[str, BaseModel], tmp_path: Path) -> None:
    base = bases["mpnet"]
    model = attach_adapter(load_classifier(base, LABELS, seed=0), settings(), seed=0)
    save_adapter(model, base, LABELS, tmp_path)
    script = """
import sys, torch
from peft import AutoPeftModelForSequenceClassification
from peft.tuners.lora import LoraLayer
from transformers import AutoTokenizer
folder = sys.argv[1]
model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=4).eval()
print(model(**AutoTokenizer.from_pretrained(folder)("A text.", return_tensors="pt")).logits.tolist())
assert "lora_distill" not in sys.modules
"""
    printed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    batch = AutoTokenizer.from_pretrained(tmp_path)("A text.", return_tensors="pt")
    ours = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(torch.tensor(json.loads(printed.stdout)), ours, atol=1e-5)
