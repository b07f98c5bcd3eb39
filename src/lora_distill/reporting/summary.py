"""One line for each experiment, over its seeds: what tables, pages and files for papers are made of."""

import csv
import functools
import io
import operator
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_distill.config import CONTROLS, ROLES, Role
from lora_distill.data.wording import points
from lora_distill.deployment.forms import ADAPTER, EXPORTED, MERGED, VERIFICATION
from lora_distill.evaluation.over_seeds import share_over_seeds
from lora_distill.evidence import Evidence
from lora_distill.model.adapter_files import ADAPTER_WEIGHTS
from lora_distill.reporting.sentences import differences_of_one_seed, literal, percent, roles_in, with_interval
from lora_distill.run_folder import SPEED, RunFolder
from lora_distill.store import read_if_whole, read_json

FIGURES = {
    "macro F1": ("test", "macro_f1"),
    "NLL": ("test", "nll"),
    "Brier": ("test", "brier"),
    "ECE": ("test", "ece"),
    "ECE, equal mass": ("test", "ece_equal_mass"),
    "AURC": ("test", "aurc"),
    "temperature": ("temperature_scaling", "temperature"),
    "NLL at that temperature": ("temperature_scaling", "nll"),
    "ECE at that temperature": ("temperature_scaling", "ece"),
}


