"""The budget of trainable parameters: counted from the model itself, a gate before the first step."""

from dataclasses import asdict, dataclass

from peft import PeftModel
from torch import nn

from lora_distill.config import ALL_LINEAR, ATTENTION
from lora_distill.data.wording import counted
from lora_distill.errors import UserError
from lora_distill.model.adapter import (
    AdapterSettings,
    Classifier,
    attach_adapter,
    largest_rank,
    outline,
)
from lora_distill.model.layers import count_layers, find_target_modules


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
    """How an adapter of so many layers fits into a budget.

    Attributes:
        modules: what names the adapted linear modules of a layer.
        layers: how many are adapted.
        rank: the largest power of two that fits; 0 if not even rank 1 does.
        count: what it trains; of rank 1 if none fits.
    """

    modules: tuple[str, ...]
    layers: int
    rank: int
    count: ParameterCount


def all_fits(classifier: Classifier, budget: int, *, dora: bool = False) -> list[Fit]:
    """How adapters fit into a budget: of query, key and value, attention and all linear modules, and of each depth.

    The one that spends most comes first, and behind all that fit those that do not, the smallest first.

    Args:
        classifier: is left as it is.
        budget: of trainable parameters.
        dora: whether they are DoRA's.

    Raises:
        UserError: nothing fits; says why.
    """
    fits, smallest_student = [], None
    total_layers = count_layers(classifier.model)
    for modules in (tuple(find_target_modules(classifier.model)), (ATTENTION,), (ALL_LINEAR,)):
        smallest = AdapterSettings(1, 1, 1, modules, 0.0, "last", dora=dora)
        model = attach_adapter(outline(classifier), smallest, seed=0)
        unit = count_trainable(model)
        smallest_student = smallest_student or (model, unit)
        most, cost = largest_rank(classifier.model, smallest), LayerCost.of(model)
        for layers in range(1, total_layers + 1):
            rank = min(cost.largest_rank((budget - unit.head) // layers), most)
            rank = 2 ** (rank.bit_length() - 1) if rank > 0 else 0
            lora = layers * cost.at(max(rank, 1))
            fits.append(Fit(modules, layers, rank, ParameterCount(lora + unit.head, lora, unit.head)))
    if smallest_student and not any(fit.rank for fit in fits):
        model, unit = smallest_student
        raise UserError(
            f"the smallest student has {unit.total:,} trainable parameters: {unit.lora:,} in LoRA, {unit.head:,} in the"
            f" head.\n{_what_fits(model, unit, budget)}"
        )
    return sorted(
        fits, key=lambda fit: (not fit.rank, fit.count.total * (-1 if fit.rank else 1), fit.modules, fit.layers)
    )


@dataclass(frozen=True)
class LayerCost:
    """What LoRA takes in a layer.

    Attributes:
        of_a_rank: each of its ranks.
        beside: what it takes whatever its rank: DoRA's lengths.
    """

    of_a_rank: int
    beside: int

    @classmethod
    def of(cls, model: PeftModel) -> "LayerCost":
        """That of an adapted model's layers."""
        settings = model.peft_config["default"]
        layers = len(settings.layers_to_transform)
        ranks = settings.r * (layers - len(settings.rank_pattern)) + sum(settings.rank_pattern.values())
        sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad and "lora_" in name}
        beside = sum(size for name, size in sizes.items() if "magnitude" in name)
        return cls((sum(sizes.values()) - beside) // ranks, beside // layers)

    def at(self, rank: int) -> int:
        """Parameters of a layer of this rank."""
        return self.of_a_rank * rank + self.beside

    def largest_rank(self, budget: int) -> int:
        """Of a layer that has so many parameters; below 1 where none fits."""
        return (budget - self.beside) // self.of_a_rank


def _what_fits(model: PeftModel, count: ParameterCount, budget: int) -> str:
    settings = model.peft_config["default"]
    left, cost = budget - count.head, LayerCost.of(model)
    total_layers = count_layers(model.get_base_model())
    layers = len(settings.layers_to_transform)
    if left < cost.at(1):
        leaves = f"leaves {left:,}" if left >= 0 else f"is {-left:,} over it"
        return (
            f"The head alone {leaves}, and LoRA of rank 1 on one layer takes {cost.at(1):,}:"
            f" nothing fits.\nRaise --student_budget to {count.head + cost.at(1):,} or more, or take another"
            " base model: its head and width decide."
        )
    rank = cost.largest_rank(left // layers)
    most_layers = min(left // cost.at(settings.r), total_layers)
    fitting = [f"rank {rank} on {counted(layers, 'layer')}"] if rank > 0 else []
    fitting += [f"rank {settings.r} on {counted(most_layers, 'layer')}"] if most_layers else []
    if not fitting:
        fitting = [f"rank 1 on {counted(min(left // cost.at(1), total_layers), 'layer')}"]
    same = ", the same for all layers" if settings.rank_pattern else ""
    return (
        f"The largest that fit: {', or '.join(fitting)}{same} (--student_lora_r, --student_target_layers);"
        " or raise --student_budget."
    )
