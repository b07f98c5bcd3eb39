"""An encoder's layers, and the linear modules in them by the names that their families gave them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from lora_distill.config import ALL_LINEAR, ATTENTION
from lora_distill.errors import UserError

# Those whose layers, one after the other and each told no more than the first, are the whole of the encoder, as tests
# hold against transformers' own; and whose heads read what `pooling` says. Others pad what comes to the first layer
# (Longformer, BigBird), or ask a layer's number for its parts (XLM).
FAMILIES = (
    *("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet"),
    *("roberta", "xlm-roberta"),
)
# What the families call their attention's query, key and value: BERT, RoBERTa, ELECTRA and ALBERT; DeBERTa;
# DistilBERT; MPNet; most others; ModernBERT (fused). The first that the encoder's layers hold is taken.
ATTENTION_PROJECTIONS = (
    ("query", "key", "value"),
    ("query_proj", "key_proj", "value_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("q", "k", "v"),
    ("q_proj", "k_proj", "v_proj"),
    ("Wqkv",),
)
# And its output projection; the module around it is named where another of the layer's has the same name.
ATTENTION_OUTPUTS = (
    ("attention.output.dense",),
    ("attention.dense",),  # ALBERT
    ("out_lin",),
    ("attn.o",),
    ("out_proj",),
    ("o_proj",),
    ("attn.Wo",),
)


def layers_path(model: PreTrainedModel) -> str:
    """Name of the module list that holds the encoder's layers."""
    lists = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module)
        and any(isinstance(part, nn.Linear) for part in module.modules())
    ]
    if not lists:
        raise UserError(f"{model.config.model_type}: found no list of layers in this model; it is no encoder.")
    return str(min(lists, key=len))


@contextmanager
def layers_in_place(model: PreTrainedModel, path: str, layers: Iterable[nn.Module]) -> Iterator[None]:
    """Let the model have these layers in place of its own at `layers_path`, until the block ends: in one thread."""
    parent_path, _, name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    whole = getattr(parent, name)
    setattr(parent, name, nn.ModuleList(layers))
    try:
        yield
    finally:
        setattr(parent, name, whole)


def count_layers(model: PreTrainedModel) -> int:
    """Layers with weights of their own: 1 for ALBERT, which runs one set of weights many times."""
    return len(model.get_submodule(layers_path(model)))


def layers_note(model: PreTrainedModel) -> str:
    """What must be said of this family's layers; empty where nothing must."""
    own, run = count_layers(model), int(model.config.num_hidden_layers)
    if own == run:
        return ""
    return f"{model.config.model_type} shares {own} set of weights among its {run} layers, so LoRA acts on all of them"


def find_linear(model: PreTrainedModel, layers: Iterable[int], targets: Iterable[str]) -> set[str]:
    """Names of the linear modules of these layers, as seen from the model, whose path ends with one of the targets."""
    path, ends = layers_path(model), list(targets)
    return {
        f"{path}.{index}.{name}"
        for index in layers
        for name in _linear_names(model.get_submodule(f"{path}.{index}"))
        if any(_ends_with(name, target) for target in ends)
    }


def _linear_names(layer: nn.Module) -> list[str]:
    return [name for name, module in layer.named_modules() if isinstance(module, nn.Linear)]


def find_target_modules(model: PreTrainedModel, asked: tuple[str, ...] = ()) -> list[str]:
    """Names of the linear modules that LoRA adapts in each layer, as PEFT takes them: the ends of their paths.

    Args:
        model: without LoRA.
        asked: names that the user gave, attention or all-linear; empty: the attention's query, key and value.

    Raises:
        UserError: the layers hold no such modules.
    """
    names = _linear_names(model.get_submodule(layers_path(model))[0])
    leaves = sorted({name.rpartition(".")[2] for name in names})
    if asked == (ALL_LINEAR,):
        return leaves

    def are_there(*targets: str) -> bool:
        return all(any(_ends_with(name, target) for name in names) for target in targets)

    if asked and asked != (ATTENTION,):
        absent = [name for name in asked if not are_there(name)]
        if absent:
            raise UserError(
                f"--target_modules: {model.config.model_type} has no linear module {', '.join(absent)} in its layers;"
                f" it has {', '.join(leaves)}."
            )
        return list(asked)
    found: list[str] = []
    parts = [("query, key and value", ATTENTION_PROJECTIONS), ("output projection", ATTENTION_OUTPUTS)]
    for part, known in parts[: 2 if asked else 1]:
        called = next((targets for targets in known if are_there(*targets)), None)
        if not called:
            raise UserError(
                f"{model.config.model_type}: found no {part} in its attention; its layers have the linear modules"
                f" {', '.join(leaves)}.\nName those to adapt with --target_modules."
            )
        found += called
    return found


def _ends_with(path: str, target: str) -> bool:
    return f".{path}".endswith(f".{target}")
