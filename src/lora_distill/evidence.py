"""What runs show over seeds: each experiment's roles, student minus control, and the verdict."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lora_distill.config import ROLES, Role
from lora_distill.errors import UserError
from lora_distill.evaluation.comparison import Comparison, compare_over_seeds
from lora_distill.evaluation.over_seeds import holm
from lora_distill.evaluation.verdict import Verdict, judge
from lora_distill.run_folder import PREDICTIONS, RunFolder


@dataclass(frozen=True)
class Evidence:
    """One experiment over its seeds.

    Attributes:
        runs: names of those that finished.
        seeds: of these.
        accuracy: on the test split, by role and seed.
        comparison: student minus control; None with one seed or without a control.
        verdict: on the recipe, corrected for the other experiments of the suite.
    """

    runs: list[str]
    seeds: list[int]
    accuracy: dict[str, list[float]]
    comparison: Comparison | None
    verdict: Verdict | None


def gather(groups: Mapping[str, list[RunFolder]]) -> dict[str, Evidence]:
    """The evidence for each experiment that has finished runs.

    Args:
        groups: runs that differ in nothing but the seed, by the experiment's name.

    Raises:
        UserError: runs of one experiment were judged on different rows, or a file is damaged.
    """
    finished = {name: [run for run in runs if run.finished] for name, runs in groups.items()}
    compared = {name: _compare(runs) for name, runs in finished.items()}
    differences = {name: each.recipe["accuracy"] for name, each in compared.items() if each}
    corrected = dict(zip(differences, holm([each.p_value for each in differences.values()]), strict=True))
    return {
        name: Evidence(
            [run.path.name for run in runs],
            [run.resolved().seed for run in runs],
            _accuracies(runs),
            compared[name],
            judge(differences[name], corrected[name]) if name in differences else None,
        )
        for name, runs in finished.items()
        if runs
    }


def as_json(evidence: dict[str, Evidence]) -> dict[str, Any]:
    """For a file."""
    each = {name: asdict(found) for name, found in evidence.items()}
    return {"experiments": each, "correction": "Holm"}


def _accuracies(runs: list[RunFolder]) -> dict[str, list[float]]:
    results = [run.results() for run in runs]
    return {role: [each[role]["test"]["accuracy"] for each in results] for role in ROLES if role in results[0]}


def _compare(runs: list[RunFolder]) -> Comparison | None:
    tables = [read_predictions(run) for run in runs]
    if len(tables) < 2 or any("control" not in table.logits for table in tables):
        return None
    first = tables[0]
    for run, other in zip(runs, tables, strict=True):
        if not np.array_equal(first.ids, other.ids) or not np.array_equal(first.labels, other.labels):
            raise UserError(
                f"{run.path}: was judged on other test rows than {runs[0].path}, so the two cannot be compared."
                "\nTrain them again on the same data: --overwrite."
            )
    names = runs[0].results()["data"]["label_names"]
    student, control = ([table.logits[role] for table in tables] for role in ("student", "control"))
    return compare_over_seeds(student, control, first.labels, names)


class Predictions(NamedTuple):
    """What a run answered on the test split.

    Attributes:
        ids: [N], of the rows.
        texts: N texts.
        labels: int64 [N].
        logits: float32 [N, C] of each role.
    """

    ids: NDArray[Any]
    texts: list[str]
    labels: NDArray[np.int64]
    logits: dict[Role, NDArray[np.float32]]


def read_predictions(run: RunFolder) -> Predictions:
    """What a finished run answered.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = run.path / PREDICTIONS
    try:
        table = pq.read_table(path)
        logits: dict[Role, NDArray[np.float32]] = {
            role: np.stack(table[f"{role}_logits"].to_numpy())
            for role in ROLES
            if f"{role}_logits" in table.column_names
        }
        return Predictions(table["row_id"].to_numpy(), table["text"].to_pylist(), table["label"].to_numpy(), logits)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: missing, damaged, or not as it was written ({type(error).__name__}: {error})."
            "\nPut it back, or train the run again with --overwrite."
        ) from None
