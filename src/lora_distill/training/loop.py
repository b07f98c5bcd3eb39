"""The one training loop, for teacher, student and control alike."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from lora_distill.data.batches import Batch, TrainingOrder, to_device
from lora_distill.errors import UserError
from lora_distill.evaluation.calibration import calibrated_nll, mean_nll
from lora_distill.model.split import SplitClassifier
from lora_distill.profiling import record, stage, steps
from lora_distill.progress import track
from lora_distill.seeding import derive_seed
from lora_distill.training.checkpoint import (
    Progress,
    load_checkpoint,
    restore,
    save_checkpoint,
    snapshot,
    trainable,
)
from lora_distill.training.logits import predict_logits
from lora_distill.training.losses.distillation import distillation_loss
from lora_distill.training.optimizer import make_optimizer
from lora_distill.training.plan import ExecutionPlan
from lora_distill.training.recipe import SoftLabels, Split, TrainingSettings

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Takes each line of the history as soon as it is there; what it raises ends the training.
Observer = Callable[[dict[str, Any]], None]


class Unwanted(Exception):  # noqa: N818 - an observer's verdict, no error
    """Raised by an observer: nobody will go on with this training."""


def nobody(_line: dict[str, Any]) -> None:
    """The observer that looks away."""


def train(
    network: SplitClassifier,
    training: Split,
    validation: Split,
    *,
    role: str,
    settings: TrainingSettings,
    plan: ExecutionPlan,
    seed: int,
    work: Path,
    soft_labels: SoftLabels | None = None,
    observe: Observer = nobody,
) -> Progress:
    """Train LoRA and head; the model ends with the kept epoch's weights.

    Goes on from the last checkpoint under `work`, on a processor to the same bits as if it had never stopped.

    Args:
        network: on the plan's device, with its adapter attached.
        training: rows to learn from.
        validation: rows that choose the best epoch: where they are likeliest by the logits, divided by what fits best.
        role: names the progress lines and the history.
        settings: the recipe.
        plan: device and precision.
        seed: of the rows' order and of dropout.
        work: folder of the checkpoints, one after each epoch.
        soft_labels: the teacher's; None trains on the labels alone.
        observe: of an epoch that goes on from no checkpoint it may be told again.

    Raises:
        UserError: the loss is no longer a number.
    """
    model, order = _learner(network, soft_labels), training.order(settings)
    if training.class_weights is not None:
        training = replace(training, class_weights=to_device(training.class_weights, network.device))
    descent = _Descent.of(model, settings, order.steps)
    # On a processor the thread would take its time from those that compute.
    ahead = plan.device != "cpu" and training.rows.at_hand
    progress, best = load_checkpoint(work, model, descent.optimizer) or (Progress(), {})
    if progress.epoch:
        logger.info("%s: goes on after epoch %d", role, progress.epoch)
        descent.go_on(progress.step)

    while progress.epoch < settings.num_epochs and not _is_out_of_patience(progress, settings):
        network.train(derive_seed(seed, "dropout", progress.epoch))
        started = time.monotonic()
        batches = steps(_batches(training, order, seed, role, progress.epoch, settings.num_epochs, ahead=ahead), role)
        losses = (_batch_loss(network, batch, training, settings, soft_labels) for batch in batches)
        descent.epoch(losses, progress, role, observe)
        taken = time.monotonic() - started
        progress.seconds += taken
        record(f"{role}: training steps", taken)
        progress.epoch += 1
        with stage(f"{role}: validation"):
            _evaluate(network, validation, progress, role, settings.num_epochs)
        observe(progress.history[-1])  # before the checkpoint: what it ends is ended again when it is tried again
        if progress.best_epoch == progress.epoch or settings.keep_epoch == "last":
            best = snapshot(model)
        save_checkpoint(work, model, descent.optimizer, best, progress)

    restore(model, best)
    return progress


def _learner(network: SplitClassifier, soft_labels: SoftLabels | None) -> nn.Module:
    """All that is trained: the model, and beside it the projector of a student that matches pooled vectors."""
    model: nn.Module = network.model
    if soft_labels is None or soft_labels.matching is None:
        return model
    return nn.ModuleDict({"model": model, "projector": soft_labels.matching.projector})


@dataclass(frozen=True)
class _Descent:
    """What moves the weights."""

    optimizer: torch.optim.AdamW
    scheduler: torch.optim.lr_scheduler.LambdaLR
    parameters: list[nn.Parameter]
    settings: TrainingSettings
    steps_per_epoch: int

    @classmethod
    def of(cls, model: nn.Module, settings: TrainingSettings, steps_per_epoch: int) -> "_Descent":
        optimizer, scheduler = make_optimizer(model, settings, steps_per_epoch * settings.num_epochs)
        return cls(optimizer, scheduler, list(trainable(model).values()), settings, steps_per_epoch)

    def go_on(self, step: int) -> None:
        """With the rate that comes after so many steps."""
        self.scheduler.load_state_dict(self.scheduler.state_dict() | {"last_epoch": step})
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.lr_lambdas, strict=True):
            group["lr"] = group["initial_lr"] * rate(step)

    def epoch(self, losses: Iterator[torch.Tensor], progress: Progress, role: str, observe: Observer) -> None:
        """A step for the loss of each batch, and a line of the history now and then."""
        since: list[torch.Tensor] = []
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            progress.step += 1
            since.append(loss.detach())
            if progress.step % self.settings.logging_steps == 0 or progress.step % self.steps_per_epoch == 0:
                _log_step(progress, role, since, norm, self.optimizer.param_groups[0]["lr"])
                since.clear()
                observe(progress.history[-1])
            self.scheduler.step()


def _batches(
    training: Split, order: TrainingOrder, seed: int, role: str, epoch: int, epochs: int, *, ahead: bool
) -> Iterator[Batch]:
    with track(f"{role}: epoch {epoch + 1} of {epochs}", order.rows) as advance:
        batches = map(training.rows.batch, order.epoch(seed, epoch))
        for batch in read_ahead(batches) if ahead else batches:
            yield batch
            advance(len(batch.rows))


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in a thread while the one before it is in use."""
    with ThreadPoolExecutor(1) as worker:
        following = worker.submit(next, items, None)
        while (item := following.result()) is not None:
            following = worker.submit(next, items, None)
            yield item