@dataclass(frozen=True)
class Experiment:
    """One line of the table, and one section.

    Attributes:
        name: of the experiment.
        evidence: over its seeds.
        runs: of each seed.
        results: what the metrics.json of each holds.
    """

    name: str
    evidence: Evidence
    runs: list[RunFolder]
    results: list[dict[str, Any]]

    @property
    def trainable(self) -> int:
        """The student's trainable parameters."""
        return int(self.results[0]["student"]["trainable_parameters"]["total"])

    @property
    def budget(self) -> int:
        """What they may be at most."""
        return int(self.results[0]["student"]["budget"])

    @property
    def total(self) -> int:
        """All of the student's parameters."""
        return int(self.results[0]["student"]["total_parameters"])

    @property
    def seconds(self) -> float:
        """What all its runs took."""
        return float(sum(each["seconds"] for each in self.results))

    @functools.cached_property
    def measured(self) -> dict[str, Any] | None:
        """What `lora-distill speed` has measured of its first run that was timed; None: none was."""
        files = [run.path / SPEED for run in self.runs]
        found = (read_if_whole(read_json, file) for file in files if file.is_file())
        return next((each for each in found if each), None)

    @property
    def seconds_a_text(self) -> dict[Role, float]:
        """What a text of 32 long ones takes on all threads, by role; empty where no run was timed."""
        timing = self.measured["timings"][-1] if self.measured else {}
        return {role: timing[role]["median"] / timing["batch"] for role in ROLES if role in timing}

    @property
    def timed_form(self) -> str:
        """The form that it was timed in, as one exports it; empty where no run was. Earlier versions timed but one."""
        return str(self.measured.get("form", MERGED)) if self.measured else ""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the student: its adapter on disk, and the whole of it, as it was timed and in each exported form."""
        file = self.runs[0].path / "student" / ADAPTER_WEIGHTS
        found = {ADAPTER: file.stat().st_size} if file.is_file() else {}
        model = self.measured["models"]["student"] if self.measured else {}
        if "weight_bytes" in model:  # earlier versions did not call it so
            found[MERGED] = model["weight_bytes"]
        exported = [
            read_if_whole(read_json, file)
            for run in self.runs
            for file in sorted(run.path.glob(f"{EXPORTED}/student-*/{VERIFICATION}"))
        ]
        return found | {each["form"]: each["bytes"] for each in exported if each}

    def of_each_seed(self) -> list["Experiment"]:
        """Its runs, each as an experiment of one seed."""
        return [
            Experiment(run.path.name, self.evidence.of_seed(place), [run], [results])
            for place, (run, results) in enumerate(zip(self.runs, self.results, strict=True))
        ]

    def mean(self, role: str, *keys: str) -> float | None:
        """The mean over seeds of a figure of a role, by its keys in metrics.json; None where a run has no such role."""
        if not all(role in each for each in self.results):  # answers in a file may be to the rows of some seeds only
            return None
        return statistics.mean(float(functools.reduce(operator.getitem, keys, each[role])) for each in self.results)

    def figures(self) -> dict[str, str]:
        """What can be said in figures, means over seeds, by name."""
        said = {"seeds": ", ".join(map(str, self.evidence.seeds)), "trainable parameters": f"{self.trainable:,}"}
        said["total parameters"] = f"{self.total:,}"
        for role in ROLES:
            if found := self.accuracy(role):
                said[f"{role}: accuracy"] = with_interval(found)
        for control in CONTROLS:
            if found := self.difference(control):
                said[f"student − {control}, points"] = with_interval(found, points)
        agreed = self.mean("agreement", "student_teacher", "rate")
        if agreed is not None:
            said["same as teacher"] = percent(agreed)
            said["KL(teacher ‖ student), nats"] = f"{self.mean('agreement', 'student_teacher', 'kl'):.4f}"
        for role in ROLES:
            for name, keys in FIGURES.items():
                value = self.mean(role, *keys)
                if value is not None:
                    said[f"{role}: {name}"] = f"{value:.4f}"
        return said | {"seconds": f"{self.seconds:,.0f}"}

    @property
    def sentence(self) -> str:
        """What may be said of student minus each control."""
        if self.evidence.verdicts:
            return " ".join(each.sentence for each in self.evidence.verdicts.values())
        said = differences_of_one_seed(self.results[0])
        if not said:
            return "No control was trained, so nothing can be said of the distillation."
        return f"One seed, so these models only: {' '.join(said)}"

    @property
    def finding(self) -> str:
        """A word for the eye."""
        if self.evidence.verdict:
            return self.evidence.verdict.finding
        return "one seed" if self.difference() and len(self.evidence.seeds) == 1 else "no control"

    @property
    def test(self) -> tuple[str, float] | None:
        """What student minus control was tested by, and the p value; those of two tests are not alike."""
        if self.evidence.verdict:
            return "rows and seeds at random, corrected (Holm)", self.evidence.verdict.p_value
        comparison = self.results[0].get("student_minus_control")
        return ("McNemar, one seed, not corrected", comparison["p_value"]) if comparison else None

    def difference(self, control: Role = "control") -> tuple[float, float, float] | None:
        """Student minus a control and its 95% interval, as shares."""
        if control in self.evidence.comparisons:
            found = self.evidence.comparisons[control].recipe["accuracy"]
            return found.difference, found.low, found.high
        comparison = self.results[0].get(f"student_minus_{control}")
        return (comparison["accuracy"], *comparison["interval"]) if comparison else None

    def accuracy(self, role: Role, seeds: list[int] | None = None) -> tuple[float, float, float] | None:
        """Mean accuracy of a role and its 95% interval, for other texts and seeds; with one seed, of that model.

        Args:
            role: which.
            seeds: of all that there are, if None.
        """
        if role not in self.evidence.right:
            return None
        right = self.evidence.right_with(role, self.evidence.seeds if seeds is None else seeds)
        return float(right.mean()), *share_over_seeds(right)


def summarise(evidence: Mapping[str, Evidence], runs: Mapping[str, list[RunFolder]]) -> list[Experiment]:
    """Put together what is known of each experiment that has finished runs.

    Args:
        evidence: by experiment.
        runs: of each.
    """
    return [
        Experiment(name, found, finished, [run.results() for run in finished])
        for name, found in evidence.items()
        if (finished := [run for run in runs[name] if run.finished])
    ]


def as_csv(experiments: list[Experiment]) -> str:
    """Shares and their 95% intervals as numbers, a line for each experiment; empty where there is none."""
    file = io.StringIO()
    parts = ("", "_low", "_high")
    names = [*ROLES, *(f"student_minus_{control}" for control in CONTROLS)]
    columns = [f"{name}{part}" for name in names for part in parts]
    writer = csv.writer(file)
    writer.writerow(["experiment", "seeds", "trainable", "total", "budget", *columns, "p_value", "test", "finding"])
    for each in experiments:
        found = [*(each.accuracy(role) for role in ROLES), *(each.difference(control) for control in CONTROLS)]
        numbers = [number for triple in found for number in triple or ("", "", "")]
        budget = each.results[0]["student"]["budget"]
        test, p_value = each.test or ("", "")
        seeds = len(each.evidence.seeds)
        sizes = [each.trainable, each.total, budget]
        writer.writerow([each.name, seeds, *sizes, *numbers, p_value, test, each.finding])
    return file.getvalue()


def as_markdown(experiments: list[Experiment]) -> str:
    """A table for a paper or an issue."""
    roles = roles_in(results for each in experiments for results in each.results)
    controls = [control for control in CONTROLS if control in roles]
    figures = [*(role.capitalize() for role in roles), *(f"Student - {control}" for control in controls)]
    headings = ["Experiment", "Seeds", "Trainable", "Total", *(f"{figure} [95%]" for figure in figures), "p", "Test"]
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)]]
    for each in experiments:
        accuracies = [with_interval(each.accuracy(role)) for role in roles]
        tested = (f"{each.test[1]:.2g}", each.test[0]) if each.test else ("", "")
        leads = [with_interval(each.difference(control), points) for control in controls]
        sizes = [f"{each.trainable:,}", f"{each.total:,}"]
        lines.append([literal(each.name), str(len(each.evidence.seeds)), *sizes, *accuracies, *leads, *tested])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
