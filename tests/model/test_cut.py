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

from lora_distill.config import Config, Keep
from lora_distill.errors import UserError
from lora_distill.model.adapter import load_classifier
from lora_distill.model.base import BaseModel, resolve_again, resolve_base_model
from lora_distill.model.cut import Cut, cut_base, cut_config
from lora_distill.model.layers import layers_path
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


def first(depth: int | None) -> Cut:
    return Cut(depth, "first", "base_depth")


def cut_to_2(base: BaseModel, output_dir: Path) -> BaseModel:
    cut = cut_base(base, first(2), output_dir)
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


@pytest.mark.parametrize(
    ("keep", "kept", "name"), [("last", (1, 2), "the last 2 layers"), ("spread", (0, 2), "layers 1 and 3")]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_other_layers_follow_each_other_as_they_do_when_the_rest_is_taken_out(
    family: str, keep: Keep, kept: tuple[int, ...], name: str, tiny: Tiny, tmp_path: Path
) -> None:
    base, cut = resolve_base_model(str(tiny(family))), Cut(2, keep, "student_depth")
    if (family, keep) == ("modernbert", "last"):
        with pytest.raises(
            UserError, match=r"layer 2 of .* cannot take the place of layer 1, which is built otherwise"
        ):
            cut_base(base, cut, tmp_path)
        return
    found = cut_base(base, cut, tmp_path)
    assert (found.name, found.kept, found.whole) == (f"{name} of {base.name}", kept, base)
    assert found.begins_as == found
    assert cut_base(base, first(2), tmp_path).begins_as == base
    if family == "albert":  # one set of weights
        return
    whole, shorter = (load_classifier(each, ["a", "b"], 0).model.eval() for each in (base, found))
    layers = whole.get_submodule(layers_path(whole))
    whole.set_submodule(layers_path(whole), torch.nn.ModuleList(layers[index] for index in kept))
    whole.config.num_hidden_layers = 2
    batch = AutoTokenizer.from_pretrained(base.folder)(["A text.", "A longer one, of more words."], padding=True)
    with torch.inference_mode():
        expected, logits = (model(**batch.convert_to_tensors("pt")).logits for model in (whole, shorter))
    assert torch.equal(logits, expected)


@pytest.mark.parametrize(
    ("keep", "depth", "kept"),
    [
        ("spread", 1, (0,)),
        ("spread", 3, (0, 2, 5)),
        ("spread", 4, (0, 2, 3, 5)),
        ("spread", 6, tuple(range(6))),
        ("last", 2, (4, 5)),
        ("first", 2, (0, 1)),
    ],
)
def test_which_layers_are_kept(keep: Keep, depth: int, kept: tuple[int, ...]) -> None:
    assert Cut(depth, keep, "student_depth").layers(6) == kept


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
    cut = cut_base(base, first(2), tmp_path)
    written = {file.name: file.stat().st_ino for file in cut.folder.iterdir()}
    assert cut_base(resolve_again(base.recorded()), first(2), tmp_path) == cut
    assert {file.name: file.stat().st_ino for file in cut.folder.iterdir()} == written
    assert len({file.stat().st_mode for file in cut.folder.iterdir()}) == 1
    assert cut_base(base, first(1), tmp_path).folder != cut.folder
    assert cut_base(base, first(2), tmp_path / "elsewhere").fingerprint == cut.fingerprint


def test_all_layers_are_no_cut(tiny: Tiny, tmp_path: Path) -> None:
    base = resolve_base_model(str(tiny("distilbert")))
    assert cut_base(base, first(None), tmp_path) is base
    assert cut_base(base, first(3), tmp_path) is base
    assert base.whole is base
    assert not list(tmp_path.iterdir())


def test_what_a_config_says_of_each_layer_is_cut_too() -> None:
    whole = LongformerConfig(num_hidden_layers=3, attention_window=[2, 4, 8])
    cut = cut_config(whole, first(2))
    assert (cut.num_hidden_layers, cut.attention_window) == (2, [2, 4])
    assert (whole.num_hidden_layers, whole.attention_window) == (3, [2, 4, 8])


def test_weights_that_cannot_be_told_apart_by_layers(tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name.replace("layer", "block"): weight for name, weight in weights.items()}, folder / "model.safetensors"
    )
    with pytest.raises(UserError, match=r"--base_depth 2: the weights of .* cannot be told apart by layers\."):
        cut_base(resolve_base_model(str(folder)), first(2), tmp_path)
    assert not list(tmp_path.glob(".artefacts/base*[!k]"))


def test_layers_that_share_weights_in_groups(tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("albert"), tmp_path / "albert")
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 4, "num_hidden_groups": 2}
    AlbertModel(AlbertConfig(**config)).save_pretrained(folder)
    with pytest.raises(UserError, match="cannot be told apart by layers"):
        cut_base(resolve_base_model(str(folder)), first(3), tmp_path)


def test_a_cut_student_has_layers_from_the_first_to_the_last() -> None:
    """The first alone learn badly: docs/components.md has figures of MiniLM."""
    assert Cut.of(Config(student_depth=3), "student").layers(6) == (0, 2, 5)
    assert Cut.of(Config(student_depth=3, student_keep="first"), "student").layers(6) == (0, 1, 2)
