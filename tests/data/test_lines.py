"""Lines of bytes: counted as they are dealt with, and found again from there."""

import io

import pytest

from lora_distill.data import lines as module
from lora_distill.data.lines import Lines, Place, TooLongError


def given(data: bytes) -> Lines:
    return Lines(io.BytesIO(data))


def test_all_ends_of_lines_and_a_byte_order_mark() -> None:
    assert list(given(b"\xef\xbb\xbfa\r\nb\rc\n\xef\xbb\xbfd")) == ["a\r\n", "b\r", "c\n", "\ufeffd"]


def test_bytes_that_are_no_utf_8_stay_told_apart() -> None:
    assert list(given(b"caf\xe9\n")) == ["caf\udce9\n"]


def test_what_is_done_is_passed_over_where_it_is_the_same() -> None:
    lines = given(b"one\ntwo\nthree\n")
    next(lines)
    next(lines)
    lines.done()
    place = lines.place
    assert (place.bytes, place.lines, lines.number) == (8, 2, 3)

    again = given(b"one\ntwo\nand others")
    assert again.skip_to(place)
    assert (list(again), again.number) == (["and others"], 3)
    assert not given(b"one\nTwo\nthree\n").skip_to(place)
    assert not given(b"one\n").skip_to(place)
    assert given(b"").skip_to(Place())


def test_what_is_given_back_comes_again_but_for_the_first_line() -> None:
    lines = given(b"one\ntwo\nthree\n")
    assert [next(lines), next(lines)] == ["one\n", "two\n"]
    lines.give_back()
    assert lines.taken == b"one\n"
    lines.done()
    assert (lines.number, list(lines)) == (2, ["two\n", "three\n"])


def test_what_is_too_long_is_passed_over_to_the_end_of_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 8)
    lines = given(b"a line of many bytes\nshort\n" + b"no end of it")
    with pytest.raises(TooLongError):
        next(lines)
    lines.done()
    assert (next(lines), lines.number) == ("short\n", 2)
    lines.done()
    with pytest.raises(TooLongError):
        next(lines)
    lines.done()
    assert (list(lines), lines.bytes) == ([], 39)


def test_several_lines_are_too_long_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 8)
    lines = given(b"12345\n12345\n")
    next(lines)
    with pytest.raises(TooLongError):
        next(lines)
    lines.give_back()
    lines.done()
    assert list(lines) == ["12345\n"]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_no_end_of_lines_is_lost_where_a_read_stops(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 8)
    rows = [f"{'x' * (number % 5)}{end}" for number in range(40)]
    lines = given("".join(rows).encode())
    found = []
    for line in lines:
        found.append(line)
        lines.done()
    assert (found, lines.number) == (rows, 41)


def test_what_comes_after_a_line_that_is_too_long_is_not_passed_over_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 8)
    lines = given(b"a line of many bytes\rone\rtwo\r")
    with pytest.raises(TooLongError):
        next(lines)
    lines.done()
    assert (next(lines), lines.number) == ("one\r", 2)
    assert list(lines) == ["two\r"]
