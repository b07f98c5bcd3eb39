"""Plots as SVG elements to be put into a page, whose style sheet colours them; each mark says what it is."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

Text = Callable[[float], str]
WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 14, 46  # the widest of the texts left of the axis is such as 97.25%
MARK_WIDTH, MOST_ASIDE, LETTER_WIDTH = 14, 70, 7
# Roles are told apart without their colours, too (WCAG 1.4.1): paths around 0, some 1 in all directions.
CIRCLE = "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1 -1 0Z"
SHAPES = {
    "teacher": "M-.9-.9H.9V.9H-.9Z",
    "control": "M0-1.2L1.2 1H-1.2Z",
    "self-trained": "M0-1.3L1.3 0L0 1.3L-1.3 0Z",
}


def percent_text(value: float) -> str:
    """`94.5%`."""
    return f"{100 * value:.4g}%"


def points_text(value: float) -> str:
    """`+1.5`, in percentage points."""
    return f"{round(100 * value, 6) + 0.0:+.4g}"


def count_text(value: float) -> str:
    """`1,200`."""
    return f"{value:,.0f}"


@dataclass(frozen=True)
class Point:
    """A mark with an interval.

    Attributes:
        x: where it is.
        y: where it is.
        low: lower end of the interval of y.
        high: upper end.
        kind: class of the style sheet, such as a role.
        label: what is said of it.
    """

    x: float
    y: float
    low: float
    high: float
    kind: str
    label: str


@dataclass(frozen=True)
class Axis:
    """One axis: a range of values, laid over a range of pixels."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> "Axis":
        """Room for all values and a little more."""
        low, high = min(values), max(values)
        margin = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
        return cls(low - margin, high + margin, start, end)

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float) -> "Axis":
        """Room around each of these values, in ascending order, for marks that stand side by side."""
        gaps = [after - before for before, after in itertools.pairwise(values)] or [1]
        margin = max(min(gaps) / 2, 0.06 * (values[-1] - values[0]))
        return cls(values[0] - margin, values[-1] + margin, start, end)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int = 5, *, whole: bool = False) -> list[float]:
        """About so many round values: steps of 1, 2 or 5 times a power of ten; whole numbers where those count."""
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        step = max(step, 1.0) if whole else step
        first = math.ceil(self.low / step)
        return [index * step for index in range(first, math.floor(self.high / step) + 1)]


def scatter(
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    title: str,
    *,
    names: Mapping[float, str] | None = None,
    x_text: Text = count_text,
    y_text: Text = percent_text,
    front: bool = False,
    zero: bool = False,
) -> str:
    """Points with vertical intervals; with a front, the line through those that none with a smaller x outdoes.

    Args:
        points: one at least.
        x_label: below the plot.
        y_label: beside it.
        title: for those who cannot see the plot.
        names: what is said of each x that there is, in ascending order; None: x is a number that says itself.
        x_text: how x is said.
        y_text: how y is said.
        front: whether the Pareto front is drawn.
        zero: whether a line shows where y is 0.
    """
    x = Axis.over([point.x for point in points], LEFT, WIDTH - RIGHT)
    x = Axis.of(list(names), LEFT, WIDTH - RIGHT) if names else x
    ends = [end for point in points for end in (point.low, point.high)]
    y = Axis.over([*ends, 0] if zero else ends, HEIGHT - BOTTOM, TOP)
    svg = _frame(x, y, x_label, y_label, title, x_text=x_text, y_text=y_text, names=names)
    if zero:
        _line(svg, [(LEFT, y.at(0)), (WIDTH - RIGHT, y.at(0))], "front")
    if front:
        steps, reached = [], -math.inf
        for point in sorted(points, key=lambda each: (each.x, -each.y)):
            if point.y > reached:
                steps.append((point.x, point.y))
                reached = point.y
        if len(steps) > 1:
            _line(svg, [(x.at(a), y.at(b)) for a, b in steps], "front")
    beside = Counter(point.x for point in points)
    taken: Counter[float] = Counter()
    for point in points:
        group = ET.SubElement(svg, "g", {"class": f"mark {point.kind}"})
        ET.SubElement(group, "title").text = point.label
        # Those of one x stand side by side, so that their intervals can be told apart.
        aside = (taken[point.x] - (beside[point.x] - 1) / 2) * min(MARK_WIDTH, MOST_ASIDE / beside[point.x])
        taken[point.x] += 1
        middle, low, high = x.at(point.x) + aside, y.at(point.low), y.at(point.high)
        ET.SubElement(group, "path", {"d": f"M{middle:.1f} {low:.1f}V{high:.1f}", "class": "interval"})
        _mark(group, point.kind, middle, y.at(point.y), 6)
    return ET.tostring(svg, encoding="unicode")


