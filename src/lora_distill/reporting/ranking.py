"""Which student is most often right, and which may be as good for less."""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_distill.data.wording import counted, points
from lora_distill.evaluation.over_seeds import RecipeDifference
from lora_distill.evaluation.significance import PairedDifference
from lora_distill.reporting.sentences import one_line, percent
from lora_distill.reporting.summary import Experiment


@dataclass(frozen=True)
class Ranking:
    """The students that were judged on the same rows, ranked on the seeds that they share.

    Attributes:
        students: the most accurate first; of several that are as often right, the one with the fewest trainable
            parameters.
        seeds: that all of them have.
        unranked: those with one seed where others have several; all of them where no seed is shared.
    """

    students: list[Experiment]
    seeds: list[int]
    unranked: list[Experiment]

    def lead_over(self, other: Experiment) -> RecipeDifference | PairedDifference | None:
        """How much more often the best is right than another; None: it is unranked."""
        if other.name in [each.name for each in self.unranked]:
            return None
        return self.students[0].evidence.lead_over(other.evidence, self.seeds)

    def accuracy(self, experiment: Experiment) -> tuple[float, float, float]:
        """Of a student, on the seeds that it is ranked on."""
        return experiment.accuracy("student", self.seeds) or (0.0, 0.0, 0.0)

    def sentences(self, where: str = "") -> list[str]:
        """The best student, the smallest that may be as good, and who is not ranked; none of a single student.

        Args:
            where: follows `student`, such as ` on these data`.
        """
        said = self._best(where) if len(self.students) > 1 else []
        if self.students and self.unranked:
            names = ", ".join(one_line(each.name) for each in self.unranked)
            said.append(f"Not ranked with others of several seeds, for there is one seed: {names}.")
        elif len(self.unranked) > 1:
            said.append(f"No student{where} can be called the most accurate, for they share no seed.")
        return said

    def _best(self, where: str) -> list[str]:
        best, *others = self.students
        mean, low, high = self.accuracy(best)
        fewer = any(len(each.evidence.seeds) > len(self.seeds) for each in self.students)
        over = f" over {counted(len(self.seeds), 'seed')} that all have" if fewer else ""
        ties = sum(self.accuracy(each)[0] == mean for each in others)
        also = f", and {counted(ties, 'other')} as often right" if ties else ""
        student = f"The most accurate student{where}{over} is {one_line(best.name)}, {_spends(best)}"
        said = [f"{student}: {percent(mean)} (95% interval {percent(low)} to {percent(high)}){also}."]
        smaller = [(each, self.lead_over(each)) for each in others if each.trainable < best.trainable]
        alike = [(each, lead) for each, lead in smaller if lead and (not lead.can_decide or lead.low <= 0 <= lead.high)]
        if alike:
            least, lead = min(alike, key=lambda each: each[0].trainable)
            student = f"These runs cannot tell it from {one_line(least.name)}, {_spends(least)}"
            few = "" if lead.can_decide else ", from too few seeds, or too few rows on which they differ, to decide"
            ends = f"{points(lead.low)} to {points(lead.high)}"
            said.append(f"{student}: its lead is {points(lead.difference)} points ({ends}){few}.")
        return said


def rank_students(experiments: Sequence[Experiment]) -> dict[str, Ranking]:
    """The ranking of each test split, by its fingerprint."""
    rivals: dict[str, list[Experiment]] = {}
    for each in experiments:
        rivals.setdefault(each.evidence.test, []).append(each)
    return {test: _rank(those) for test, those in rivals.items()}


def say_ranking(experiments: Sequence[Experiment]) -> list[str]:
    """What the ranking of each test split says; of which data, and that they are several, where they are."""
    rankings = rank_students(experiments)
    said, judged_on = [], []
    for test, ranking in rankings.items():
        judged = [each for each in experiments if each.evidence.test == test]
        data = one_line(judged[0].results[0]["data"]["name"])
        said += ranking.sentences(f" on {data}" if len(rankings) > 1 else "")
        judged_on.append(f"{', '.join(one_line(each.name) for each in judged)} on rows of {data}")
    if len(rankings) > 1:
        said.append(f"Accuracies on different test rows are not to be compared: {'; '.join(judged_on)}.")
    return said


def _rank(rivals: list[Experiment]) -> Ranking:
    alone = [each for each in rivals if len(each.evidence.seeds) == 1]
    several = [each for each in rivals if len(each.evidence.seeds) > 1]
    students, unranked = (several, alone) if several else (alone, [])
    seeds = sorted(set.intersection(*(set(each.evidence.seeds) for each in students)))
    if not seeds:
        return Ranking([], [], rivals)
    found = Ranking(students, seeds, unranked)
    students.sort(key=lambda each: (-found.accuracy(each)[0], each.trainable))
    return found


def _spends(experiment: Experiment) -> str:
    share = percent(experiment.trainable / experiment.budget)
    return f"with {experiment.trainable:,} trainable parameters ({share} of the budget)"
