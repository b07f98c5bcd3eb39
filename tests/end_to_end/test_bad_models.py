"""Base models and teachers that cannot be used: a few lines that say what to do, and nothing left behind."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    T5Config,
)

from tests.end_to_end.conftest import Command
from tests.end_to_end.refusal import Change, World, file, remove, rewrite, train

WEIGHTS = "model.safetensors"


def cut(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1000])


def rename(name: str, other: str) -> Change:
    return lambda folder: (folder / name).rename(folder / other)


def be(config: PreTrainedConfig) -> Change:
    change: Change = config.save_pretrained
    return change


def learn_a_word(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["word3"])
    tokenizer.save_pretrained(folder)


BASES: list[tuple[Change, list[str]]] = [
    (remove("config.json"), ["holds no config.json", "save_pretrained"]),
    (file("config.json", "{"), ["config.json", "not a valid JSON"]),
    (file("config.json", "[]"), ["config.json", "model_type"]),
    (rewrite("config.json", model_type="unheard_of"), ["config.json", "unheard_of"]),
    (rewrite("config.json", hidden_size="big"), ["config.json", "hidden_size"]),
    (rewrite("config.json", hidden_act="rolu"), ["cannot be loaded", "rolu"]),
    (rewrite("config.json", num_hidden_layers=5), ["do not belong together"]),
    (rewrite("config.json", hidden_size=64), ["do not belong together"]),
    (rewrite("config.json", vocab_size=900), ["do not belong together"]),
    (rewrite("config.json", vocab_size=90), ["tokenizer", "the model has 90 embeddings"]),
    (rewrite("config.json", pad_token_id=None), ["pad_token_id"]),
    (be(GPT2Config(vocab_size=600)), ["is a gpt2", "no encoder", "roberta-base"]),
    (be(LlamaConfig(vocab_size=600)), ["is a llama", "no encoder"]),
    (be(BartConfig()), ["is a bart", "no encoder"]),
    (be(T5Config()), ["is a t5", "no encoder"]),
    (remove(WEIGHTS), ["no weights in safetensors", "save_pretrained"]),
    (rename(WEIGHTS, "pytorch_model.bin"), ["no weights in safetensors", "can carry code"]),
    (file(WEIGHTS, "junk"), [WEIGHTS, "broken", "again"]),
    (file(WEIGHTS, ""), [WEIGHTS, "broken"]),
    (cut(WEIGHTS), [WEIGHTS, "cut short"]),
    (remove("tokenizer.json"), ["no fast tokenizer", "tokenizer.json"]),
    (file("tokenizer.json", "{"), ["tokenizer cannot be used"]),
    (learn_a_word, ["'word3'", "tokenizer and weights do not belong together"]),
    (file("adapter_config.json", "{}"), ["PEFT adapter", "--teacher_checkpoint"]),
]


@pytest.mark.parametrize(("change", "parts"), BASES)
def test_base_models(world: World, change: Change, parts: list[str]) -> None:
    change(shutil.copytree((world.folder / "base").resolve(), world.folder / "broken"))
    world.refuses(train("--base_model", "broken"), "base model broken: ", *parts)


@pytest.fixture(scope="module")
def whole_source(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole classifier of the good rows' labels, never trained."""
    folder = tmp_path_factory.mktemp("whole")
    names = {"id2label": {0: "b", 1: "a"}, "label2id": {"b": 0, "a": 1}}
    AutoModelForSequenceClassification.from_pretrained(tiny("bert"), **names).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter_source(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's adapter, never trained."""
    folder = tmp_path_factory.mktemp("adapter")
    model = AutoModelForSequenceClassification.from_pretrained(tiny("bert"), num_labels=2)
    get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"])).save_pretrained(folder)
    return folder


OTHER_NAMES = rewrite("config.json", id2label={"0": "good", "1": "bad"}, label2id={"good": 0, "bad": 1})
ONE_MORE = rewrite("config.json", id2label={"0": "a", "1": "b", "2": "c"}, label2id={"a": 0, "b": 1, "c": 2})
WHOLES: list[tuple[Change, list[str], list[str]]] = [
    (OTHER_NAMES, [], ["other labels", "'good', 'bad'", "'a', 'b'", "--teacher_label_map"]),
    (OTHER_NAMES, ["--teacher_label_map", "good=a"], ["other labels", "'good', 'bad'"]),
    (
        OTHER_NAMES,
        ["--teacher_label_map", "great=a"],
        ["'great' is no such label", "'good', 'bad'"],
    ),
    (OTHER_NAMES, ["--teacher_label_map", "good=c"], ["--teacher_label_map", "'c' is no such label", "'a', 'b'"]),
    (OTHER_NAMES, ["--teacher_label_map", "good=a,bad=a"], ["other labels"]),
    (ONE_MORE, [], ["other labels", "'a', 'b', 'c'"]),
    (rewrite("config.json", architectures=["BertForMaskedLM"]), [], ["BertForMaskedLM", "not a finished classifier"]),
    (rewrite("config.json", hidden_size=64), [], ["another size", "no finished classifier"]),
    (rewrite("config.json", num_hidden_layers=5), [], ["lack", "no finished classifier"]),
    (rewrite("config.json", hidden_act="rolu"), [], ["cannot be loaded", "rolu"]),
    (file("config.json", "{"), [], ["config.json cannot be used"]),
    (remove("config.json"), [], ["neither adapter_config.json nor config.json"]),
    (cut(WEIGHTS), [], [WEIGHTS, "cut short"]),
    (rename(WEIGHTS, "pytorch_model.bin"), [], ["no weights in safetensors"]),
    (remove("tokenizer.json"), [], ["no fast tokenizer"]),
]


@pytest.mark.parametrize(("change", "flags", "parts"), WHOLES)
def test_whole_teachers(world: World, whole_source: Path, change: Change, flags: list[str], parts: list[str]) -> None:
    change(shutil.copytree(whole_source, world.folder / "teacher"))
    world.refuses(train("--teacher_checkpoint", "teacher", *flags), "--teacher_", *parts)


ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTERS: list[tuple[Change, list[str]]] = [
    (rewrite("adapter_config.json", task_type="TOKEN_CLS"), ["'TOKEN_CLS'", "SEQ_CLS"]),
    (rewrite("adapter_config.json", base_model_name_or_path="./gone"), ["./gone: no such folder", "Put that model"]),
    (rewrite("adapter_config.json", base_model_name_or_path="org/gone"), ["org/gone cannot be had"]),
    (rewrite("adapter_config.json", r=3), ["does not fit its base model", "size mismatch"]),
    (rewrite("adapter_config.json", target_modules=["wombat"]), ["does not fit its base model", "target"]),
    (file("adapter_config.json", "{"), ["adapter_config.json cannot be read"]),
    (remove(ADAPTER_WEIGHTS), [ADAPTER_WEIGHTS, "cannot be read"]),
    (rename(ADAPTER_WEIGHTS, "adapter_model.bin"), [ADAPTER_WEIGHTS, "cannot be read"]),
    (cut(ADAPTER_WEIGHTS), [ADAPTER_WEIGHTS, "cannot be read"]),
    (file("labels.json", "{"), ["labels.json cannot be read"]),
    (file("labels.json", '{"num_labels": 2, "base_model": "x"}'), ["labels.json holds no label names"]),
]


@pytest.mark.parametrize(("change", "parts"), ADAPTERS)
def test_adapters_as_teachers(world: World, adapter_source: Path, change: Change, parts: list[str]) -> None:
    change(shutil.copytree(adapter_source, world.folder / "teacher"))
    world.refuses(train("--teacher_checkpoint", "teacher"), "teacher", *parts)


def test_defaults_adapt_to_a_small_model_loudly(world: World, call: Command) -> None:
    """Where they were named, more layers than there are would be refused."""
    done = call("train", "--base_model", "base", "--dataset", "good.csv", "--num_epochs", 1, "--no_control", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "WARNING: base has 3 layers, so the default teacher_target_layers of 8 becomes 3",
        "WARNING: base has 3 layers, so the default student_target_layers of 6 becomes 3",
    ]
