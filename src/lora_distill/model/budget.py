"""The budget of trainable parameters: counted from the model itself, a gate before the first step."""

from dataclasses import asdict, dataclass

from peft import PeftModel
from torch import nn

from lora_distill.data.wording import counted
from lora_distill.errors import UserError
from lora_distill.model.adapter import count_layers


@dataclass(frozen=True)
class ParameterCount:
    """Trainable parameters, and where they sit."""

    total: int
    lora: int
    head: int

    def as_dict(self) -> dict[str, int]:
        """For metrics.json."""
        return asdict(self)


def count_trainable(model: nn.Module) -> ParameterCount:
    """Count what requires a gradient; what is not LoRA is the head (with whatever else is trained whole)."""
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    total = sum(sizes.values())
    lora = sum(size for name, size in sizes.items() if "lora_" in name)
    return ParameterCount(total, lora, total - lora)


def check_budget(model: PeftModel, budget: int) -> ParameterCount:
    """Let a model within the budget pass.

    Raises:
        UserError: it is over; says how many, where they sit, and what would fit.
    """
    count = count_trainable(model)
    if count.total <= budget:
        return count
    raise UserError(
        f"the student has {count.total:,} trainable parameters, {count.total - budget:,} over its budget of"
        f" {budget:,}: {count.lora:,} in LoRA, {count.head:,} in the head.\n{_what_fits(model, count, budget)}"
    )


def _what_fits(model: PeftModel, count: ParameterCount, budget: int) -> str:
    settings = model.peft_config["default"]
    left = budget - count.head
    total_layers = count_layers(model.get_base_model())
    layers = len(settings.layers_to_transform or range(total_layers))
    per_rank_and_layer = count.lora // (settings.r * layers)
    if left < per_rank_and_layer:
        return (
            f"The head alone leaves {max(left, 0):,}, and LoRA of rank 1 on one layer takes {per_rank_and_layer:,}:"
            f" nothing fits.\nRaise --student_budget to {count.head + per_rank_and_layer:,} or more, or take another"
            " base model: its head and width decide."
        )
    rank = left // (per_rank_and_layer * layers)
    most_layers = min(left // (per_rank_and_layer * settings.r), total_layers)
    fitting = [f"rank {rank} on {counted(layers, 'layer')}"] if rank else []
    fitting += [f"rank {settings.r} on {counted(most_layers, 'layer')}"] if most_layers else []
    if not fitting:
        fitting = [f"rank 1 on {counted(min(left // per_rank_and_layer, total_layers), 'layer')}"]
    return (
        f"The largest that fit: {', or '.join(fitting)} (--student_lora_r, --student_target_layers);"
        " or raise --student_budget."
    )
