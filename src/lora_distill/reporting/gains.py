"""What each experiment's student has over that of one of them: what its settings bring, each by themselves."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from rich.table import Table
from rich.text import Text

from lora_distill.control import is_of_control
from lora_distill.data.wording import listed, listing, points
from lora_distill.errors import UserError
from lora_distill.evaluation.over_seeds import RecipeDifference, holm
from lora_distill.evaluation.verdict import Verdict, judge
from lora_distill.reporting.pairs import settings_of
from lora_distill.reporting.sentences import interval, literal, one_line, percent
from lora_distill.reporting.summary import Experiment
from lora_distill.reporting.tables import ABSENT, plain_table

LEAST_SHARED = 2  # seeds: fewer tell nothing of a recipe


@dataclass(frozen=True)
class Gain:
    """One experiment's student minus that of the experiment that it is held against, on the seeds that both have.

    Attributes:
        name: of the experiment.
        settings: that differ from the other's, as this one has them.
        seeds: that both have.
        teacher: its mean accuracy on these; None: no run says it.
        student: likewise.
        difference: mean of the students' difference, a share, for other texts of this kind and other seeds.
        verdict: on it, corrected for all that are held against the same.
    """

    name: str
    settings: dict[str, Any]
    seeds: list[int]
    teacher: float | None
    student: float
    difference: RecipeDifference
    verdict: Verdict

    def changed(self, line: str = " ") -> str:
        """The settings in words, with this between them."""
        return f",{line}".join(f"{name} {_said(value)}" for name, value in self.settings.items())


@dataclass(frozen=True)
class Gains:
    """All that are held against one experiment.

    Attributes:
        against: that one.
        of: each other that was judged on the same rows and shares seeds enough, the greatest gain first.
        left_out: names of the rest.
    """

    against: Experiment
    of: list[Gain]
    left_out: list[str]

    @classmethod
    def over(cls, against: str, experiments: Sequence[Experiment]) -> "Gains":
        """Hold each experiment against the one of this name.

        Raises:
            UserError: there is no such experiment, or none that could be held against it.
        """
        by_name = {each.name: each for each in experiments}
        if against not in by_name:
            raise UserError(f"--against {against}: no such experiment. There are: {listing(by_name, 30)}.")
        one = by_name.pop(against)
        held = [each for each in by_name.values() if _can_be_held(each, one)]
        if not held:
            raise UserError(
                f"--against {against}: no other was judged on the same rows with {LEAST_SHARED} of its seeds."
            )
        found = sorted(_gains(held, one), key=lambda each: -each.difference.difference)
        return cls(one, found, [name for name in by_name if name not in {each.name for each in held}])

    def as_table(self) -> Table:
        """For the terminal, a row for each."""
        title = f"Students against that of {one_line(self.against.name)}, each on the seeds that both have"
        table = plain_table(title, *self._headings("\n"))
        for cells in self._rows("\n"):
            table.add_row(*map(Text, cells))
        return table

    def explained(self) -> list[str]:
        """What the table means: a blank line, each finding in words, what was left out."""
        few = f"{LEAST_SHARED} of its seeds"
        shown = [each for each in self.of if each.verdict.finding in {"helped", "hurt"}]
        rest = [f"Not held against it, for want of the same test rows or of {few}: {listed(self.left_out)}."]
        return [
            "",
            *(f"- {one_line(each.name)}: {each.verdict.sentence}" for each in shown),
            *(rest if self.left_out else []),
            "Points, with a 95% interval for other texts of this kind and other seeds. Detectable: the smallest true"
            " difference that these seeds and rows show in four of five cases, corrected as the p values are. Each was"
            " tried by itself: what several settings bring together is not their sum.",
        ]

    def as_markdown(self) -> str:
        """A table for a paper or an issue."""
        headings = map(literal, self._headings(" "))
        rows = ([*map(literal, row[:2]), *row[2:]] for row in self._rows(" "))
        lines = [headings, ["---", "---", *["---:"] * 5, "---", "---:"], *rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def as_csv(self) -> str:
        """Shares as numbers, a line for each."""
        file = io.StringIO()
        writer = csv.writer(file)
        columns = ("teacher", "student", "difference", "low", "high", "p_value", "finding", "detectable")
        writer.writerow(["experiment", "settings", "seeds", *columns])
        for each in self.of:
            found, said = each.difference, each.verdict
            numbers = [each.teacher, each.student, found.difference, found.low, found.high, said.p_value]
            writer.writerow([each.name, each.changed(), len(each.seeds), *numbers, said.finding, said.detectable])
        return file.getvalue()

    def as_json(self) -> dict[str, Any]:
        """All of it, and what its p values are corrected for."""
        correction = {"method": "Holm", "comparisons": len(self.of), "corrected": ["gains.*.verdict.p_value"]}
        correction["not_corrected"] = ["gains.*.difference.p_value"]
        return {"against": self.against.name, "gains": list(map(asdict, self.of)), "correction": correction}

    def _headings(self, line: str) -> list[str]:
        figures = ["Seeds", "Teacher", "Student", f"Student -{line}{one_line(self.against.name)}", f"p{line}(Holm)"]
        return ["Experiment", "Settings", *figures, "Finding", "Detectable"]

    def _rows(self, line: str) -> Iterator[list[str]]:
        for each in self.of:
            found, said = each.difference, each.verdict
            teacher = ABSENT if each.teacher is None else percent(each.teacher)
            lead = f"{points(found.difference)}{line}{interval(found.low, found.high)}"
            figures = [str(len(each.seeds)), teacher, percent(each.student), lead, f"{said.p_value:.2g}"]
            detectable = ABSENT if said.detectable is None else f"{100 * said.detectable:.2f}"
            yield [one_line(each.name), each.changed(line), *figures, said.finding, detectable]


def _said(value: object) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else one_line(str(value))


def _shared(each: Experiment, one: Experiment) -> list[int]:
    return [seed for seed in each.evidence.seeds if seed in one.evidence.seeds]


def _can_be_held(each: Experiment, one: Experiment) -> bool:
    return each.evidence.test == one.evidence.test and len(_shared(each, one)) >= LEAST_SHARED


def _gains(held: Sequence[Experiment], one: Experiment) -> Iterator[Gain]:
    shared = [_shared(each, one) for each in held]
    leads = [each.evidence.lead_over(one.evidence, seeds) for each, seeds in zip(held, shared, strict=True)]
    differences = cast("list[RecipeDifference]", leads)  # as they are of several seeds
    corrected = holm([each.p_value for each in differences])
    theirs, told = settings_of(one), ("This", f"the student of {one_line(one.name)}")
    for each, seeds, difference, p_value in zip(held, shared, differences, corrected, strict=True):
        settings = settings_of(each)
        teaches = "both" in (settings["learn_from"], theirs["learn_from"])
        changed = {
            name: value
            for name, value in settings.items()
            if value != theirs[name] and not is_of_control(name, teaches=teaches)
        }
        right = {role: each.evidence.right_with(role, seeds) for role in each.evidence.right}
        teacher = float(right["teacher"].mean()) if "teacher" in right else None
        verdict = judge(difference, p_value, len(held), told)
        yield Gain(each.name, changed, seeds, teacher, float(right["student"].mean()), difference, verdict)
