"""How fast the models of a finished run answer on this machine, and how much there is of them."""

import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from lora_distill.config import Role
from lora_distill.data.tokens import Tokens
from lora_distill.data.types import Text, parts
from lora_distill.deployment import exported
from lora_distill.deployment.finished import FinishedModel, open_models
from lora_distill.deployment.forms import MERGED, ONNX_FILES
from lora_distill.deployment.onnx_model import convert, save_as
from lora_distill.errors import UserError
from lora_distill.evidence import read_predictions
from lora_distill.made_with import made_with
from lora_distill.model.layers import count_layers, layers_path
from lora_distill.progress import track
from lora_distill.remembering import remembering
from lora_distill.run_folder import RunFolder
from lora_distill.training.logits import plain
from lora_distill.training.plan import ExecutionPlan, choose_plan

BATCHES = (1, 32)
PLACES = {"short": 0.1, "long": 0.9}  # of the test texts by their length: quantiles that the texts are taken around
LEAST, MOST, SECONDS = 5, 64, 10.0  # rounds of a measurement, and when there have been enough
WARM = 2  # rounds before that do not count

TIMED: tuple[Role, ...] = ("teacher", "student")  # the control is built as the student is
Forward = Callable[[Tokens, NDArray[np.int64]], Any]  # of a batch of these rows, to their logits
Answer = Callable[[Tokens, int, int], None]  # of so many rows from the first, round and round


@remembering()
def measure_speed(run: RunFolder, device: str, form: str = MERGED) -> dict[str, Any]:
    """Time teacher and student, merged, taking turns.

    Args:
        run: finished.
        device: as the setting of that name; the ONNX forms answer on the processor.
        form: as one exports them: "merged" answers through torch in fp32, "onnx" and "onnx-int8" through ONNX Runtime,
            in the batches that `Classifier` asks it in.

    Returns:
        `device`, `form` and `made_with`.
        `models`: by role its `total_parameters`, `weight_bytes` of them merged and in fp32 (what a form that it was
        exported in takes on disk stands in its verification.json), and `multiply_adds` of a token with the matrices of
        the layers; attention's own, which grow with the length, are not in it.
        `timings`: for each number of `threads`, `batch` (texts) and kind of `texts`, by role: `tokens` of a batch on
        average, `median` and 95th percentile (`p95`) of the seconds from token ids to logits, and the `rounds` they
        are of.

    Raises:
        UserError: the run is not finished, what it was made from cannot be had as it was, or a model cannot be had in
            this form, or not on this device.
    """
    if form in ONNX_FILES and device not in {"auto", "cpu"}:
        raise UserError(f"--device {device}: ONNX graphs answer on the processor here. Leave --device away, or --form.")
    plan = choose_plan("cpu" if form in ONNX_FILES else device, "fp32")
    texts = _texts(read_predictions(run).texts)
    models: dict[str, dict[str, int]] = {}
    tokens: dict[Role, dict[str, Tokens]] = {}
    opening: dict[Role, list[Callable[[int], Forward]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for role in TIMED:
            opened = open_models(run, role)
            merged = [each.merged() for each in opened]
            models[role] = _size(merged)
            tokens[role] = {kind: opened[0].tokenised(each) for kind, each in texts.items()}
            if form in ONNX_FILES:
                folders = [Path(scratch, f"{role}-{number}") for number in range(len(opened))]
                opening[role] = [_graph(*each, form) for each in zip(opened, merged, folders, strict=True)]
            else:
                opening[role] = [_module(model.to(plan.device)) for model in merged]
        timings = _timings(plan, opening, tokens)
    return {"device": plan.device, "form": form, "models": models, "timings": timings, "made_with": made_with()}


def _timings(
    plan: ExecutionPlan, opening: dict[Role, list[Callable[[int], Forward]]], tokens: dict[Role, dict[str, Tokens]]
) -> list[dict[str, Any]]:
    """What `measure_speed` gives of them, by role what opens its models for so many threads, and its kinds of texts."""
    threads = sorted({1, plan.threads}) if plan.device == "cpu" else [plan.threads]
    timings: list[dict[str, Any]] = []
    with track("timing", len(threads) * len(BATCHES) * len(PLACES), "settings") as advance:
        for number in threads:
            answers = {role: _answer([opens(number) for opens in each]) for role, each in opening.items()}
            for size, kind in itertools.product(BATCHES, PLACES):
                rows = {role: each[kind] for role, each in tokens.items()}
                with replace(plan, threads=number).with_threads(), torch.inference_mode():
                    taken = _take_turns(answers, rows, size)
                found: dict[str, Any] = {role: _summary(rows[role], size, seconds) for role, seconds in taken.items()}
                timings.append({"threads": number, "batch": size, "texts": kind, **found})
                advance(1)
    return timings


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


def _module(model: PreTrainedModel) -> Callable[[int], Forward]:
    """What answers through torch, which has its threads already."""
    forward = plain(model)
    return lambda _threads: lambda tokens, rows: forward(tokens.batch(rows)).cpu()  # waits for a GPU to be done


def _graph(opened: FinishedModel, model: PreTrainedModel, folder: Path, form: str) -> Callable[[int], Forward]:
    """What opens a merged model's graph, which is written to this folder, for so many threads."""
    segments, labels = opened.tokeniser.reading.segments, [str(column) for column in opened.columns]
    graph = convert(model, segments=segments)
    try:
        save_as(form, graph, folder)
    except OSError as error:
        raise UserError(f"{folder.parent}: {error.strerror}. Name a folder with room for models in TMPDIR.") from None

    def open_(threads: int) -> Forward:
        engine = exported.open_engine(folder, ONNX_FILES[form], labels, threads, segments=segments)
        return lambda tokens, rows: engine.logits(tokens.take(rows))

    return open_


def _answer(forwards: Sequence[Forward]) -> Answer:
    """What answers once: several teachers do so one after the other."""

    def answer(tokens: Tokens, first: int, size: int) -> None:
        rows = np.arange(first, first + size) % len(tokens)
        for forward in forwards:
            forward(tokens, rows)

    return answer


def _take_turns(answers: dict[Role, Answer], tokens: dict[Role, Tokens], size: int) -> dict[Role, list[float]]:
    """Seconds of each round of each role; what disturbs the machine disturbs both."""
    taken: dict[Role, list[float]] = {role: [] for role in answers}
    until = time.perf_counter() + SECONDS
    for number in itertools.count():
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
