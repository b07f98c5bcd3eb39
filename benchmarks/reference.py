"""Teacher, student and control as a careful user would train them in plain transformers, PEFT and Trainer.

    python -m benchmarks.reference --variant trainer --base_model DIR --train FILE --validation FILE --test FILE
        --roles teacher,student,control --out result.json

Variants: `seed-style` (fp32, padded to max_length, the teacher's forward inside every student step), `trainer` (in the
precision given, rows of like length together, padded to the batch's longest, the teacher still online) and
`trainer-cached` (the same, the teacher's logits computed once beforehand). Settings not given here have the same
names in lora-distill.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import AutoTokenizer, DataCollatorWithPadding, logging

from benchmarks.data import read_rows
from benchmarks.machine import MemoryPeak, describe, process_age
from benchmarks.reference_model import VARIANTS, Recipe, load_teacher, make_model
from benchmarks.reference_trainer import Distillation, metrics, predict_logits, training_arguments

ROLES = ("teacher", "student", "control")


@dataclass
class Stages:
    """Wall seconds by stage, and when it all began."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what the context takes to a stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def tokenise(tokenizer: Any, rows: list[tuple[str, str]], names: list[str], recipe: Recipe) -> Dataset:  # noqa: ANN401
    """Columns input_ids, attention_mask, labels and, for grouping, length."""
    padding = "max_length" if recipe.is_padded else False
    texts = [text for text, _ in rows]
    encoded = tokenizer(
        texts, truncation=True, max_length=recipe.max_length, padding=padding, return_token_type_ids=False
    )
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return Dataset.from_dict({**encoded, "labels": [names.index(label) for _, label in rows], "length": lengths})


@dataclass
class Experiment:
    """Roles trained one after the other on the same splits.

    Attributes:
        recipe: of all of them.
        splits: train, validation and test as `tokenise` gives them.
        classes: number of labels.
        collator: pads.
        stages: filled as it goes on.
        teacher: given, or the one that was trained.
    """

    recipe: Recipe
    splits: dict[str, Dataset]
    classes: int
    collator: DataCollatorWithPadding
    stages: Stages
    teacher: PeftModel | None = None

    def run(self, role: str, work: Path) -> dict[str, Any]:
        """Train a role and judge it on the test split."""
        with self.stages.stage("load"):
            model = make_model(self.recipe, role, self.classes)
        teacher, rows = self.teacher if role == "student" else None, self.splits["train"]
        if teacher and self.recipe.variant == "trainer-cached":
            with self.stages.stage("teacher logits"):
                logits = predict_logits(teacher, rows, self.collator, bf16=self.recipe.is_bf16)
                rows = rows.add_column("teacher_logits", logits)
            teacher = self.teacher = None
        trainer = self.trainer(model, teacher, rows, work / role)
        with self.stages.stage(f"train {role}"):
            trainer.train()
        with self.stages.stage("evaluate"):
            judged = trainer.predict(self.splits["test"]).metrics["test_accuracy"]
        if role == "teacher":
            model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
            self.teacher = model.eval().requires_grad_(requires_grad=False)
        elif role == "student":
            self.teacher = None  # the control needs none
        clock = trainer.clock
        return {
            "rows_per_second": clock.rows_per_second(),
            "accuracy": judged,
            "step_seconds": clock.seconds,
            "step_rows": clock.rows,
            "step_tokens_computed": clock.computed,
        }

    def trainer(self, model: PeftModel, teacher: PeftModel | None, rows: Dataset, work: Path) -> Distillation:
        """A Trainer on these training rows that judges its epochs on validation."""
        return Distillation(
            self.recipe,
            teacher,
            model=model,
            args=training_arguments(self.recipe, work),
            train_dataset=rows,
            eval_dataset=self.splits["validation"],
            data_collator=self.collator,
            compute_metrics=metrics,
        )


def prepare(recipe: Recipe, files: dict[str, Path], rows: int | None, stages: Stages) -> Experiment:
    """Read and tokenise the splits; of train the first rows only, where that is asked for."""
    with stages.stage("tokenise"):
        texts = {name: read_rows(file) for name, file in files.items()}
        texts["train"] = texts["train"][:rows]
        labels = {label for _, label in texts["train"]}
        names = sorted(labels, key=lambda name: (int(name) if name.isdigit() else 0, name))
        tokenizer = AutoTokenizer.from_pretrained(recipe.base_model)
        splits = {name: tokenise(tokenizer, each, names, recipe) for name, each in texts.items()}
    return Experiment(recipe, splits, len(names), DataCollatorWithPadding(tokenizer), stages)


def main() -> None:
    """Train the roles and write the result."""
    stages = Stages({"import": process_age()})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for each in fields(Recipe):
        names = ["--epochs", "--num_epochs"] if each.name == "num_epochs" else [f"--{each.name}"]
        choices = VARIANTS if each.name == "variant" else None
        parser.add_argument(*names, dest=each.name, type=type(each.default), default=each.default, choices=choices)
    for name in ("train", "validation", "test", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="train on the first so many")
    parser.add_argument("--roles", default=",".join(ROLES))
    parser.add_argument("--teacher", type=Path, help="a PEFT adapter with its head; then no teacher need be trained")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    recipe = Recipe(**{each.name: getattr(arguments, each.name) for each in fields(Recipe)})
    files = {name: getattr(arguments, name) for name in ("train", "validation", "test")}
    with MemoryPeak(os.getpid()) as peak, tempfile.TemporaryDirectory() as work:
        experiment = prepare(recipe, files, arguments.rows, stages)
        if arguments.teacher:
            with stages.stage("load"):
                experiment.teacher = load_teacher(recipe, arguments.teacher, experiment.classes)
        roles = {}
        for role in arguments.roles.split(","):
            roles[role] = experiment.run(role, Path(work))
            gc.collect()  # a Trainer holds itself in a cycle, and its model with it
    result = {
        "machine": describe(),
        "recipe": vars(recipe),
        "train_rows": len(experiment.splits["train"]),
        "roles": roles,
        "seconds": stages.seconds,
        "seconds_of_all": process_age(),
        "memory": {"anonymous": peak.anonymous, "mapped": peak.mapped},
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
