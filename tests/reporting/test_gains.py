import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lora_distill.errors import UserError
from lora_distill.evaluation.over_seeds import holm
from lora_distill.evidence import gather
from lora_distill.reporting.gains import Gains
from lora_distill.reporting.summary import Experiment, summarise
from tests.reporting.sample import answer
from tests.reporting.test_report import finished_run
from tests.reporting.test_tables import render

if TYPE_CHECKING:
    from lora_distill.run_folder import RunFolder

ROWS = 445


def experiments(folder: Path, **wrong: dict[int, int]) -> list[Experiment]:
    """Experiments whose students are wrong on so many rows, the first ones, by seed; each with an alpha of its own."""
    runs: dict[str, list[RunFolder]] = {}
    for number, (name, by_seed) in enumerate(wrong.items()):
        for seed, count in by_seed.items():
            run = finished_run(folder, f"{name}-seed-{seed}", seed, alpha=number / 10)
            answer(run, "student", count)
            runs.setdefault(name, []).append(run)
    return summarise(gather(runs), runs)


def test_each_is_held_against_the_one_on_the_seeds_that_both_have(tmp_path: Path) -> None:
    # By chance another seed of `more` is far better: it says nothing of what alpha brings.
    three = {0: 60, 1: 62, 2: 61}
    found = Gains.over(
        "base",
        experiments(tmp_path, base=three, less={0: 90, 1: 91, 2: 92}, more={0: 30, 1: 30, 2: 33, 3: 0}, alone={0: 5}),
    )
    more, less = found.of
    assert (more.name, less.name) == ("more", "less")
    assert (more.settings, more.seeds) == ({"alpha": 0.2}, [0, 1, 2])
    assert more.difference.difference == pytest.approx((30 + 32 + 28) / 3 / ROWS)
    assert more.student == pytest.approx(1 - 31 / ROWS)
    assert more.teacher is not None
    assert [more.verdict.p_value, less.verdict.p_value] == holm([more.difference.p_value, less.difference.p_value])
    assert (more.verdict.finding, less.verdict.finding) == ("helped", "hurt")
    assert more.verdict.sentence.startswith("This helped: +6.74 points over the student of base (95% interval ")
    assert found.left_out == ["alone"]
    said = found.explained()
    assert [line.partition(": ")[0] for line in said if line.startswith("- ")] == ["- more", "- less"]
    assert "Not held against it, for want of the same test rows or of 2 of its seeds: alone." in found.explained()


def test_what_differs_from_nothing_is_no_difference(tmp_path: Path) -> None:
    (same,) = Gains.over("base", experiments(tmp_path, base={0: 60, 1: 62}, same={0: 60, 1: 62})).of
    assert same.difference.difference == 0
    assert same.verdict.finding == "too little"
    assert same.difference.low < 0 < same.difference.high
    assert same.verdict.detectable is None


def test_no_sentence_repeats_what_the_table_says_of_those_that_show_nothing(tmp_path: Path) -> None:
    found = Gains.over("base", experiments(tmp_path, base={0: 60, 1: 42, 2: 50}, like={0: 42, 1: 60, 2: 51}))
    (like,) = found.of
    assert like.verdict.finding == "no difference"
    assert like.verdict.detectable is not None
    assert f" {100 * like.verdict.detectable:.2f} " in like.verdict.sentence
    assert f"{100 * like.verdict.detectable:.2f}" in render(found.as_table(), 150)
    assert not any(line.startswith("- ") for line in found.explained())


def test_what_the_control_alone_has_is_no_setting_of_a_student(tmp_path: Path) -> None:
    one = finished_run(tmp_path, "one-seed-0", 0), finished_run(tmp_path, "one-seed-1", 1)
    changes: dict[str, Any] = {"no_control": True, "target_modules": ["query", "key"], "control_num_epochs": 7}
    two = finished_run(tmp_path, "two-seed-0", 0, **changes), finished_run(tmp_path, "two-seed-1", 1, **changes)
    runs = {"one": list(one), "two": list(two)}
    assert Gains.over("one", summarise(gather(runs), runs)).of[0].changed() == "target_modules query,key"
    assert Gains.over("two", summarise(gather(runs), runs)).of[0].changed() == "target_modules none"


def test_where_a_student_learns_from_the_control_what_that_has_is_one(tmp_path: Path) -> None:
    teaching: dict[str, Any] = {"learn_from": "both"}
    one = [finished_run(tmp_path, f"one-seed-{seed}", seed, **teaching) for seed in (0, 1)]
    longer = [finished_run(tmp_path, f"two-seed-{seed}", seed, control_num_epochs=7, **teaching) for seed in (0, 1)]
    runs = {"one": one, "two": longer}
    assert Gains.over("one", summarise(gather(runs), runs)).of[0].changed() == "control_num_epochs 7"


def test_they_are_told_in_every_form_with_the_same_figures(tmp_path: Path) -> None:
    found = Gains.over("base_", experiments(tmp_path, base_={0: 60, 1: 62}, more={0: 30, 1: 31}))
    shown = render(found.as_table(), 130)
    assert "Students against that of base_, each on the seeds that both have" in shown
    row = next(line for line in shown.splitlines() if line.startswith("more"))
    assert row.split()[1:4] == ["alpha", "0.1", "2"]
    assert "+6.85" in row
    headings, _, cells = found.as_markdown().splitlines()
    assert r"| Student - base\_ |" in headings
    assert cells.startswith("| more | alpha 0.1 | 2 | ")
    assert "| 93.15% | +6.85 [" in cells
    (line,) = csv.DictReader(io.StringIO(found.as_csv()))
    assert (line["experiment"], line["settings"], line["seeds"]) == ("more", "alpha 0.1", "2")
    assert float(line["difference"]) == pytest.approx(61 / 2 / ROWS)
    told = json.loads(json.dumps(found.as_json()))
    assert (told["against"], told["gains"][0]["difference"]["difference"]) == ("base_", float(line["difference"]))
    assert told["correction"]["comparisons"] == 1


def test_what_cannot_be_held_against_is_said(tmp_path: Path) -> None:
    both = experiments(tmp_path, base={0: 60, 1: 62}, other={2: 30, 3: 30})
    with pytest.raises(UserError, match=r"^--against bas: no such experiment\. There are: 'base', 'other'\.$"):
        Gains.over("bas", both)
    with pytest.raises(
        UserError, match=r"^--against base: no other was judged on the same rows with 2 of its seeds\.$"
    ):
        Gains.over("base", both)
