"""A training's state between two epochs: tensors in safetensors, counters in JSON. Never pickle."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lora_distill.store import read_json, write_json, write_whole

COUNTERS = "checkpoint.json"


@dataclass
class Progress:
    """The counters of a training.

    Attributes:
        epoch: epochs done.
        step: optimizer steps done.
        seconds: spent in training steps.
        best_epoch: the epoch, counted from 1, that was best on validation so far; 0: none.
        best_nll: its validation negative log-likelihood, of logits divided by the temperature that fits best.
        history: a dict for each logged step and evaluation.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best_nll: float = float("inf")
    history: list[dict[str, Any]] = field(default_factory=list)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's trainable parameters by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the trainable parameters, on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in trainable(model).items()}


@torch.no_grad()
def restore(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Put a snapshot back."""
    for name, parameter in trainable(model).items():
        parameter.copy_(weights[name])


def save_checkpoint(
    work: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, torch.Tensor],
    progress: Progress,
) -> None:
    """Write the state after an epoch; the JSON is written last and names the tensors' file."""
    tensors = {f"model/{name}": tensor for name, tensor in snapshot(model).items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in trainable(model).items()}
    for parameter, state in optimizer.state.items():
        for key, tensor in state.items():
            tensors[f"optimizer/{key}/{names[parameter]}"] = tensor.detach().cpu().contiguous()
    file = f"epoch-{progress.epoch}.safetensors"
    write_whole(work / file, lambda beside: save_file(tensors, beside))
    write_json(work / COUNTERS, {"tensors": file, "progress": asdict(progress)})
    for old in work.glob("epoch-*.safetensors"):
        if old.name != file:
            old.unlink()


def load_checkpoint(
    work: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """Put the last checkpoint's state into model and optimizer; None where there is none.

    Returns:
        The counters, and the best epoch's trainable parameters.
    """
    if not (work / COUNTERS).is_file():
        return None
    counters = read_json(work / COUNTERS)
    tensors = load_file(work / counters["tensors"])

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    restore(model, part("model/"))
    moments = part("optimizer/")
    for name, parameter in trainable(model).items():
        keys = [key for key in moments if key.partition("/")[2] == name]
        optimizer.state[parameter] = {
            key.partition("/")[0]: moments[key].to(parameter.device if moments[key].ndim else "cpu") for key in keys
        }
    return Progress(**counters["progress"]), part("best/")
