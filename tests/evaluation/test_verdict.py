import re

import numpy as np
import pytest

from lora_distill.evaluation.over_seeds import RecipeDifference, recipe_difference
from lora_distill.evaluation.verdict import judge
from tests.evaluation.simulation import World


def found(world: World, seed: int = 0) -> RecipeDifference:
    return recipe_difference(world.draw(1, np.random.default_rng(seed))[0], largest=1)


def test_what_a_control_differs_in_is_said_beside_it() -> None:
    sentence = judge(found(World(0.9, 5000, 5, gain=0.03)), apart=" but for the number of epochs").sentence
    assert "points over the same student without a teacher but for the number of epochs (95% interval" in sentence


def test_helped_says_its_figures() -> None:
    verdict = judge(found(World(0.9, 5000, 5, gain=0.03)))
    assert verdict.finding == "helped"
    assert verdict.sentence.startswith("Distillation helped: +")
    assert "95% interval +" in verdict.sentence
    assert "5 seeds, p = 0.00" in verdict.sentence
    assert "p < 0.0001)" in judge(found(World(0.9, 5000, 5, gain=0.03)), p_value=1e-9).sentence


def test_hurt() -> None:
    assert judge(found(World(0.9, 5000, 5, gain=-0.03))).sentence.startswith("Distillation hurt: -")


def test_no_difference_says_what_would_show_one() -> None:
    verdict = judge(found(World(0.9, 400, 5, seed_deviation=0.005)))
    assert verdict.finding == "no difference"
    assert "in four of five cases" in verdict.sentence


def test_where_no_difference_would_be_shown_none_is_named() -> None:
    d = np.zeros((60, 3))
    d[:50, 0], d[:40, 1], d[:2, 2] = 1, -1, 1  # seeds that have come to nothing alike
    verdict = judge(recipe_difference(d, largest=1))
    assert "what 3 seeds and 60 rows show in four of five cases is none, however large" in verdict.sentence
    assert "interval -100.00 to +100.00" in verdict.sentence
    assert verdict.detectable is None


def test_what_would_show_no_difference_at_all_is_not_told() -> None:
    d = np.zeros((400, 3))
    d[:20], d[20:40] = 1, -1
    assert judge(recipe_difference(d, largest=1)).sentence.endswith(" points.")


def test_a_corrected_p_value_decides() -> None:
    helped = found(World(0.9, 5000, 5, gain=0.03))
    verdict = judge(helped, p_value=0.2)
    assert verdict.finding == "no difference"
    assert "corrected for how many are asked" in verdict.sentence


@pytest.mark.parametrize("seeds", [3, 5])
def test_what_is_needed_is_more_than_there_is(seeds: int) -> None:
    world, needed = World(0.9, 400, seeds, seed_deviation=0.003, gain=0.03), []
    for d in world.draw(100, np.random.default_rng(0)):
        of_recipe = recipe_difference(d, largest=1)
        verdict = judge(of_recipe, min(8 * of_recipe.p_value, 1.0), comparisons=8)
        if verdict.finding == "no difference":
            assert verdict.detectable
            assert verdict.detectable > abs(of_recipe.difference)
            told = re.search(r"about (?:(\d+) seeds)?(?: or )?(?:([\d,]+) test rows)?[;.]", verdict.sentence)
            if told:
                needed.append(told[1])
                assert int(told[1] or 1000) > seeds
                assert int((told[2] or "1,000").replace(",", "")) > 400
    assert len(needed) > 20


@pytest.mark.parametrize(
    ("seeds", "rows", "said"),
    [
        (12, 4321, "it would take about 12 seeds or 4,400 test rows."),
        (12, None, "it would take about 12 seeds; no number of test rows alone would do."),
        (None, 4321, "it would take about 4,400 test rows; no number of seeds alone would do."),
        (None, None, "neither seeds nor rows alone would do."),
    ],
)
def test_what_alone_would_show_no_such_difference_is_named(
    seeds: int | None, rows: int | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RecipeDifference, "seeds_needed", lambda *_: seeds)
    monkeypatch.setattr(RecipeDifference, "rows_needed", lambda *_: rows)
    verdict = judge(found(World(0.9, 400, 5, seed_deviation=0.005)))
    assert verdict.sentence.endswith(f"; for one as small as this {said}")


@pytest.mark.parametrize(
    ("world", "said"),
    [
        (World(0.9, 5000, 2, gain=0.05), "; a verdict takes 3 seeds at least."),
        (World(0.99, 100, 5), "test rows, so that one is right and the other wrong on 10."),
    ],
)
def test_too_few_seeds_or_rows_decide_nothing(world: World, said: str) -> None:
    verdict = judge(found(world))
    assert verdict.finding == "too little"
    assert said in verdict.sentence


def test_models_that_never_differ_decide_nothing() -> None:
    verdict = judge(recipe_difference(np.zeros((50, 3)), largest=1))
    assert verdict.finding == "too little"
    assert "(95% interval -7.11 to +7.11, 3 seeds, p = 1); the two are right on the same rows." in verdict.sentence


def test_a_p_value_that_is_corrected_says_so() -> None:
    of_recipe = recipe_difference(np.eye(400)[:, :5] - np.eye(400)[:, 5:10] + np.eye(400)[:, 10:15])
    assert re.search(r"p = [\d.]+ corrected for 8 comparisons\)", judge(of_recipe, 0.4, comparisons=8).sentence)
    assert "corrected" not in judge(of_recipe, 0.4).sentence
