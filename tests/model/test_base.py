import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers

from lora_distill.errors import UserError
from lora_distill.hub import HubModel
from lora_distill.model import base as base_module
from lora_distill.model.base import has_changed, hash_files, resolve_again, resolve_base_model
from tests.hub_server import HubServer
from tests.tiny import FAMILIES, tiny_model

Tiny = Callable[[str], Path]


@pytest.fixture
def model(tiny: Tiny, tmp_path: Path) -> Path:
    """A BERT that the test may break."""
    return shutil.copytree(tiny("bert"), tmp_path / "model")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_found_in_a_folder(family: str, tiny: Tiny) -> None:
    base = resolve_base_model(str(tiny(family)))
    assert (base.kind, base.folder, base.reference) == ("folder", tiny(family), str(tiny(family)))


def test_a_folder_may_be_relative_and_may_look_like_a_hub_name(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    monkeypatch.setenv("HOME", str(model.parent))
    for name in ("model", "./model", "~/model"):
        base = resolve_base_model(name)
        assert (base.name, base.kind, base.folder, base.reference) == (name, "folder", model, str(model))


def test_the_same_content_gives_the_same_fingerprint_wherever_it_lies(tiny: Tiny, model: Path) -> None:
    first, copy = resolve_base_model(str(tiny("bert"))), resolve_base_model(str(model))
    assert (first.fingerprint, first.revision) == (copy.fingerprint, copy.revision)
    (model / "README.md").write_text("Not a part of the model.")
    assert resolve_base_model(str(model)).fingerprint == copy.fingerprint


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_other_settings_give_another_fingerprint_and_the_same_revision(model: Path, file: str) -> None:
    before = resolve_base_model(str(model))
    with (model / file).open("a") as handle:
        handle.write("\n")
    after = resolve_base_model(str(model))
    assert after.fingerprint != before.fingerprint
    assert after.revision == before.revision


def test_other_weights_give_another_fingerprint_and_revision(tmp_path: Path) -> None:
    one, other = (resolve_base_model(str(tiny_model("bert", tmp_path / str(seed), seed=seed))) for seed in (0, 1))
    assert one.fingerprint != other.fingerprint
    assert one.revision != other.revision


def test_weights_in_shards(model: Path) -> None:
    weights = transformers.AutoModel.from_pretrained(model)
    (model / "model.safetensors").unlink()
    weights.save_pretrained(model, max_shard_size="50KB")
    shards = sorted(model.glob("model-*.safetensors"))
    assert len(shards) > 1
    before = resolve_base_model(str(model))
    shards[0].rename(model / "elsewhere")
    with pytest.raises(UserError, match=f"{shards[0].name} is missing"):
        resolve_base_model(str(model))
    (model / "elsewhere").rename(shards[0])
    assert resolve_base_model(str(model)) == before


def test_a_tokenizer_without_its_json_is_converted(model: Path) -> None:
    vocabulary = transformers.AutoTokenizer.from_pretrained(model).get_vocab()
    (model / "tokenizer.json").unlink()
    (model / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    resolve_base_model(str(model))
    assert transformers.AutoTokenizer.from_pretrained(model).get_vocab() == vocabulary


def test_hash_files_knows_names_and_contents_only(tmp_path: Path) -> None:
    for folder, names in (("a", "xy"), ("b", "yx")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text(name)
    digests = {hash_files(folder / name for name in "xy") for folder in (tmp_path / "a", tmp_path / "b")}
    lines = "".join(sorted(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in "xy"))
    assert digests == {hashlib.sha256(lines.encode()).hexdigest()}
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "z")
    assert hash_files([tmp_path / "a" / "z", tmp_path / "a" / "y"]) not in digests


def test_the_packaged_minilm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "minilm").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # the package would import it
    base = resolve_base_model("minilm")
    assert (base.name, base.kind, base.revision) == ("minilm", "packaged", "0.1.0")
    assert Path(base.reference) == base.folder
    assert transformers.AutoConfig.from_pretrained(base.folder).num_hidden_layers == 6


def test_packaged_weights_that_are_not_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_module, "_PACKAGED_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"SHA-256 differs\.\nInstall the package again"):
        resolve_base_model("minilm")


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_module, "MINILM_MODULE", "no_such_module")
    with pytest.raises(UserError, match=r"not installed\.\nInstall it: .*pip install .*\[train\]"):
        resolve_base_model("minilm")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "../nowhere", "x" * 5000])
def test_a_path_that_is_missing(name: str) -> None:
    with pytest.raises(UserError, match=r"no such folder. Give|cannot be read: File name too long"):
        resolve_base_model(name)


def test_a_file_in_place_of_its_folder(model: Path) -> None:
    with pytest.raises(UserError, match=r"is a file\. Give a folder"):
        resolve_base_model(str(model / "model.safetensors"))


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return change


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def break_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("[]")


def misfit(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"hidden_size": "wide"}))


