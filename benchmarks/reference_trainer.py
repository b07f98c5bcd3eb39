"""The reference's Trainer: the distillation loss, a clock, and arguments without anything that need not be paid for."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.nn import functional
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from benchmarks.reference_model import Recipe
from lora_distill.evaluation.calibration import calibrated_nll

EVALUATION_BATCH = 64
WARMING_STEPS = 3  # left out of the rates: first allocations, thread pools


class StepClock(TrainerCallback):  # type: ignore[misc] # transformers is untyped
    """Times every step, its batch's assembly included, evaluation and saving not.

    Attributes:
        seconds: of each step.
        rows: in each step.
        computed: tokens of each step that were computed on, padding included.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.rows: list[int] = []
        self.computed: list[int] = []
        self._last = 0.0

    def on_epoch_begin(self, *_: object, **__: object) -> None:
        """Start the clock."""
        self._last = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        """Note the step."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now

    def rows_per_second(self) -> float:
        """Of all steps but the first few.

        Grouping by length puts long batches first, so leaving those out would flatter: the rate is taken in tokens
        computed on and turned into rows by their mean over all steps.
        """
        kept = slice(WARMING_STEPS if len(self.seconds) > WARMING_STEPS else 0, None)
        tokens_per_second = sum(self.computed[kept]) / sum(self.seconds[kept])
        return tokens_per_second * sum(self.rows) / sum(self.computed)


class Distillation(Trainer):  # type: ignore[misc] # transformers is untyped
    """Trainer with a teacher: online, as a column `teacher_logits`, or none."""

    def __init__(self, recipe: Recipe, teacher: nn.Module | None = None, **settings: Any) -> None:  # noqa: ANN401
        self.recipe, self.teacher, self.clock = recipe, teacher, StepClock()
        super().__init__(callbacks=[self.clock], **settings)
        self.remove_callback(PrinterCallback)
        if teacher:
            teacher.to(self.args.device)

    def training_step(self, model: nn.Module, inputs: dict[str, torch.Tensor], *rest: object) -> torch.Tensor:
        """Note the batch's size for the clock."""
        self.clock.rows.append(len(inputs["input_ids"]))
        self.clock.computed.append(inputs["input_ids"].numel())
        loss: torch.Tensor = super().training_step(model, inputs, *rest)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: object = None,  # noqa: ARG002 - Trainer passes it
    ) -> Any:  # noqa: ANN401 - as Trainer's
        """Hard and soft loss in training, the hard loss in evaluation."""
        labels = inputs["labels"]
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        outputs = model(**read)
        logits = outputs.logits.float()
        loss = functional.cross_entropy(logits, labels)
        soft_labels = None
        if model.training and "teacher_logits" in inputs:
            soft_labels = inputs["teacher_logits"]
        elif model.training and self.teacher is not None:
            with torch.no_grad(), self.accelerator.autocast():
                soft_labels = self.teacher(**read).logits
        if soft_labels is not None:
            alpha, temperature = self.recipe.alpha, self.recipe.temperature
            soft = functional.kl_div(
                functional.log_softmax(logits / temperature, dim=-1),
                functional.log_softmax(soft_labels.float() / temperature, dim=-1),
                reduction="batchmean",
                log_target=True,
            )
            loss = (1 - alpha) * loss + alpha * temperature**2 * soft
        return (loss, outputs) if return_outputs else loss


def training_arguments(recipe: Recipe, folder: Path) -> TrainingArguments:
    """Nothing but what the recipe and keeping the best epoch need; no log, no optimizer state on disk."""
    return TrainingArguments(
        output_dir=str(folder),
        seed=recipe.seed,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=EVALUATION_BATCH,
        num_train_epochs=recipe.num_epochs,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=recipe.warmup_ratio,  # below 1 it is the share of all steps
        lr_scheduler_type="linear",
        max_grad_norm=recipe.max_grad_norm,
        use_cpu=not torch.accelerator.is_available(),
        bf16=recipe.is_bf16,
        train_sampling_strategy="random" if recipe.is_padded else "group_by_length",
        eval_strategy="epoch",
        save_strategy="best",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="calibrated_nll",
        greater_is_better=False,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,  # workers would take cores from the training, and a batch takes a millisecond
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
    )


@torch.no_grad()
def predict_logits(
    teacher: nn.Module, rows: Dataset, collator: DataCollatorWithPadding, *, bf16: bool
) -> list[list[float]]:
    """A finished teacher's logits in the rows' order, computed on rows of like length together."""
    device = next(teacher.parameters()).device
    logits: list[list[float]] = [[]] * len(rows)
    order = np.argsort(rows["length"])
    for at in range(0, len(order), EVALUATION_BATCH):
        indices = order[at : at + EVALUATION_BATCH].tolist()
        batch = collator([rows[index] for index in indices]).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            out = teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        for index, row in zip(indices, out.float().tolist(), strict=True):
            logits[index] = row
    return logits


def metrics(prediction: Any) -> dict[str, float]:  # noqa: ANN401 - Trainer's EvalPrediction
    """Accuracy, and what the best epoch is chosen by, as ours is."""
    logits, labels = prediction.predictions, prediction.label_ids
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    return {"accuracy": accuracy, "calibrated_nll": calibrated_nll(logits, labels)}
