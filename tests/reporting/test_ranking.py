from pathlib import Path

import pytest

from lora_distill.evidence import gather
from lora_distill.reporting.ranking import Ranking, rank_students
from lora_distill.reporting.report import headline
from lora_distill.reporting.summary import Experiment, summarise
from lora_distill.run_folder import METRICS, RunFolder
from lora_distill.store import write_json
from tests.reporting.sample import answer
from tests.reporting.test_report import finished_run


def run_of(folder: Path, name: str, seed: int, wrong: int) -> RunFolder:
    """A run whose student is wrong on so many rows, the first ones."""
    run = finished_run(folder, f"{name}-seed-{seed}", seed)
    answer(run, "student", wrong)
    return run


def ranked(folder: Path, wrong: dict[str, dict[int, int]]) -> tuple[Ranking, dict[str, Experiment]]:
    """The ranking of experiments whose students are wrong on so many rows, by seed."""
    runs = {name: [run_of(folder, name, *each) for each in by_seed.items()] for name, by_seed in wrong.items()}
    experiments = summarise(gather(runs), runs)
    (ranking,) = rank_students(experiments).values()
    return ranking, {each.name: each for each in experiments}


def test_students_are_ranked_on_the_seeds_that_all_have(tmp_path: Path) -> None:
    # Over its own seeds A is the better one, for its third is a good one; on those that both have, B is.
    ranking, experiments = ranked(tmp_path, {"A": {0: 60, 1: 10, 2: 10}, "B": {0: 40, 1: 20}})
    assert [each.name for each in ranking.students] == ["B", "A"]
    lead = ranking.lead_over(experiments["A"])
    assert lead
    assert lead.difference == pytest.approx(5 / 445)
    (said,) = ranking.sentences()
    assert said.startswith("The most accurate student over 2 seeds that all have is B, with ")
    assert "budget): 93.26% (95% interval " in said  # 30 of 445 rows wrong


def test_one_seed_is_not_ranked_among_several(tmp_path: Path) -> None:
    ranking, experiments = ranked(tmp_path, {"A": {0: 20, 1: 20}, "B": {0: 40, 1: 40}, "C": {0: 10}})
    assert [each.name for each in ranking.students] == ["A", "B"]
    assert ranking.lead_over(experiments["C"]) is None
    best, unranked = ranking.sentences()
    assert best.startswith("The most accurate student is A, with ")
    assert unranked == "Not ranked with others of several seeds, for there is one seed: C."


def test_students_that_share_no_seed_are_not_ranked(tmp_path: Path) -> None:
    ranking, experiments = ranked(tmp_path, {"A": {0: 20, 1: 20}, "B": {2: 40, 3: 40}})
    assert ranking.lead_over(experiments["A"]) is None
    assert ranking.sentences(" on these data") == [
        "No student on these data can be called the most accurate, for they share no seed."
    ]


def spend(run: RunFolder, trainable: int) -> None:
    """Let its student have so many trainable parameters."""
    results = run.results()
    results["student"]["trainable_parameters"]["total"] = trainable
    write_json(run.path / METRICS, results)


@pytest.mark.parametrize(("seeds", "more", "told_apart"), [(5, 5, False), (5, 40, True), (1, 5, False), (1, 40, True)])
def test_what_too_few_rows_tell_apart_may_be_as_good(tmp_path: Path, seeds: int, more: int, told_apart: bool) -> None:
    wrong = {"large": 20, "small": 20 + more}
    runs = {name: [run_of(tmp_path, name, seed, rows) for seed in range(seeds)] for name, rows in wrong.items()}
    for run in runs["small"]:
        spend(run, 1000)
    experiments = summarise(gather(runs), runs)
    (ranking,) = rank_students(experiments).values()
    lead = ranking.lead_over(experiments[1])
    assert lead
    said = ranking.sentences()
    if told_apart:
        assert len(said) == 1
    else:
        assert lead.can_decide is False
        assert said[1].startswith("These runs cannot tell it from small, with 1,000 trainable parameters")
        assert said[1].endswith("), from too few seeds, or too few rows on which they differ, to decide.")


def test_the_smallest_student_that_may_be_as_good_is_named(tmp_path: Path) -> None:
    runs = {name: [run_of(tmp_path, name, 0, wrong)] for name, wrong in {"large": 20, "small": 25}.items()}
    spend(runs["small"][0], 1000)
    said = headline(summarise(gather(runs), runs))
    assert said[1].startswith("The most accurate student is large, with ")
    assert said[2].startswith(
        "These runs cannot tell it from small, with 1,000 trainable parameters (0.10% of the budget)"
    )
    assert ": its lead is +1.12 points (" in said[2]
    answer(runs["small"][0], "student", 20)
    spend(runs["small"][0], 10_000_000)
    tied = headline(summarise(gather(runs), runs))[1]
    assert tied.startswith("The most accurate student is large, with ")
    assert tied.endswith("), and 1 other as often right.")
    assert len(headline(summarise(gather(runs), runs | {"small": runs["large"]}))) == 2
