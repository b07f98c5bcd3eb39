"""The reference's models: an encoder with a head and LoRA on its last layers, as PEFT's documentation shows it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForSequenceClassification, set_seed

PROJECTIONS = (("query", "key", "value"), ("q", "k", "v"), ("q_lin", "k_lin", "v_lin"))


VARIANTS = ("seed-style", "trainer", "trainer-cached")


@dataclass(frozen=True)
class Recipe:
    """What is trained; the same names and, but for `precision`, defaults as in lora-distill's settings."""

    variant: str = "trainer"
    base_model: str = ""
    precision: str = "bf16"
    seed: int = 0
    max_length: int = 128
    teacher_lora_r: int = 16
    teacher_lora_alpha: int = 32
    teacher_target_layers: int = 8
    student_lora_r: int = 8
    student_lora_alpha: int = 16
    student_target_layers: int = 6
    lora_dropout: float = 0.1
    alpha: float = 0.5
    temperature: float = 2.0
    learning_rate: float = 2e-4
    batch_size: int = 32
    num_epochs: int = 10
    weight_decay: float = 0.01
    warmup_ratio: float = 0.06
    max_grad_norm: float = 1.0

    @property
    def is_padded(self) -> bool:
        """Whether every row is padded to max_length, in fp32 and random order."""
        return self.variant == "seed-style"

    @property
    def is_bf16(self) -> bool:
        """Whether matrix products are computed in bf16."""
        return self.precision == "bf16" and not self.is_padded


def make_model(recipe: Recipe, role: str, classes: int) -> PeftModel:
    """A fresh model for a role; the seed draws head, LoRA and all that follows."""
    set_seed(recipe.seed)
    model, fresh = _classifier(recipe.base_model, classes)
    kind = "teacher" if role == "teacher" else "student"
    total, layers = model.config.num_hidden_layers, getattr(recipe, f"{kind}_target_layers")
    leaves = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    # PEFT saves and trains the classifier by itself, but no pooler that the checkpoint lacks.
    inside = {name.rpartition(".")[0] for name in fresh if name.startswith(f"{model.base_model_prefix}.")}
    outside = {name.partition(".")[0] for name in fresh} - {model.base_model_prefix}
    adapted = get_peft_model(
        model,
        LoraConfig(
            task_type="SEQ_CLS",
            r=getattr(recipe, f"{kind}_lora_r"),
            lora_alpha=getattr(recipe, f"{kind}_lora_alpha"),
            lora_dropout=recipe.lora_dropout,
            target_modules=next(list(names) for names in PROJECTIONS if leaves.issuperset(names)),
            layers_to_transform=list(range(total - layers, total)),
            modules_to_save=sorted(inside | outside),
        ),
    )
    found = sum(name.endswith("lora_A.default") for name, _ in adapted.named_modules())
    if found != 3 * layers:
        raise ValueError(f"{recipe.base_model}: LoRA sits on {found} modules, not on three of each of {layers} layers")
    return adapted


def load_teacher(recipe: Recipe, folder: Path, classes: int) -> PeftModel:
    """A finished teacher, frozen and in eval mode, from its PEFT adapter."""
    set_seed(recipe.seed)
    model, _ = _classifier(recipe.base_model, classes)
    return PeftModel.from_pretrained(model, folder).eval().requires_grad_(requires_grad=False)


def _classifier(folder: str, classes: int) -> tuple[Any, list[str]]:
    """The model, and the names of the parameters that its checkpoint lacks."""
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=classes, dtype=torch.float32, output_loading_info=True
    )
    return model, sorted(info["missing_keys"])
