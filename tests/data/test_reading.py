"""Texts are read a bounded part at a time, which changes nothing."""

from typing import TYPE_CHECKING

import pytest

from lora_distill.data import reading

if TYPE_CHECKING:
    from lora_distill.data.types import Text


def test_no_more_is_read_at_once_than_so_many_texts_or_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "AT_ONCE", 3)
    monkeypatch.setattr(reading, "MOST_CHARACTERS", 10)
    long: list[Text] = ["b" * 30, "c" * 9, ("d", "e"), "f"]
    slices = [["a", "a", "a"], ["a", long[0]], long[1:3], long[3:]]
    assert list(reading._slices(["a", "a", "a", "a", *long])) == slices
