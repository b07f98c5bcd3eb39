"""What a finished run says of its models, and the files that it leaves."""

import shutil
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lora_distill.config import ROLES, Role
from lora_distill.control import apart
from lora_distill.data.types import as_columns
from lora_distill.deployment.exported import about_model
from lora_distill.deployment.finished import tokeniser_for
from lora_distill.deployment.forms import ADAPTER, CLASSIFIER
from lora_distill.evaluation.calibration import fit_temperature
from lora_distill.evaluation.comparison import compare_roles
from lora_distill.evaluation.intervals import bootstrap_intervals
from lora_distill.evaluation.metrics import classification_metrics, temperature_scaling
from lora_distill.made_with import made_with
from lora_distill.preparation import Prepared
from lora_distill.reporting.model_card import model_card
from lora_distill.run_folder import HISTORY, METRICS, PREDICTIONS, RunFolder
from lora_distill.seeding import generator
from lora_distill.store import whole_folder, write_json, write_jsonl, write_whole
from lora_distill.training.outcome import Outcome


def judged(outcomes: dict[Role, Outcome]) -> dict[Role, Outcome]:
    """Those of which something can be said, as they are shown: a file may have answered none of the test rows."""
    return {role: outcomes[role] for role in ROLES if role in outcomes and "test" in outcomes[role].logits}


def judge(prepared: Prepared, outcomes: dict[Role, Outcome], fallbacks: list[str]) -> dict[str, Any]:
    """All that metrics.json says, but for what it took."""
    config, dataset = prepared.config, prepared.dataset
    labels, names = dataset.test.labels, dataset.label_names
    results: dict[str, Any] = {"exp_name": config.exp_name}
    for role, outcome in outcomes.items():
        logits, validation = outcome.logits["test"], outcome.logits["validation"]
        temperature = fit_temperature(validation, dataset.validation.labels)
        results[role] = {
            "test": classification_metrics(logits, labels, names),
            "test_intervals": bootstrap_intervals(logits, labels, generator(config.seed, "bootstrap")),
            "temperature_scaling": temperature_scaling(logits, labels, names, temperature),
            "validation": classification_metrics(validation, dataset.validation.labels, names),
            **({} if role == "teacher" else {"budget": config.student_budget}),
            **({"base_model": prepared.base_of(role).name} if outcome.adapters else {}),
            **outcome.facts,
            "reused": config.exp_name not in outcome.runs,
        }
    test = {role: outcome.logits["test"] for role, outcome in outcomes.items()}
    results |= compare_roles(test, labels, apart(config.model_dump()))
    is_trained = not (prepared.given_teacher or prepared.answers)
    results["same_backbone"] = is_trained and prepared.base == prepared.student_base
    results["data"] = {
        "name": dataset.name,
        **{f"{name}_rows": len(rows) for name, rows in dataset.splits().items()},
        "label_names": names,
        "fingerprint": dataset.fingerprint,
        "source": dataset.source,
        "unlabelled_source": dataset.unlabelled_source,
        "notes": dataset.notes,
        "drawn_by_seed": dataset.drawn_by_seed(),
    }
    results["fallbacks"] = fallbacks
    return results


def save(run: RunFolder, prepared: Prepared, outcomes: dict[Role, Outcome], results: dict[str, Any]) -> None:
    """Write what the run leaves, metrics.json last."""
    dataset, config = prepared.dataset, prepared.config.model_dump(mode="json")
    for role, outcome in outcomes.items():
        card = model_card(role=role, results=results, config=config, base=prepared.base_of(role).recorded())
        with whole_folder(run.path / role) as folder:
            for place, adapter in outcome.adapters.items():
                # Not with their modes: safetensors makes files that nobody else may read.
                shutil.copytree(adapter, folder / place, dirs_exist_ok=True, copy_function=shutil.copyfile)
            (folder / "README.md").write_text(card, encoding="utf-8")
            if set(outcome.adapters) == {""}:  # so that it answers as here wherever it is copied
                write_json(folder / CLASSIFIER, _about(prepared, role, results))
    columns = {"row_id": dataset.test.ids, **as_columns(dataset.test.texts), "label": dataset.test.labels}
    for role, outcome in outcomes.items():
        logits = outcome.logits["test"]
        columns[f"{role}_logits"] = pa.array(list(logits), type=pa.list_(pa.float32(), logits.shape[1]))
        columns[f"{role}_prediction"] = logits.argmax(axis=1)
    table = pa.table(columns)
    write_whole(run.path / PREDICTIONS, lambda beside: pq.write_table(table, beside))
    write_jsonl(run.path / HISTORY, [line for outcome in outcomes.values() for line in outcome.history])
    write_json(run.path / METRICS, results)


def _about(prepared: Prepared, role: Role, results: dict[str, Any]) -> dict[str, Any]:
    config, base = prepared.config, prepared.base_of(role)
    reading = tokeniser_for(config, base.folder).reading
    about = about_model(ADAPTER, prepared.dataset.label_names, reading, base.name, role, results)
    return about | {"made_with": made_with()}