REMOTE_CODE = b'{"model_type": "new", "auto_map": {"AutoConfig": "configuration.NewConfig"}}'


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove("config.json"), "holds no config.json"),
        (write("config.json", b"{"), "config.json cannot be used: .*not a valid JSON file"),
        (write("config.json", b"\xff"), "config.json cannot be used: .*not a valid JSON file"),
        (write("config.json", b"{}"), "config.json cannot be used: Unrecognized model"),
        (write("config.json", b'{"model_type": "new"}'), "model type `new`"),
        (write("config.json", REMOTE_CODE), "config.json cannot be used: .*custom code"),
        (misfit, "config.json cannot be used: .*'hidden_size' expected int, got str"),
        (cut, "model.safetensors is missing, cut short or broken"),
        (write("model.safetensors", b""), "model.safetensors is missing, cut short or broken"),
        (break_index, "model.safetensors.index.json cannot be read"),
        (remove("model.safetensors"), "no weights in safetensors"),
        (pickle_weights, "no weights in safetensors.*\n.*save_pretrained"),
        (remove("tokenizer.json"), "no fast tokenizer"),
        (remove("tokenizer.json", "tokenizer_config.json"), "no fast tokenizer"),
        (write("tokenizer.json", b"{"), "its tokenizer cannot be used"),
        (write("tokenizer_config.json", b"{"), "its tokenizer cannot be used"),
        (write("adapter_config.json", b"{}"), "PEFT adapter, not a model.*--teacher_checkpoint takes adapters"),
    ],
)
def test_a_folder_that_cannot_be_used(model: Path, change: Callable[[Path], None], words: str) -> None:
    change(model)
    with pytest.raises(UserError, match=words) as refusal:
        resolve_base_model(str(model))
    assert str(refusal.value).startswith(f"base model {model}: ")
    assert len(str(refusal.value).splitlines()) <= 3


NO_ENCODERS = [
    transformers.T5Config,
    transformers.WhisperConfig,
    transformers.ViTConfig,
    transformers.GPT2Config,
    transformers.LlamaConfig,
]


@pytest.mark.parametrize("config", NO_ENCODERS)
def test_what_is_no_encoder_of_texts(model: Path, config: type[transformers.PreTrainedConfig]) -> None:
    config().save_pretrained(model)
    with pytest.raises(UserError, match="no encoder for text classification"):
        resolve_base_model(str(model))


def test_a_tokenizer_that_knows_more_tokens_than_its_model(model: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    known = len(tokenizer)
    tokenizer.add_tokens(["distillation"])
    tokenizer.save_pretrained(model)
    with pytest.raises(UserError, match=rf"makes 'distillation' token {known}, but the model has {known} embeddings"):
        resolve_base_model(str(model))


def test_a_mask_may_have_no_embedding_for_it_is_never_read(model: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"mask_token": "[NEW MASK]"})
    tokenizer.save_pretrained(model)
    assert resolve_base_model(str(model)).folder == model


def test_a_roberta_without_a_padding_token_has_no_first_position(tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("roberta"), tmp_path / "roberta")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    with pytest.raises(UserError, match="holds no pad_token_id, from which a roberta counts"):
        resolve_base_model(str(folder))


def test_the_hub_gives_the_same_as_the_folder(hub: HubServer, tiny: Tiny, model: Path, tmp_path: Path) -> None:
    commit = hub.add_model("org/tiny", tiny("roberta"))
    pickle_weights(model)
    hub.add_model("org/pickled", model)
    code = """
from lora_distill.hub import quiet
from lora_distill.errors import UserError
from lora_distill.hub import HubModel
from lora_distill.model.base import resolve_base_model

quiet()
base = resolve_base_model("org/tiny")
print(base.name, base.kind, base.revision, base.reference, base.fingerprint)
try:
    resolve_base_model("org/pickled")
except UserError as error:
    print(error)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=hub.env(tmp_path), capture_output=True, text=True, check=True)
    fingerprint = resolve_base_model(str(tiny("roberta"))).fingerprint
    first, *others = done.stdout.splitlines()
    assert first == f"org/tiny hub {commit} org/tiny {fingerprint}"
    assert "no weights in safetensors" in others[0]
    assert done.stderr == ""


# Again


def test_a_recorded_base_model_is_found_again_from_anywhere_and_not_when_it_has_changed(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    folder, packaged = resolve_base_model("model"), resolve_base_model("minilm")
    monkeypatch.chdir("/")
    assert resolve_again(folder.recorded()) == folder
    assert resolve_again(packaged.recorded()) == packaged
    assert not has_changed(folder.recorded())
    assert not has_changed(packaged.recorded())
    with (model / "config.json").open("a") as handle:
        handle.write("\n")
    with pytest.raises(UserError, match=r"files have changed since .*\nPut those of revision"):
        resolve_again(folder.recorded())
    assert has_changed(folder.recorded())
    (model / "model.safetensors").unlink()
    assert has_changed(folder.recorded())
    shutil.rmtree(model)
    assert not has_changed(folder.recorded())


def test_a_base_model_from_the_hub_is_asked_for_at_its_commit(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def fetch(name: str, revision: str | None = None) -> HubModel:
        asked.append((name, revision))
        return HubModel(tiny("bert"), revision or "newest", name)

    monkeypatch.setattr(base_module, "fetch_model", fetch)
    fingerprint = resolve_base_model(str(tiny("bert"))).fingerprint
    about = {"name": "org/bert", "kind": "hub", "revision": "c0ffee", "reference": "org/bert"}
    assert resolve_again(about | {"fingerprint": fingerprint}).revision == "c0ffee"
    assert asked == [("org/bert", "c0ffee")]
