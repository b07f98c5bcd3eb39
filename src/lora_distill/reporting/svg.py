"""Plots as SVG elements to be put into a page, whose style sheet colours them; each mark says what it is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

Text = Callable[[float], str]
WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 46


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


def scatter(points: Sequence[Point], x_label: str, y_label: str, title: str, *, front: bool = False) -> str:
    """Points with vertical intervals; with a front, the line through those that none with a smaller x outdoes.

    Args:
        points: one at least.
        x_label: below the plot.
        y_label: beside it; y is shown in percent.
        title: for those who cannot see the plot.
        front: whether the Pareto front is drawn.
    """
    x = Axis.over([point.x for point in points], LEFT, WIDTH - RIGHT)
    y = Axis.over([end for point in points for end in (point.low, point.high)], HEIGHT - BOTTOM, TOP)
    svg = _frame(x, y, x_label, y_label, title, x_text=_count, y_text=_percent)
    if front:
        steps, reached = [], -math.inf
        for point in sorted(points, key=lambda each: (each.x, -each.y)):
            if point.y > reached:
                steps.append((point.x, point.y))
                reached = point.y
        _line(svg, [(x.at(a), y.at(b)) for a, b in steps], "front")
    for point in points:
        group = ET.SubElement(svg, "g", {"class": f"mark {point.kind}", "tabindex": "0"})
        ET.SubElement(group, "title").text = point.label
        middle, low, high = x.at(point.x), y.at(point.low), y.at(point.high)
        ET.SubElement(group, "path", {"d": f"M{middle:.1f} {low:.1f}V{high:.1f}", "class": "interval"})
        ET.SubElement(group, "circle", {"cx": f"{middle:.1f}", "cy": f"{y.at(point.y):.1f}", "r": "6"})
    return ET.tostring(svg, encoding="unicode")


def curves(series: dict[str, list[tuple[float, float]]], x_label: str, y_label: str, title: str) -> str:
    """A line for each series, with its points; y is shown in percent.

    Args:
        series: points by the class of the style sheet that colours them.
        x_label: below the plot.
        y_label: beside it.
        title: for those who cannot see the plot.
    """
    every = [point for points in series.values() for point in points]
    x = Axis.over([a for a, _ in every], LEFT, WIDTH - RIGHT)
    y = Axis.over([b for _, b in every], HEIGHT - BOTTOM, TOP)
    svg = _frame(x, y, x_label, y_label, title, x_text=_count, y_text=_percent)
    for kind, points in series.items():
        placed = [(x.at(a), y.at(b)) for a, b in points]
        _line(svg, placed, kind)
        for (a, b), (left, top) in zip(points, placed, strict=True):
            circle = ET.SubElement(
                svg, "circle", {"cx": f"{left:.1f}", "cy": f"{top:.1f}", "r": "4", "class": f"mark {kind}"}
            )
            ET.SubElement(circle, "title").text = f"{kind}: {_percent(b)} at {x_label.lower()} {_count(a)}"
    return ET.tostring(svg, encoding="unicode")


def reliability(series: dict[str, list[tuple[float, float, int]]], title: str) -> str:
    """Share of right rows against confidence, one point for each bin; on the diagonal the two agree.

    Args:
        series: confidence, share of right rows and number of rows of each bin, by role.
        title: for those who cannot see the plot.
    """
    x, y = Axis(0, 1, LEFT, WIDTH - RIGHT), Axis(0, 1, HEIGHT - BOTTOM, TOP)
    svg = _frame(x, y, "Confidence", "Right", title, x_text=_percent, y_text=_percent)
    _line(svg, [(x.at(0), y.at(0)), (x.at(1), y.at(1))], "front")
    for kind, bins in series.items():
        _line(svg, [(x.at(confidence), y.at(right)) for confidence, right, _ in bins], kind)
        for confidence, right, rows in bins:
            place = {"cx": f"{x.at(confidence):.1f}", "cy": f"{y.at(right):.1f}", "r": "4", "class": f"mark {kind}"}
            circle = ET.SubElement(svg, "circle", place)
            said = f"{kind}: {rows:,} rows, confidence {_percent(confidence)}, right {_percent(right)}"
            ET.SubElement(circle, "title").text = said
    return ET.tostring(svg, encoding="unicode")


def _frame(x: Axis, y: Axis, x_label: str, y_label: str, title: str, *, x_text: Text, y_text: Text) -> ET.Element:
    svg = ET.Element("svg", {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": title})
    for value in y.ticks():
        level = f"{y.at(value):.1f}"
        ET.SubElement(svg, "path", {"d": f"M{LEFT} {level}H{WIDTH - RIGHT}", "class": "grid"})
        _text(svg, LEFT - 8, y.at(value) + 4, y_text(value), "end")
    for value in x.ticks(whole=x_text is _count):
        _text(svg, x.at(value), HEIGHT - BOTTOM + 18, x_text(value), "middle")
    ET.SubElement(svg, "path", {"d": f"M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}", "class": "axis"})
    _text(svg, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle")
    label = _text(svg, 14, (TOP + HEIGHT - BOTTOM) / 2, y_label, "middle")
    label.set("transform", f"rotate(-90 14 {(TOP + HEIGHT - BOTTOM) / 2:.1f})")
    return svg


def _text(svg: ET.Element, x: float, y: float, text: str, anchor: str) -> ET.Element:
    element = ET.SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor})
    element.text = text
    return element


def _line(svg: ET.Element, points: list[tuple[float, float]], kind: str) -> None:
    places = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    ET.SubElement(svg, "polyline", {"points": places, "class": f"line {kind}"})


def _percent(value: float) -> str:
    return f"{100 * value:.4g}%"


def _count(value: float) -> str:
    return f"{value:,.0f}"
