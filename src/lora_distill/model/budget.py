"""The budget of trainable parameters: counted from the model itself, a gate before the first step."""

from dataclasses import asdict, dataclass

from peft import PeftModel
from torch import nn

from lora_distill.data.wording import counted
from lora_distill.errors import UserError
from lora_distill.model.adapter import (
    AdapterSettings,
    Classifier,
    attach_adapter,
    count_layers,
    find_target_modules,
    largest_rank,
    linear_modules,
    outline,
)


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
        OverBudgetError: it is over; says how many, where they sit, and what would fit.
    """
    count = count_trainable(model)
    if count.total <= budget:
        return count
    raise OverBudgetError(
        f"the student has {count.total:,} trainable parameters, {count.total - budget:,} over its budget of"
        f" {budget:,}: {count.lora:,} in LoRA, {count.head:,} in the head.\n{_what_fits(model, count, budget)}",
        count.total - budget,
    )


class OverBudgetError(UserError):
    """A student has too many trainable parameters.

    Attributes:
        excess: how many more than its budget.
    """

    def __init__(self, message: str, excess: int) -> None:
        super().__init__(message)
        self.excess = excess


@dataclass(frozen=True)
class Fit:
    """An adapter that is within a budget.

    Attributes:
        modules: names of the adapted linear modules of a layer.
        layers: how many are adapted.
        rank: the largest power of two that fits.
        count: what it trains.
    """

    modules: tuple[str, ...]
    layers: int
    rank: int
    count: ParameterCount


def all_that_fit(classifier: Classifier, budget: int) -> list[Fit]:
    """The adapters within a budget: for query, key and value and for all linear modules, and each number of layers.

    The one that spends most comes first.

    Args:
        classifier: is left as it is.
        budget: of trainable parameters.

    Raises:
        UserError: nothing fits; says why.
    """
    fits, over = [], None
    total_layers = count_layers(classifier.model)
    for modules in (find_target_modules(classifier.model), linear_modules(classifier.model)):
        smallest = AdapterSettings(1, 1, 1, tuple(modules), 0.0, "last")
        model = attach_adapter(outline(classifier), smallest, seed=0)
        unit = count_trainable(model)
        if unit.total > budget:
            over = over or (model, unit)
            continue
        most = largest_rank(classifier.model, smallest)
        for layers in range(1, total_layers + 1):
            rank = min((budget - unit.head) // (unit.lora * layers), most)
            if rank:
                rank = 2 ** (rank.bit_length() - 1)
                lora = unit.lora * layers * rank
                fits.append(Fit(tuple(modules), layers, rank, ParameterCount(lora + unit.head, lora, unit.head)))
    if not fits and over:
        model, unit = over
        raise UserError(
            f"the smallest student has {unit.total:,} trainable parameters: {unit.lora:,} in LoRA, {unit.head:,} in the"
            f" head.\n{_what_fits(model, unit, budget)}"
        )
    return sorted(fits, key=lambda fit: (-fit.count.total, fit.modules, fit.layers))


def _what_fits(model: PeftModel, count: ParameterCount, budget: int) -> str:
    settings = model.peft_config["default"]
    left = budget - count.head
    total_layers = count_layers(model.get_base_model())
    layers = len(settings.layers_to_transform or range(total_layers))
    per_rank_and_layer = count.lora // (settings.r * layers)
    if left < per_rank_and_layer:
        leaves = f"leaves {left:,}" if left >= 0 else f"is {-left:,} over it"
        return (
            f"The head alone {leaves}, and LoRA of rank 1 on one layer takes {per_rank_and_layer:,}:"
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
