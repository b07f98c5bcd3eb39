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
from lora_distill.evaluation.verdict import judge
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
        p_value: corrected (Holm) for all that are held against the same.
        finding: as of a verdict.
        sentence: the same in words, with what it rests on.
        detectable: the smallest true difference that these seeds and rows show in four of five cases, a share; None:
            they are too few to decide, or show none.
    """

    name: str
    settings: dict[str, Any]
    seeds: list[int]
    teacher: float | None
    student: float
    difference: RecipeDifference
    p_value: float
    finding: str
    sentence: str
    detectable: float | None

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
        held = [each for each in by_name.values() if _is_alike(each, one)]
        if not held:
            raise UserError(
                f"--against {against}: no other was judged on the same rows with {LEAST_SHARED} of its seeds."
            )
        found = sorted(_gains(held, one), key=lambda each: -each.difference.difference)
        return cls(one, found, [name for name, each in by_name.items() if each not in held])

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
        rest = [f"Not held against it, for want of the same test rows or of {few}: {listed(self.left_out)}."]
        return [
            "",
            *(f"- {one_line(each.name)}: {each.sentence}" for each in self.of if each.finding in {"helped", "hurt"}),
            *(rest if self.left_out else []),
            "Points, with a 95% interval for other texts of this kind and other seeds. Detectable: the smallest true"
            " difference that these seeds and rows show in four of five cases, corrected as the p values are. Each was"
            " tried by itself: what several settings bring together is not their sum.",
        ]

    def as_markdown(self) -> str:
        """A table for a paper or an issue."""
        headings = self._headings(" ")
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
            found = each.difference
            numbers = [each.teacher, each.student, found.difference, found.low, found.high, each.p_value]
            writer.writerow([each.name, each.changed(), len(each.seeds), *numbers, each.finding, each.detectable])
        return file.getvalue()

    def as_json(self) -> dict[str, Any]:
        """All of it, and what its p values are corrected for."""
        correction = {"method": "Holm", "comparisons": len(self.of), "corrected": ["gains.*.p_value"]}
        correction["not_corrected"] = ["gains.*.difference.p_value"]
        return {"against": self.against.name, "gains": list(map(asdict, self.of)), "correction": correction}

    def _headings(self, line: str) -> list[str]:
        lead = f"Student -{line}{one_line(self.against.name)}"
        return [
            "Experiment",
            "Settings",
            "Seeds",
            "Teacher",
            "Student",
            lead,
            f"p{line}(Holm)",
            "Finding",
            "Detectable",
        ]

    def _rows(self, line: str) -> Iterator[list[str]]:
        for each in self.of:
            found = each.difference
            teacher = ABSENT if each.teacher is None else percent(each.teacher)
            lead = f"{points(found.difference)}{line}{interval(found.low, found.high)}"
            accuracy = [str(len(each.seeds)), teacher, percent(each.student)]
            shown = ABSENT if each.detectable is None else f"{100 * each.detectable:.2f}"
            yield [one_line(each.name), each.changed(line), *accuracy, lead, f"{each.p_value:.2g}", each.finding, shown]


def _said(value: object) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else one_line(str(value))


def _shared(each: Experiment, one: Experiment) -> list[int]:
    return [seed for seed in each.evidence.seeds if seed in one.evidence.seeds]


def _is_alike(each: Experiment, one: Experiment) -> bool:
    return each.evidence.test == one.evidence.test and len(_shared(each, one)) >= LEAST_SHARED


def _gains(held: Sequence[Experiment], one: Experiment) -> Iterator[Gain]:
    leads = [each.evidence.lead_over(one.evidence, _shared(each, one)) for each in held]
    differences = cast("list[RecipeDifference]", leads)  # as they are of several seeds
    corrected = holm([each.p_value for each in differences])
    theirs, told = settings_of(one), ("This", f"the student of {one_line(one.name)}")
    for each, difference, p_value in zip(held, differences, corrected, strict=True):
        changed = {
            name: value
            for name, value in settings_of(each).items()
            if value != theirs[name] and not is_of_control(name)
        }
        seeds, verdict = _shared(each, one), judge(difference, p_value, len(held), told)
        right = {role: each.evidence.right_with(role, seeds) for role in each.evidence.right}
        teacher = float(right["teacher"].mean()) if "teacher" in right else None
        said = verdict.finding, verdict.sentence, verdict.detectable
        yield Gain(each.name, changed, seeds, teacher, float(right["student"].mean()), difference, p_value, *said)
