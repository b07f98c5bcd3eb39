from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_distill.evaluation.metrics import classification_metrics
from lora_distill.evidence import gather
from lora_distill.reporting.ranking import Ranking, rank_students
from lora_distill.reporting.report import headline
from lora_distill.reporting.summary import Experiment, summarise
from lora_distill.run_folder import METRICS, PREDICTIONS, RunFolder
from lora_distill.store import write_json
from tests.reporting.test_report import finished_run


def run_of(folder: Path, name: str, seed: int, wrong: int) -> RunFolder:
    """A run whose student is wrong on so many rows, the first ones."""
    run = finished_run(folder, f"{name}-seed-{seed}", seed)
    results, table = run.results(), pq.read_table(run.path / PREDICTIONS)
    labels, names = table["label"].to_numpy(), results["data"]["label_names"]
    answers = (labels + (np.arange(len(labels)) < wrong)) % len(names)
    logits = (4 * np.eye(len(names))[answers]).astype(np.float32)
    results["student"]["test"] = classification_metrics(logits, labels, names)
    write_json(run.path / METRICS, results)
    column = pa.array(list(logits), type=pa.list_(pa.float32(), len(names)))
    place = table.column_names.index("student_logits")
    pq.write_table(table.set_column(place, "student_logits", column), run.path / PREDICTIONS)
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
    assert lead[0] == pytest.approx(5 / 445)
    (said,) = ranking.sentences()
    assert said.startswith("The most accurate student over 2 seeds that all have is B, with ")
    assert "budget): 93.26% (" in said  # 30 of 445 rows wrong


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


def test_the_smallest_student_that_may_be_as_good_is_named(tmp_path: Path) -> None:
    runs = {name: [finished_run(tmp_path, name, 0)] for name in ("large", "small")}
    results = runs["small"][0].results()
    results["student"]["trainable_parameters"]["total"] = 1000
    results["student"]["test"]["accuracy"] -= 0.01
    write_json(runs["small"][0].path / METRICS, results)
    said = headline(summarise(gather(runs), runs))
    assert said[1].startswith("The most accurate student is large, with ")
    assert said[2].startswith(
        "These runs cannot tell it from small, with 1,000 trainable parameters (0.10% of the budget)"
    )
    assert ": its lead is +0.00 points (" in said[2]
    results["student"]["trainable_parameters"]["total"] = 10_000_000
    results["student"]["test"]["accuracy"] += 0.01
    write_json(runs["small"][0].path / METRICS, results)
    tied = headline(summarise(gather(runs), runs))[1]
    assert tied.startswith("The most accurate student is large, with ")
    assert tied.endswith("), and 1 other as often right.")
    assert len(headline(summarise(gather(runs), runs | {"small": runs["large"]}))) == 2
