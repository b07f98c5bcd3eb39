"""A base encoder with a classification head and LoRA on its first or last layers."""

import logging
import re
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from lora_distill.config import Config, Role
from lora_distill.errors import UserError
from lora_distill.model.base import BaseModel, brief
from lora_distill.model.layers import count_layers, find_linear, find_target_modules, layers_note, layers_path
from lora_distill.progress import ONCE
from lora_distill.seeding import derive_seed

logger = logging.getLogger(__name__)
PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterSettings:
    """LoRA for one role.

    Attributes:
        rank: of every adapted matrix.
        alpha: scale is alpha / rank.
        target_layers: how many layers are adapted.
        target_modules: names of the linear modules to adapt; empty: query, key and value.
        dropout: before LoRA's A, in training.
        placement: "first" or "last" layers of the encoder.
        rslora: the scale is alpha / sqrt(rank) instead (Kalajdzievski, "A Rank Stabilization Scaling Factor for
            Fine-Tuning with LoRA", 2023).
        dora: the length of each row of an adapted matrix is trained apart from its direction, which LoRA turns (Liu et
            al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024).
        rank_pattern: layers of another rank than `rank`, counted from 0, and theirs. Their scale is the others', or
            with rslora what their own rank makes of alpha.
    """

    rank: int
    alpha: int
    target_layers: int
    target_modules: tuple[str, ...]
    dropout: float
    placement: str
    rslora: bool = False
    dora: bool = False
    rank_pattern: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, config: Config, role: Role) -> "AdapterSettings":
        """The settings of a role; the control is built as the student is."""
        is_teacher = role == "teacher"
        pattern = config.teacher_rank_pattern if is_teacher else config.student_rank_pattern
        return cls(
            rank=config.teacher_lora_r if is_teacher else config.student_lora_r,
            alpha=config.teacher_lora_alpha if is_teacher else config.student_lora_alpha,
            target_layers=config.teacher_target_layers if is_teacher else config.student_target_layers,
            target_modules=config.target_modules,
            dropout=config.lora_dropout,
            placement=config.layer_placement,
            rslora=config.use_rslora,
            dora=config.use_dora,
            rank_pattern=tuple(sorted(pattern.items())),
        )


@dataclass(frozen=True)
class Classifier:
    """A base encoder with a classification head, before LoRA.

    Attributes:
        model: in fp32, on the CPU (or on "meta", where only its shapes are asked for).
        fresh: names of the parameters that were not taken from the checkpoint: drawn at random.
    """

    model: PreTrainedModel
    fresh: frozenset[str]


def load_classifier(base: BaseModel, label_names: list[str], seed: int, *, keeps_head: bool = False) -> Classifier:
    """Load the encoder's weights and draw a head from the seed.

    Args:
        base: the encoder.
        label_names: of the classes.
        seed: of the head.
        keeps_head: a head of as many classes that came with the encoder is taken as it is, where there is one.

    Raises:
        UserError: the checkpoint lacks weights of the encoder, or cannot be read.
    """
    torch.manual_seed(derive_seed(seed, "head"))
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            base.folder,
            id2label=dict(enumerate(label_names)),
            label2id={name: index for index, name in enumerate(label_names)},
            num_labels=len(label_names),
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # a stranger's files break transformers in many ways
        raise UserError(f"base model {base.name}: cannot be loaded: {brief(error)}.") from error
    mismatched = {entry[0] for entry in info["mismatched_keys"]}
    fresh = frozenset(set(info["missing_keys"]) | mismatched)
    # A pooler is a part of the head by its use; what is below it must come from the pretraining.
    lacking = sorted(name for name in fresh if name.startswith(f"{model.base_model_prefix}.") and "pooler" not in name)
    if lacking:
        raise UserError(
            f"base model {base.name}: its weights lack {len(lacking)} parameters of the encoder, or hold them in"
            f" another size, such as {lacking[0]}.\nThe folder's config.json and weights do not belong together."
        )
    return Classifier(model, fresh if keeps_head else fresh | _draw_head(model, fresh, base))


def _draw_head(model: PreTrainedModel, fresh: frozenset[str], base: BaseModel) -> frozenset[str]:
    """Draw a head anew that came with the checkpoint; the names of its parameters.

    It knows a task already, perhaps this one with its labels in another order: a control would not begin at nothing.
    """
    head = _head_names(model)
    kept = frozenset(name for name, _ in model.named_parameters() if name.split(".")[0] in head) - fresh
    if kept:
        logger.warning(
            "base model %s has a classification head of its own, which is drawn anew; to learn from what it knows, give"
            " it as --teacher_checkpoint",
            base.name,
            extra=ONCE,
        )
        for part in (part for name in head for part in model.get_submodule(name).modules()):
            for parameter in part.parameters(recurse=False):
                parameter._is_hf_initialized = False  # transformers would leave it
            model._init_weights(part)
    return kept


def outline(classifier: Classifier, config: PreTrainedConfig | None = None) -> Classifier:
    """The same model, or that of another config, without weights, on "meta": to try settings on and count."""
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config or classifier.model.config)
        return Classifier(model, classifier.fresh)


