"""What runs show over seeds: each experiment's roles, student minus control, and the verdict."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lora_distill.config import CONTROLS, ROLES, TOLD, Role
from lora_distill.control import apart
from lora_distill.data.types import PARTS, Text, from_columns
from lora_distill.errors import UserError
from lora_distill.evaluation.comparison import Comparison, compare_over_seeds
from lora_distill.evaluation.over_seeds import RecipeDifference, holm, recipe_difference
from lora_distill.evaluation.significance import PairedDifference, paired_difference
from lora_distill.evaluation.verdict import Verdict, judge
from lora_distill.progress import ONCE
from lora_distill.run_folder import PREDICTIONS, RunFolder
from lora_distill.store import fingerprint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evidence:
    """One experiment over its seeds.

    Attributes:
        runs: names of those that finished.
        seeds: of these.
        seed_draws: what another seed changes.
        seed_keeps: what it does not, so that all is said for these.
        comparisons: student minus each control; none with one seed.
        verdicts: on the recipe, by control, corrected for all comparisons of the suite.
        test: fingerprint of the test rows.
        right: bool [n, S] of each role, by row of the test split and seed.
    """

    runs: list[str]
    seeds: list[int]
    seed_draws: list[str]
    seed_keeps: list[str]
    comparisons: dict[Role, Comparison]
    verdicts: dict[Role, Verdict]
    test: str
    right: dict[Role, NDArray[np.bool_]]

    @property
    def accuracy(self) -> dict[Role, list[float]]:
        """On the test split, of each role, by seed."""
        return {role: right.mean(axis=0).tolist() for role, right in self.right.items()}

    @property
    def verdict(self) -> Verdict | None:
        """On whether distillation helped."""
        return self.verdicts.get("control")

    @property
    def one_seed(self) -> dict[Role, PairedDifference]:
        """Student minus each control of these two models, where there is one seed and so nothing of the recipe."""
        controls = [control for control in CONTROLS if control in self.right and len(self.seeds) == 1]
        return {each: paired_difference(self.right["student"][:, 0], self.right[each][:, 0]) for each in controls}

    def right_with(self, role: Role, seeds: list[int]) -> NDArray[np.bool_]:
        """Whether a role is right, bool [n, S], by row and by these seeds, in their order."""
        return self.right[role][:, [self.seeds.index(seed) for seed in seeds]]

    def of_seed(self, place: int) -> "Evidence":
        """What one of its seeds shows alone."""
        right = {role: each[:, [place]] for role, each in self.right.items()}
        runs, seeds = [self.runs[place]], [self.seeds[place]]
        return replace(self, runs=runs, seeds=seeds, comparisons={}, verdicts={}, right=right)

    def lead_over(self, other: "Evidence", seeds: list[int]) -> RecipeDifference | PairedDifference:
        """How much more often its student is right than another's.

        Over seeds, and for other texts like these, where there are several; of these two models where there is one.

        Args:
            other: was judged on the same rows.
            seeds: that both have.
        """
        ours, theirs = (each.right_with("student", seeds) for each in (self, other))
        if len(seeds) > 1:
            return recipe_difference(ours.astype(np.float64) - theirs, largest=1)
        return paired_difference(ours[:, 0], theirs[:, 0])


def gather(groups: Mapping[str, list[RunFolder]]) -> dict[str, Evidence]:
    """The evidence for each experiment that has finished runs.

    Args:
        groups: runs that differ in nothing but the seed, by the experiment's name.

    Raises:
        UserError: runs of one experiment were made of or judged on different things, or a file is damaged.
    """
    finished = {name: [run for run in runs if run.finished] for name, runs in groups.items()}
    found = {name: _of_one(runs) for name, runs in finished.items() if runs}
    _warn_of_versions([run for runs in finished.values() for run in runs])
    differences = {
        (name, control): comparison.recipe["accuracy"]
        for name, each in found.items()
        for control, comparison in each.comparisons.items()
    }
    corrected = holm([each.p_value for each in differences.values()])
    for ((name, control), difference), p_value in zip(differences.items(), corrected, strict=True):
        differing = apart(finished[name][0].resolved().model_dump()) if control == "control" else ""
        found[name].verdicts[control] = judge(difference, p_value, len(corrected), TOLD[control], differing)
    return found


def _warn_of_versions(runs: list[RunFolder]) -> None:
    """What one version trained and another did is told apart by no key: a finished run is read, not trained again."""
    made = {fingerprint([run.environment().get(name) for name in ("versions", "git_revision")]) for run in runs}
    if len(made) > 1:
        logger.warning(
            "these runs were made by %d versions of this program or its libraries (environment.json says which): what"
            " differs between them may be theirs; --overwrite trains them by one",
            len(made),
            extra=ONCE,
        )


def as_json(evidence: dict[str, Evidence]) -> dict[str, Any]:
    """For a file: all but what is by row, and which p values are corrected for how many are asked."""
    each = {
        name: {key: value for key, value in asdict(found).items() if key != "right"}
        | {"accuracy": found.accuracy}
        | {"one_seed": {control: asdict(difference) for control, difference in found.one_seed.items()}}
        for name, found in evidence.items()
    }
    correction = {
        "method": "Holm",
        "comparisons": sum(len(found.verdicts) for found in evidence.values()),
        "corrected": ["verdicts.*.p_value"],
        "not_corrected": [
            *("comparisons.*.recipe.*.p_value", "comparisons.*.same_rows.*.p_value"),
            "one_seed.*.p_value",  # McNemar's exact test
        ],
    }
    return {"experiments": each, "correction": correction}


def _of_one(runs: list[RunFolder]) -> Evidence:
    """What the finished runs of one experiment show, but for the verdicts, which depend on the others."""
    results, tables = [run.results() for run in runs], [read_predictions(run) for run in runs]
    inputs = [run.inputs() | {"test rows": table.fingerprint()} for run, table in zip(runs, tables, strict=True)]
    first = tables[0]
    for run, own in zip(runs, inputs, strict=True):
        if differing := [what for what, fingerprint in own.items() if fingerprint != inputs[0][what]]:
            raise UserError(
                f"{run.path}: is no other seed of {runs[0].path}, for the two differ in: {', '.join(differing)}."
                "\nTrain them again on the same data and models: --overwrite."
            )
    comparisons: dict[Role, Comparison] = {}
    for control in CONTROLS if len(runs) > 1 else ():
        if all(control in table.logits for table in tables):
            ours, theirs = ([table.logits[role] for table in tables] for role in ("student", control))
            metrics = ([each[role]["test"] for each in results] for role in ("student", control))
            comparisons[control] = compare_over_seeds(ours, theirs, first.labels, *metrics)
    by_seed = _drawn_by_seed(results[0], runs[0].resolved().lora_dropout)
    return Evidence(
        runs=[run.path.name for run in runs],
        seeds=[run.resolved().seed for run in runs],
        seed_draws=[what for what, drawn in by_seed.items() if drawn],
        seed_keeps=[what for what, drawn in by_seed.items() if not drawn],
        comparisons=comparisons,
        verdicts={},
        test=str(inputs[0]["test rows"]),
        right={
            role: np.stack([table.logits[role].argmax(axis=1) == first.labels for table in tables], axis=1)
            for role in ROLES
            if all(role in table.logits for table in tables)
        },
    )


def _drawn_by_seed(results: dict[str, Any], lora_dropout: float) -> dict[str, bool]:
    """Whether another seed changes it; nothing of the splits where a run of an earlier version does not say it."""
    drawn = results["data"].get("drawn_by_seed")
    splits = {} if drawn is None else {"the training texts": "train", "the validation split": "validation"}
    if splits and "unlabelled_rows" in results["data"]:
        splits["the texts without labels"] = "unlabelled"
    return {
        **{what: split in drawn for what, split in splits.items()},
        "the teacher": "teacher" in results and not {"checkpoint", "file"} & results["teacher"].keys(),
        "the student's first weights": True,
        "the order of the rows": True,
        "dropout" if lora_dropout else "any dropout of the encoder's own": True,
    }


class Predictions(NamedTuple):
    """What a run answered on the test split.

    Attributes:
        ids: [N], of the rows.
        texts: N texts, or pairs of them.
        labels: int64 [N].
        logits: float32 [N, C] of each role.
    """

    ids: NDArray[Any]
    texts: list[Text]
    labels: NDArray[np.int64]
    logits: dict[Role, NDArray[np.float32]]

    def fingerprint(self) -> str:
        """Of the rows, whatever was answered: two runs with the same were judged on the same."""
        return fingerprint([self.ids.tolist(), self.texts, self.labels.tolist()])


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
        texts = from_columns({name: table[name].to_pylist() for name in PARTS if name in table.column_names})
        return Predictions(table["row_id"].to_numpy(), texts, table["label"].to_numpy(), logits)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: missing, damaged, or not as it was written ({type(error).__name__}: {error})."
            "\nPut it back, or train the run again with --overwrite."
        ) from None
