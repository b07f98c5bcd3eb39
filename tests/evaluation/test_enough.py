import pytest

from lora_distill.evaluation.enough import missing, rounded

FOR_TEN = "so that one is right and the other wrong on 10"


@pytest.mark.parametrize(
    ("seeds", "rows", "discordant", "said"),
    [
        (3, 400, 10, ""),
        (2, 400, 10, "a verdict takes 3 seeds at least"),
        (3, 400, 2.5, f"a verdict takes about 1,600 test rows, {FOR_TEN}"),
        (1, 400, 9, f"a verdict takes 3 seeds at least and about 450 test rows, {FOR_TEN}"),
        (3, 400, 0, "the two are right on the same rows"),
        (1, 400, 0, "the two are right on the same rows; a verdict takes 3 seeds at least"),
    ],
)
def test_what_a_verdict_lacks_is_named(seeds: int, rows: int, discordant: float, said: str) -> None:
    assert missing(seeds, rows, discordant) == said


@pytest.mark.parametrize(("number", "to"), [(7, 7), (40.2, 41), (444.4, 450), (1601, 1700), (1600, 1600)])
def test_what_is_needed_is_rounded_up_to_two_digits(number: float, to: int) -> None:
    assert rounded(number) == to
