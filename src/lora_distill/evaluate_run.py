"""A finished run, judged on other labelled texts."""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_distill.config import ROLES, Config, Role
from lora_distill.control import apart
from lora_distill.data.labels import map_labels
from lora_distill.data.sources import read_labelled
from lora_distill.deployment.finished import open_models
from lora_distill.errors import UserError
from lora_distill.evaluation.comparison import compare_roles
from lora_distill.evaluation.intervals import bootstrap_intervals
from lora_distill.evaluation.metrics import classification_metrics, temperature_scaling
from lora_distill.known_texts import known_texts
from lora_distill.remembering import remembering
from lora_distill.run_folder import RunFolder
from lora_distill.seeding import generator
from lora_distill.training.logits import plain, predict_logits
from lora_distill.training.opinion_pool import pooled
from lora_distill.training.plan import choose_plan, enough_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)
OF_THE_TRAINING = (
    *("test", "test_intervals", "temperature_scaling", "validation"),
    *("seconds", "spared_seconds", "examples_per_second"),
)


@remembering()
def evaluate_run(path: Path, config: Config) -> tuple[dict[str, Any], Path]:
    """Judge each role of a run, in fp32, on the rows of a file (or of a data set's test split).

    Args:
        path: the run's folder.
        config: of it the dataset, its columns and the device are read.

    Returns:
        The results, in the shape of metrics.json with the new rows as "test", and the file that they belong in.

    Raises:
        UserError: no finished run, data that cannot be read, or unlike those that were trained on.
    """
    run = RunFolder(path)
    original = run.results()
    trained = run.resolved()
    _check_parts(path, trained, config)
    rows = read_labelled(
        config.dataset,
        text_column=config.text_column,
        label_column=config.label_column,
        test_fraction=trained.test_fraction,
        text_pair_column=config.text_pair_column,
    )
    names = original["data"]["label_names"]
    labels = map_labels(rows.labels, names, config.dataset)
    note = known_texts(run, rows.texts, []).note
    if note:
        logger.warning("%s", note)
    device = choose_plan(config.device, "fp32").device
    results: dict[str, Any] = {"exp_name": original["exp_name"]}
    logits: dict[Role, NDArray[np.float32]] = {}
    for role in _roles(original, trained):
        models = open_models(run, role)
        tokens = models[0].tokenised(rows.texts)
        stage = f"{role}: {len(labels):,} rows, in fp32"
        with enough_memory(device, "Judge it with --device cpu."):
            answers = [predict_logits(plain(each.model.to(device)), tokens, stage)[:, each.columns] for each in models]
        logits[role] = answers[0] if len(answers) == 1 else pooled(answers)
        facts = {name: value for name, value in original[role].items() if name not in OF_THE_TRAINING}
        temperature = original[role]["temperature_scaling"]["temperature"]
        results[role] = {
            "test": classification_metrics(logits[role], labels, names),
            "test_intervals": bootstrap_intervals(logits[role], labels, generator(trained.seed, "bootstrap")),
            "temperature_scaling": temperature_scaling(logits[role], labels, names, temperature),
            **facts,
        }
    results |= compare_roles(logits, labels, apart(trained.model_dump())) | {"same_backbone": original["same_backbone"]}
    results["data"] = {"name": config.dataset, "test_rows": len(labels), "label_names": names, "source": rows.source}
    results["data"]["notes"] = [note] if note else []
    results["fallbacks"] = original["fallbacks"]
    stem = re.sub(r"[^\w.-]+", "-", Path(config.dataset).stem or config.dataset)
    file = run.path / f"evaluation-{stem}-{rows.source['revision'][:8]}.json"
    return results, file


def _roles(original: dict[str, Any], trained: Config) -> list[Role]:
    """Those that are models."""
    if trained.teacher_predictions:
        logger.info("teacher: is a file of answers, which has none to other texts, and is left out")
    return [role for role in ROLES if role in original and not (role == "teacher" and trained.teacher_predictions)]


def _check_parts(path: Path, trained: Config, config: Config) -> None:
    """Refuse single texts where pairs were trained on, and pairs where single texts were."""
    if trained.text_pair_column and not config.text_pair_column:
        raise UserError(
            f"{path}: was trained on pairs of texts. Name the column of the second one with --text_pair_column."
        )
    if config.text_pair_column and not trained.text_pair_column:
        raise UserError(
            f"--text_pair_column {config.text_pair_column}: {path} was trained on single texts. Leave it out."
        )
