"""What moves the weights, and how fast."""

import math

import torch
from torch import nn
from transformers import get_scheduler

from lora_distill.training.checkpoint import trainable
from lora_distill.training.recipe import TrainingSettings


def make_optimizer(
    learner: nn.Module, settings: TrainingSettings, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW and the schedule of its rates; the first group has the recipe's own.

    LoRA's B has a group of its own, for LoRA+ (Hayou, Ghosh and Yu, "LoRA+: Efficient Low Rank Adaptation of Large
    Models", ICML 2024). PEFT's `create_loraplus_optimizer` gives B's rate to all vectors, too: here the head's biases
    and DoRA's lengths keep the recipe's own.

    Args:
        learner: its trainable parameters are moved.
        settings: the recipe.
        steps: of the whole training.
    """
    matrices: list[nn.Parameter] = []
    ups: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in trainable(learner).items():
        (vectors if parameter.ndim <= 1 else ups if ".lora_B." in name else matrices).append(parameter)
    faster = settings.learning_rate * settings.lora_plus_ratio
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": ups, "weight_decay": settings.weight_decay, "lr": faster},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )
    warmup = min(math.ceil(settings.warmup_ratio * steps), steps - 1)  # a run of one step trains, too
    name = "constant_with_warmup" if settings.lr_schedule == "constant" else settings.lr_schedule
    return optimizer, get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
