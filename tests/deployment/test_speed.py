"""What answering takes is measured in turns."""

import numpy as np
import pytest

from lora_distill.data.tokens import Tokens
from lora_distill.deployment import speed


def tokens_of(lengths: list[int]) -> Tokens:
    return Tokens(np.arange(sum(lengths), dtype=np.int32), np.concatenate([[0], np.cumsum(lengths)]), 0, 0)


def test_models_take_turns_and_what_comes_first_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    asked: list[tuple[str, int, int]] = []
    rows = dict(zip(speed.TIMED, (tokens_of([3, 4]), tokens_of([2, 5])), strict=True))

    def answer(role: str) -> speed.Answer:
        return lambda _tokens, first, size: asked.append((role, first, size))

    taken = speed._take_turns({role: answer(role) for role in rows}, rows, 2)
    assert {role: len(seconds) for role, seconds in taken.items()} == dict.fromkeys(rows, speed.LEAST)
    assert asked == [(role, 2 * number, 2) for number in range(speed.WARM + speed.LEAST) for role in rows]


def test_texts_are_short_and_long_ones_and_come_again_where_there_are_few() -> None:
    texts = [("x" * length) for length in range(1, 401)]
    chosen = speed._texts(texts)
    assert [(len(each[0]), len(each[-1])) for each in chosen.values()] == [(25, 56), (345, 376)]
    few = speed._texts(["a", "bb", "ccc"])
    assert few["short"] == few["long"]
    assert few["short"][:4] == ["a", "bb", "ccc", "a"]
    assert len(few["short"]) == 32
    pairs = [("xx", "x"), ("", "x"), ("xxx", "")]  # both parts make the length
    assert speed._texts(pairs)["long"][:3] == [("", "x"), ("xx", "x"), ("xxx", "")]