def curves(
    series: dict[str, list[tuple[float, float]]], x_label: str, y_label: str, title: str, x_text: Text = count_text
) -> str:
    """A line for each series, with its points; y is shown in percent.

    Args:
        series: points by the class of the style sheet that colours them.
        x_label: below the plot.
        y_label: beside it.
        title: for those who cannot see the plot.
        x_text: how x is said.
    """
    every = [point for points in series.values() for point in points]
    x = Axis.over([a for a, _ in every], LEFT, WIDTH - RIGHT)
    y = Axis.over([b for _, b in every], HEIGHT - BOTTOM, TOP)
    said = {
        kind: [f"{kind}: {percent_text(b)} at {x_label.lower()} {x_text(a)}" for a, b in points]
        for kind, points in series.items()
    }
    return _lines(_frame(x, y, x_label, y_label, title, x_text=x_text, y_text=percent_text), x, y, series, said)


def reliability(series: dict[str, list[tuple[float, float, int]]], title: str) -> str:
    """Share of right rows against confidence, one point for each bin; on the diagonal the two agree.

    Args:
        series: confidence, share of right rows and number of rows of each bin, by role.
        title: for those who cannot see the plot.
    """
    x, y = Axis(0, 1, LEFT, WIDTH - RIGHT), Axis(0, 1, HEIGHT - BOTTOM, TOP)
    svg = _frame(x, y, "Confidence", "Right", title, x_text=percent_text, y_text=percent_text)
    _line(svg, [(x.at(0), y.at(0)), (x.at(1), y.at(1))], "front")
    said = {
        kind: [
            f"{kind}: {rows:,} rows, confidence {percent_text(confidence)}, right {percent_text(right)}"
            for confidence, right, rows in bins
        ]
        for kind, bins in series.items()
    }
    points = {kind: [(confidence, right) for confidence, right, _ in bins] for kind, bins in series.items()}
    return _lines(svg, x, y, points, said)


def _lines(
    svg: ET.Element,
    x: Axis,
    y: Axis,
    series: dict[str, list[tuple[float, float]]],
    said: dict[str, list[str]],
) -> str:
    """A line through the points of each series, and what is said of each point."""
    for kind, points in series.items():
        placed = [(x.at(a), y.at(b)) for a, b in points]
        _line(svg, placed, kind)
        for (left, top), label in zip(placed, said[kind], strict=True):
            mark = _mark(svg, kind, left, top, 4)
            mark.set("class", f"mark {kind}")
            ET.SubElement(mark, "title").text = label
    return ET.tostring(svg, encoding="unicode")


def _frame(
    x: Axis,
    y: Axis,
    x_label: str,
    y_label: str,
    title: str,
    *,
    x_text: Text,
    y_text: Text,
    names: Mapping[float, str] | None = None,
) -> ET.Element:
    svg = ET.Element("svg", {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": title})
    for value in y.ticks():
        level = f"{y.at(value):.1f}"
        ET.SubElement(svg, "path", {"d": f"M{LEFT} {level}H{WIDTH - RIGHT}", "class": "grid"})
        _text(svg, LEFT - 8, y.at(value) + 4, y_text(value), "end")
    free = 0.0  # right of the names so far: one that has no room beside them is left out
    for value, name in (names or {value: x_text(value) for value in x.ticks(whole=x_text is count_text)}).items():
        reach = LETTER_WIDTH * len(name) / 2
        if x.at(value) - reach >= free or not names:
            _text(svg, x.at(value), HEIGHT - BOTTOM + 18, name, "middle")
            free = x.at(value) + reach
    ET.SubElement(svg, "path", {"d": f"M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}", "class": "axis"})
    _text(svg, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle")
    label = _text(svg, 14, (TOP + HEIGHT - BOTTOM) / 2, y_label, "middle")
    label.set("transform", f"rotate(-90 14 {(TOP + HEIGHT - BOTTOM) / 2:.1f})")
    return svg


def _text(svg: ET.Element, x: float, y: float, text: str, anchor: str) -> ET.Element:
    element = ET.SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor})
    element.text = text
    return element


def legend(kinds: Sequence[str]) -> str:
    """The mark of each kind and its name, at the lower left of a plot."""
    group, left = ET.Element("g"), 14.0
    for kind in kinds:
        mark = _mark(group, kind, left, HEIGHT - 12, 4)
        mark.set("class", f"mark {kind}")
        _text(group, left + 8, HEIGHT - 8, kind, "start")
        left += 26 + 6.5 * len(kind)
    return ET.tostring(group, encoding="unicode")


def _mark(parent: ET.Element, kind: str, x: float, y: float, size: float) -> ET.Element:
    place = {"d": SHAPES.get(kind, CIRCLE), "transform": f"translate({x:.1f} {y:.1f}) scale({size})"}
    return ET.SubElement(parent, "path", place)


def _line(svg: ET.Element, points: list[tuple[float, float]], kind: str) -> None:
    places = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    ET.SubElement(svg, "polyline", {"points": places, "class": f"line {kind}"})
