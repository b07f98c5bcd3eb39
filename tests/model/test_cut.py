"""A base model cut to its first layers is a base model like others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LongformerConfig,
)

from lora_distill.errors import UserError
from lora_distill.model.adapter import layers_path, load_classifier
from lora_distill.model.base import BaseModel, resolve_again, resolve_base_model
from lora_distill.model.cut import cut_base, cut_config
from tests.tiny import FAMILIES, tiny_model

Tiny = Callable[[str], Path]


def layer_outputs(folder: Path) -> list[torch.Tensor]:
    """What each layer gives, as plain transformers runs the model."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    outputs: list[torch.Tensor] = []
    for layer in model.get_submodule(layers_path(model)):
        layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    batch = AutoTokenizer.from_pretrained(folder)(["A text.", "A longer one, of more words."], padding=True)
    with torch.inference_mode():
        model(**batch.convert_to_tensors("pt"))
    return [output[0] if isinstance(output, tuple) else output for output in outputs]


def cut_to_2(base: BaseModel, output_dir: Path) -> BaseModel:
    cut = cut_base(base, 2, output_dir)
    whole, kept = layer_outputs(base.folder), layer_outputs(cut.folder)
    assert (len(whole), len(kept)) == (3, 2)
    assert all(torch.equal(one, other) for one, other in zip(whole, kept, strict=False))
    return cut


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_gets_what_the_first_layers_of_the_whole_give(
    family: str, tiny: Tiny, tmp_path: Path
) -> None:
    base = resolve_base_model(str(tiny(family)))
    cut = cut_to_2(base, tmp_path)
    assert (cut.kind, cut.name, cut.whole) == ("folder", f"the first 2 layers of {base.name}", base)
    assert load_classifier(cut, ["a", "b"], 0).fresh == load_classifier(base, ["a", "b"], 0).fresh
    size = (cut.folder / "model.safetensors").stat().st_size
    assert family == "albert" or size < (base.folder / "model.safetensors").stat().st_size


def test_what_the_checkpoint_lacks_is_not_drawn_and_saved_as_if_it_were_pretrained(tmp_path: Path) -> None:
    base = resolve_base_model(str(tiny_model("bert", tmp_path / "bare", pooler=False)))
    cut = cut_to_2(base, tmp_path)
    assert "bert.pooler.dense.weight" in load_classifier(cut, ["a", "b"], 0).fresh


def test_weights_in_shards_and_without_the_family_s_prefix(tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    AutoModel.from_pretrained(tiny("bert")).save_pretrained(folder, max_shard_size="50KB")
    assert (folder / "model.safetensors.index.json").is_file()
    cut = cut_to_2(resolve_base_model(str(folder)), tmp_path)
    names = load_file(cut.folder / "model.safetensors")
    assert {name.split(".")[2] for name in names if name.startswith("encoder.layer.")} == {"0", "1"}
    assert "pooler.dense.weight" in names


def test_runs_beside_each_other_share_it_and_others_may_read_it(tiny: Tiny, tmp_path: Path) -> None:
    base = resolve_base_model(str(tiny("roberta")))
    cut = cut_base(base, 2, tmp_path)
    written = {file.name: file.stat().st_ino for file in cut.folder.iterdir()}
    assert cut_base(resolve_again(base.recorded()), 2, tmp_path) == cut
    assert {file.name: file.stat().st_ino for file in cut.folder.iterdir()} == written
    assert len({file.stat().st_mode for file in cut.folder.iterdir()}) == 1
    assert cut_base(base, 1, tmp_path).folder != cut.folder
    assert cut_base(base, 2, tmp_path / "elsewhere").fingerprint == cut.fingerprint


def test_all_layers_are_no_cut(tiny: Tiny, tmp_path: Path) -> None:
    base = resolve_base_model(str(tiny("distilbert")))
    assert cut_base(base, None, tmp_path) is base
    assert cut_base(base, 3, tmp_path) is base
    assert base.whole is base
    assert not list(tmp_path.iterdir())


def test_what_a_config_says_of_each_layer_is_cut_too() -> None:
    whole = LongformerConfig(num_hidden_layers=3, attention_window=[2, 4, 8])
    cut = cut_config(whole, 2)
    assert (cut.num_hidden_layers, cut.attention_window) == (2, [2, 4])
    assert (whole.num_hidden_layers, whole.attention_window) == (3, [2, 4, 8])


def test_weights_that_cannot_be_told_apart_by_layers(tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name.replace("layer", "block"): weight for name, weight in weights.items()}, folder / "model.safetensors"
    )
    with pytest.raises(UserError, match=r"--base_depth 2: the weights of .* cannot be told apart by layers\."):
        cut_base(resolve_base_model(str(folder)), 2, tmp_path)
    assert not list(tmp_path.glob(".artefacts/base*[!k]"))


def test_layers_that_share_weights_in_groups(tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("albert"), tmp_path / "albert")
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 4, "num_hidden_groups": 2}
    AlbertModel(AlbertConfig(**config)).save_pretrained(folder)
    with pytest.raises(UserError, match="cannot be told apart by layers"):
        cut_base(resolve_base_model(str(folder)), 3, tmp_path)