def _batch_loss(
    network: SplitClassifier, batch: Batch, training: Split, settings: TrainingSettings, soft_labels: SoftLabels | None
) -> torch.Tensor:
    logits, pooled = network.logits_and_pooled(batch)
    hard: dict[str, Any] = {"class_weights": training.class_weights, "label_smoothing": settings.label_smoothing}
    targets = to_device(torch.from_numpy(training.labels[batch.rows]), logits.device)
    if soft_labels is None:
        return distillation_loss(logits, targets, **hard)
    loss = distillation_loss(
        logits,
        targets,
        to_device(torch.from_numpy(soft_labels.logits[batch.rows]), logits.device),
        alpha=soft_labels.alpha,
        temperature=soft_labels.temperature,
        soft_loss=soft_labels.loss,
        **hard,
    )
    return loss + soft_labels.matching.loss(pooled, batch.rows) if soft_labels.matching else loss


def _log_step(progress: Progress, role: str, losses: list[torch.Tensor], norm: torch.Tensor, rate: float) -> None:
    loss = torch.stack(losses).mean().item()
    if not math.isfinite(loss):
        raise _diverged(role, f"the loss is {loss}", progress.step)
    progress.history.append(
        {
            "role": role,
            "event": "step",
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm.item(),
        }
    )


def _diverged(role: str, what: str, step: int) -> UserError:
    return UserError(
        f"{role}: {what} at step {step}; the training has diverged.\nLower --learning_rate, or try --precision fp32."
    )


def _evaluate(network: SplitClassifier, validation: Split, progress: Progress, role: str, epochs: int) -> None:
    network.eval()
    logits = predict_logits(network.logits, validation.rows)
    if not np.isfinite(logits).all():
        raise _diverged(role, "the logits on validation hold no numbers", progress.step)
    accuracy = float((logits.argmax(axis=1) == validation.labels).mean())
    # Accuracy on few rows is chance's; the likelihood alone is against whoever grew sure, which a temperature mends.
    calibrated = calibrated_nll(logits, validation.labels)
    if calibrated < progress.best_nll:
        progress.best_epoch, progress.best_nll = progress.epoch, calibrated
    nll = mean_nll(logits, validation.labels)
    entry: dict[str, Any] = {
        "role": role,
        "event": "validation",
        "epoch": progress.epoch,
        "step": progress.step,
    }
    progress.history.append(entry | {"accuracy": accuracy, "nll": nll, "calibrated_nll": calibrated})
    done = f"epoch {progress.epoch} of {epochs}"
    logger.info("%s: %s: validation accuracy %.2f%%, loss %.4f", role, done, 100 * accuracy, nll)


def _is_out_of_patience(progress: Progress, settings: TrainingSettings) -> bool:
    patience = settings.early_stopping_patience
    return patience > 0 and progress.epoch - progress.best_epoch >= patience