def adapted_layers(model: PreTrainedModel, settings: AdapterSettings) -> range:
    """Indices of the layers that LoRA adapts.

    Raises:
        UserError: more layers were asked for than the model has.
    """
    total = count_layers(model)
    if settings.target_layers > total:
        note = layers_note(model)
        raise UserError(
            f"{settings.target_layers} target layers: {model.config.model_type} has {total}"
            f"{' (' + note + ')' if note else ''}. Ask for at most {total}."
        )
    if settings.placement == "last":
        return range(total - settings.target_layers, total)
    return range(settings.target_layers)


def attach_adapter(classifier: Classifier, settings: AdapterSettings, seed: int) -> PeftModel:
    """Put LoRA on the chosen layers and make head and LoRA the only trainable parameters.

    Args:
        classifier: changed in place.
        settings: of the role.
        seed: LoRA's A is drawn from it; B is zero, so the model computes as before.

    Raises:
        UserError: rank, layers or modules do not fit the model.
    """
    model = classifier.model
    layers, modules = adapted_layers(model, settings), find_target_modules(model, settings.target_modules)
    path, expected = layers_path(model), find_linear(model, layers, modules)
    _check_ranks(model, settings)
    ranks = {rf"{re.escape(path)}\.{layer}\..*": rank for layer, rank in settings.rank_pattern}
    torch.manual_seed(derive_seed(seed, "lora"))
    adapted = get_peft_model(
        model,
        LoraConfig(
            task_type="SEQ_CLS",
            r=settings.rank,
            lora_alpha=settings.alpha,
            use_rslora=settings.rslora,
            use_dora=settings.dora,
            rank_pattern=ranks,
            # PEFT would keep alpha, and so give each rank another scale.
            alpha_pattern={
                name: settings.alpha if settings.rslora else settings.alpha * rank / settings.rank
                for name, rank in ranks.items()
            },
            lora_dropout=settings.dropout,
            target_modules=modules,
            layers_to_transform=list(layers),
            layers_pattern=path.rpartition(".")[2],
            modules_to_save=_head_modules(classifier),
        ),
    )
    _assert_adapted(adapted, expected, classifier.fresh)
    return adapted


def _check_ranks(model: PreTrainedModel, settings: AdapterSettings) -> None:
    layers, largest = adapted_layers(model, settings), largest_rank(model, settings)
    if astray := [layer for layer, _ in settings.rank_pattern if layer not in layers]:
        raise UserError(
            f"layer {astray[0]}: was given a rank, and is not adapted. Of {count_layers(model)} layers, counted from 0,"
            f" those that are: {layers[0]} to {layers[-1]} (--teacher_rank_pattern, --student_rank_pattern)."
        )
    rank = max(settings.rank, *(rank for _, rank in settings.rank_pattern), 0)
    if rank > largest:
        raise UserError(
            f"rank {rank}: the smallest adapted matrix of {model.config.model_type} has rank {largest}."
            f" Ask for 1 to {largest}; 4 to 32 is usual (--teacher_lora_r, --student_lora_r)."
        )


def largest_rank(model: PreTrainedModel, settings: AdapterSettings) -> int:
    """Of the smallest matrix that these settings adapt; a larger one would be no saving."""
    targets = find_target_modules(model, settings.target_modules)
    names = find_linear(model, adapted_layers(model, settings), targets)
    return min(int(side) for name in names for side in model.get_parameter(f"{name}.weight").shape)


def _head_modules(classifier: Classifier) -> list[str]:
    """Modules to train and save whole: everything outside the encoder, and what the checkpoint lacked inside it."""
    model = classifier.model
    head = _head_names(model)
    inside = {name.rpartition(".")[0] for name in classifier.fresh if name.split(".")[0] not in head}
    return head + sorted(inside)


def _head_names(model: PreTrainedModel) -> list[str]:
    """Of the modules outside the encoder that have parameters."""
    return [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    ]


def _assert_adapted(adapted: PeftModel, expected: set[str], fresh: frozenset[str]) -> None:
    """PEFT ignores silently what it does not find; a model that lacks a part would answer at random."""
    trainable = {name.removeprefix(PEFT_PREFIX) for name, p in adapted.named_parameters() if p.requires_grad}
    found = {name.partition(".lora_A.")[0] for name in trainable if ".lora_A." in name}
    if found != expected:
        raise AssertionError(f"LoRA sits on {sorted(found)}, not on {sorted(expected)}")
    plain = {name.replace(".modules_to_save.default.", ".") for name in trainable}
    if not fresh <= plain:
        raise AssertionError(f"freshly drawn parameters that would not be trained: {sorted(fresh - plain)}")
    saved = {name.removeprefix(PEFT_PREFIX) for name in get_peft_model_state_dict(adapted)}
    # PEFT saves DoRA's lengths under the name of the module that holds them.
    unsaved = {re.sub(r"(magnitude_vector)\.default\.weight$|\.default", r"\1", name) for name in plain} - saved
    if unsaved:
        raise AssertionError(f"trained parameters that would not be saved: {sorted(unsaved)}")
