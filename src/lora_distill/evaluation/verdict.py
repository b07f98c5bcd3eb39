"""What the evidence allows to say: helped, hurt, or neither, and what would tell."""

from dataclasses import dataclass
from typing import Literal

from lora_distill.config import TOLD
from lora_distill.data.wording import points
from lora_distill.evaluation.enough import missing, rounded
from lora_distill.evaluation.over_seeds import RecipeDifference

Finding = Literal["helped", "hurt", "no difference", "too little"]
LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """A finding and how it is said.

    Attributes:
        finding: of the tests.
        sentence: in words, with the figures that it rests on.
        p_value: corrected for the comparisons of the suite.
        detectable: the smallest true difference that so many seeds and rows show in four of five such suites, as a
            share; None where they are too few to decide, or show none.
    """

    finding: Finding
    sentence: str
    p_value: float
    detectable: float | None


def judge(
    found: RecipeDifference,
    p_value: float | None = None,
    comparisons: int = 1,
    told: tuple[str, str] = TOLD["control"],
    apart: str = "",
) -> Verdict:
    """Say what student minus control, or another of two recipes minus the other, shows.

    Args:
        found: of shares of right rows, over seeds.
        p_value: corrected for the comparisons beside it; None: there are none.
        comparisons: that it is corrected for, this one with them.
        told: what it would be owed to, and the other of the two.
        apart: what it differs in from the student beside that, as a clause.
    """
    cause, other = told
    p_value = found.p_value if p_value is None else p_value
    evidence = (
        f"{points(found.difference)} points over {other}{apart} "
        f"({found.confidence:.0%} interval {points(found.low)} to {points(found.high)}, "
        f"{found.seeds} seeds, p {_p(p_value)}{f' corrected for {comparisons} comparisons' if comparisons > 1 else ''})"
    )
    if not found.can_decide:
        lacks = missing(found.seeds, found.rows, found.discordant)
        return Verdict("too little", f"Too little to tell: {evidence}; {lacks}.", p_value, None)
    level = LEVEL / comparisons  # of the least p value of them all: what another needs is less
    shown = found.detectable(level)
    detectable = shown if shown <= 1 else None  # no two shares differ by more
    if p_value < LEVEL and not found.low <= 0 <= found.high:
        finding: Finding = "helped" if found.difference > 0 else "hurt"
        return Verdict(finding, f"{cause} {finding}: {evidence}.", p_value, detectable)
    # The interval is of this comparison alone and may leave zero out where the corrected test does not reject.
    among = " once it is corrected for how many are asked" if not found.low <= 0 <= found.high else ""
    sentence = f"No difference that this data can show{among}: {evidence}; {_needed(found, level, detectable)}."
    return Verdict("no difference", sentence, p_value, detectable)


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"


def _needed(found: RecipeDifference, level: float, detectable: float | None) -> str:
    """What would show a difference as large as the one that was seen, and what can be shown as it is."""
    least = "none, however large" if detectable is None else f"{100 * detectable:.2f} points"
    shown = f"what {found.seeds} seeds and {found.rows:,} rows show in four of five cases is {least}"
    if not found.difference:  # nothing shows a difference of nothing
        return shown
    this = f"{shown}; for one as small as this"
    seeds, rows = (needed(found.difference, level) for needed in (found.seeds_needed, found.rows_needed))
    if not seeds and not rows:
        return f"{this} neither seeds nor rows alone would do"
    ways = {"seeds": f"{seeds} seeds" if seeds else "", "test rows": f"{rounded(rows):,} test rows" if rows else ""}
    useless = "".join(f"; no number of {what} alone would do" for what, way in ways.items() if not way)
    return f"{this} it would take about {' or '.join(filter(None, ways.values()))}{useless}"
