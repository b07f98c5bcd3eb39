from collections.abc import Callable
from dataclasses import replace

import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer

from lora_distill.training.checkpoint import trainable
from lora_distill.training.optimizer import make_optimizer
from tests.training.conftest import RECIPE


def test_the_rates_of_matrices_are_those_of_peft_s_own_lora_plus(make_model: Callable[[], PeftModel]) -> None:
    model = make_model()
    ours, _ = make_optimizer(model, replace(RECIPE, lora_plus_ratio=4.0, warmup_ratio=0.0), steps=2)
    theirs = create_loraplus_optimizer(model, torch.optim.AdamW, lr=RECIPE.learning_rate, loraplus_lr_ratio=4.0)
    rates = [
        {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
        for optimizer in (ours, theirs)
    ]
    matrices = [parameter for parameter in trainable(model).values() if parameter.ndim > 1]
    assert {rates[0][each] / RECIPE.learning_rate for each in matrices} == {1.0, 4.0}
    assert all(rates[0][each] == rates[1][each] for each in matrices)
