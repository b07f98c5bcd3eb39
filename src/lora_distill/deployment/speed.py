"""How fast the models of a finished run answer on this machine, and how much there is of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from lora_distill.config import Role
from lora_distill.data.tokens import Tokens
from lora_distill.data.types import Text, parts
from lora_distill.deployment.finished import open_models
from lora_distill.evidence import read_predictions
from lora_distill.made_with import made_with
from lora_distill.model.layers import count_layers, layers_path
from lora_distill.progress import track
from lora_distill.remembering import remembering
from lora_distill.run_folder import RunFolder
from lora_distill.training.logits import plain
from lora_distill.training.plan import choose_plan

BATCHES = (1, 32)
PLACES = {"short": 0.1, "long": 0.9}  # of the test texts by their length: quantiles that the texts are taken around
LEAST, MOST, SECONDS = 5, 64, 10.0  # rounds of a measurement, and when there have been enough
WARM = 2  # rounds before that do not count

TIMED: tuple[Role, ...] = ("teacher", "student")  # the control is built as the student is
Answer = Callable[[Tokens, int, int], None]  # of so many rows from the first, round and round


@remembering()
def measure_speed(run: RunFolder, device: str) -> dict[str, Any]:
    """Time teacher and student, merged, in fp32, taking turns.

    Args:
        run: finished.
        device: as the setting of that name.

    Returns:
        `device` and `made_with`.
        `models`: by role its `total_parameters`, `weight_bytes` of them merged and in fp32 (what a form that it was
        exported in takes on disk stands in its verification.json), and `multiply_adds` of a token with the matrices of
        the layers; attention's own, which grow with the length, are not in it.
        `timings`: for each number of `threads`, `batch` (texts) and kind of `texts`, by role: `tokens` of a batch on
        average, `median` and 95th percentile (`p95`) of the seconds from token ids to logits, and the `rounds` they
        are of.

    Raises:
        UserError: the run is not finished, or what it was made from cannot be had as it was.
    """
    plan = choose_plan(device, "fp32")
    texts = _texts(read_predictions(run).texts)
    models: dict[str, dict[str, int]] = {}
    answers: dict[Role, Answer] = {}
    tokens: dict[Role, dict[str, Tokens]] = {}
    for role in TIMED:
        opened = open_models(run, role)
        merged = [each.merged() for each in opened]
        models[role] = _size(merged)
        answers[role] = _answer([model.to(plan.device) for model in merged])
        tokens[role] = {kind: opened[0].tokenised(each) for kind, each in texts.items()}
    threads = sorted({1, plan.threads}) if plan.device == "cpu" else [plan.threads]
    cells = [(number, size, kind) for number in threads for size in BATCHES for kind in texts]
    timings = []
    with track("timing", len(cells), "settings") as advance:
        for number, size, kind in cells:
            with replace(plan, threads=number).with_threads(), torch.inference_mode():
                rows = {role: each[kind] for role, each in tokens.items()}
                taken = _take_turns(answers, rows, size)
            found: dict[str, Any] = {role: _summary(rows[role], size, seconds) for role, seconds in taken.items()}
            timings.append({"threads": number, "batch": size, "texts": kind, **found})
            advance(1)
    return {"device": plan.device, "models": models, "timings": timings, "made_with": made_with()}


def _texts(texts: Sequence[Text]) -> dict[str, list[Text]]:
    """As many as the largest batch takes, around each place in the order of their lengths; again and again if fewer."""
    order = sorted(texts, key=lambda text: sum(map(len, parts(text))))
    chosen = {}
    for kind, place in PLACES.items():
        first = int(np.clip(place * len(order) - BATCHES[-1] / 2, 0, max(len(order) - BATCHES[-1], 0)))
        chosen[kind] = [order[index % len(order)] for index in range(first, first + BATCHES[-1])]
    return chosen


def _size(models: list[PreTrainedModel]) -> dict[str, int]:
    weights = [weight for model in models for weight in model.parameters()]
    return {
        "total_parameters": sum(weight.numel() for weight in weights),
        "multiply_adds": sum(map(_multiply_adds, models)),
        "weight_bytes": sum(weight.numel() * weight.element_size() for weight in weights),
    }


def _multiply_adds(model: PreTrainedModel) -> int:
    layers = model.get_submodule(layers_path(model))
    matrices: int = sum(weight.numel() for weight in layers.parameters() if weight.ndim == 2)
    return matrices * int(model.config.num_hidden_layers) // count_layers(model)


def _answer(models: Sequence[nn.Module]) -> Answer:
    """What answers once: several teachers do so one after the other."""
    forwards = [plain(model) for model in models]

    def answer(tokens: Tokens, first: int, size: int) -> None:
        rows = np.arange(first, first + size) % len(tokens)
        for forward in forwards:
            forward(tokens.batch(rows)).cpu()  # waits for a GPU to be done

    return answer


def _take_turns(answers: dict[Role, Answer], tokens: dict[Role, Tokens], size: int) -> dict[Role, list[float]]:
    """Seconds of each round of each role; what disturbs the machine disturbs both."""
    taken: dict[Role, list[float]] = {role: [] for role in answers}
    until = time.perf_counter() + SECONDS
    for number in count():
        if number >= WARM + MOST or (number >= WARM + LEAST and time.perf_counter() > until):
            return {role: seconds[WARM:] for role, seconds in taken.items()}
        for role, answer in answers.items():
            started = time.perf_counter()
            answer(tokens[role], number * size, size)
            taken[role].append(time.perf_counter() - started)
    raise AssertionError("counting ends")


def _summary(tokens: Tokens, size: int, seconds: list[float]) -> dict[str, float]:
    return {
        "tokens": len(tokens.flat) / len(tokens) * size,
        "median": float(np.median(seconds)),
        "p95": float(np.quantile(seconds, 0.95)),
        "rounds": len(seconds),
    }
