from xml.etree import ElementTree as ET

import pytest

from lora_distill.config import ROLES
from lora_distill.reporting.svg import Axis, Point, curves, legend, scatter


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.93, 0.94), (5.0, 5.0), (0.0, 1e6), (-3.0, 7.0)])
def test_ticks_are_round_and_within_the_axis(low: float, high: float) -> None:
    axis = Axis.over([low, high], 0, 100)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 8
    assert all(0 <= axis.at(tick) <= 100 for tick in ticks)
    assert axis.at(low) == pytest.approx(100 - axis.at(high)) or low == high


def test_epochs_are_whole() -> None:
    assert Axis.over([1, 2], 0, 100).ticks(whole=True) == [1, 2]


def test_an_axis_of_small_numbers_has_numbers() -> None:
    points = [Point(x, 0.5, 0.5, 0.5, "student", "s") for x in (0.2, 0.4)]
    plot = ET.fromstring(scatter(points, "x", "y", "t", x_text="{:.4g}".format))
    assert {"0.2", "0.4"} <= {str(text.text) for text in plot.iter("text")}


def test_the_front_leaves_out_what_is_outdone() -> None:
    points = [Point(x, y, y, y, "student", "s") for x, y in ((1, 0.5), (2, 0.4), (3, 0.6))]
    plot = ET.fromstring(scatter(points, "x", "y", "t", front=True))
    (front,) = [line for line in plot.iter("polyline") if "front" in str(line.get("class"))]
    assert len(str(front.get("points")).split()) == 2


def test_roles_are_told_apart_without_their_colours() -> None:
    points = [Point(1, 0.5, 0.5, 0.5, role, role) for role in ROLES]
    lines: dict[str, list[tuple[float, float]]] = {role: [(1.0, 0.5)] for role in ROLES}
    for drawn in (scatter(points, "x", "y", "t"), curves(lines, "x", "y", "t"), legend(ROLES)):
        shapes = [mark.get("d") for mark in ET.fromstring(drawn).iter("path") if mark.get("transform")]
        assert len(set(shapes)) == len(shapes) == len(ROLES)


def test_marks_of_one_place_stand_side_by_side() -> None:
    points = [Point(x, y, y, y, "student", "s") for x, y in ((1, 0.5), (1, 0.4), (3, 0.6))]
    plot = ET.fromstring(scatter(points, "x", "y", "t", names=dict(enumerate("abcd"))))
    marks = (mark.get("transform") for mark in plot.iter("path"))
    places = [float(mark.split()[0].removeprefix("translate(")) for mark in marks if mark]
    assert places[0] < places[1] < places[2]
    texts = [str(text.text) for text in plot.iter("text")]
    assert [text for text in texts if text in "abcd"] == ["a", "b", "c", "d"]


def test_a_name_that_has_no_room_beside_the_one_before_is_left_out() -> None:
    names = {0.0: "0.000", 0.01: "0.001", 1.0: "0.100"}
    points = [Point(x, 0.5, 0.5, 0.5, "student", "s") for x in names]
    plot = ET.fromstring(scatter(points, "x", "y", "t", names=names))
    assert [text.text for text in plot.iter("text") if text.text in names.values()] == ["0.000", "0.100"]
