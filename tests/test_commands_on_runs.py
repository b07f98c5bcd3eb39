"""What the commands on finished runs show."""

import json
import re
from pathlib import Path

import pytest

from lora_distill.config import make_config
from lora_distill.run_folder import METRICS, REPORT
from lora_distill.store import write_json
from tests.conftest import Run
from tests.reporting.sample import answer, sample_results
from tests.reporting.test_report import finished_run
from tests.test_cli import begin


def test_a_folder_of_runs_is_shown_as_one_table(run: Run, tmp_path: Path) -> None:
    for name, alpha in (("two", 0.2), ("one", 0.1), ("begun", 0.3)):
        path = begin(make_config({"exp_name": name, "output_dir": "o", "alpha": alpha}, {})).path
        if name != "begun":
            write_json(path / METRICS, sample_results() | {"exp_name": "as it was called"})
    (tmp_path / "o" / ".artefacts").mkdir()
    (tmp_path / "o" / "notes.txt").write_text("")
    code, out, err = run("show", "o")
    assert (code, err) == (0, "")
    assert re.findall(r"^(?:one|two|begun|as) ", out, re.MULTILINE) == ["one ", "two "]
    assert out.endswith("\nNot finished: begun\n")


def test_two_runs_are_compared_as_on_the_page_and_the_best_is_named(run: Run, tmp_path: Path) -> None:
    for name, alpha, wrong in (("one", 0.1, 20), ("two", 0.2, 5), ("three", 0.3, 400)):
        answer(finished_run(tmp_path / "o", name, 0, alpha=alpha), "student", wrong)
    code, out, _ = run("compare", "o/one", "o/two")
    assert code == 0
    assert re.search(r"^ +What differs between two *\n +one +two *\n", out, re.MULTILINE)
    assert re.search(r"^alpha +0.1 +0.2$", out, re.MULTILINE)
    assert re.search(r"^student: macro F1 +0\.9\d+ +0\.9\d+$", out, re.MULTILINE)
    assert "\nThe most accurate student is two, with " in out
    out = run("compare", "o")[1]
    assert re.search(r"^Experiment +Role +Macro F1 +NLL +ECE$", out, re.MULTILINE)
    assert (
        len(re.findall(r"^(?:one|two|three) +(?:teacher|student|control)(?: +\d\.\d{4}){3}$", out, re.MULTILINE)) == 9
    )
    assert "What differs" not in out
    out = run("compare", "o/one")[1]
    assert "Macro F1" not in out
    assert "most accurate" not in out


def test_of_experiments_over_seeds_the_best_is_named_once(run: Run, tmp_path: Path) -> None:
    for name, alpha in (("one", 0.1), ("two", 0.2)):
        for seed in (0, 1):
            finished_run(tmp_path / "o", f"{name}-seed-{seed}", seed, alpha=alpha)
    out = run("compare", "o")[1]
    assert re.search(r"^alpha +0.1 +0.2$", out, re.MULTILINE)
    assert out.count("The most accurate student is ") == 1
    finished_run(tmp_path / "o", "alone", 0, alpha=0.3)
    out = run("compare", "o")[1]
    assert re.search(r"^- one: (?:Too little|Distillation|No difference) ", out, re.MULTILINE)
    assert re.search(r"^- alone: One seed, so these models only: student - control ", out, re.MULTILINE)


def test_each_experiment_is_held_against_one_of_them(run: Run, tmp_path: Path) -> None:
    for name, alpha, wrong in (("base", 0.1, 60), ("more", 0.2, 20)):
        for seed in (0, 1):
            answer(finished_run(tmp_path / "o", f"{name}-seed-{seed}", seed, alpha=alpha), "student", wrong + seed)
    code, out, err = run("compare", "o", "--against", "base")
    assert (code, err) == (0, "")
    assert re.search(r"^more +alpha 0.2 +2 ", out, re.MULTILINE)
    assert re.search(r" 95.39% +\+8.99 ", out)
    assert run("compare", "o", "--against", "base", "--csv")[1].splitlines()[1].startswith("more,alpha 0.2,2,")
    assert run("compare", "o", "--against", "base", "--markdown")[1].startswith("| Experiment | Settings | Seeds |")
    assert json.loads(run("compare", "o", "--against", "base", "--json")[1])["against"] == "base"
    code, out, err = run("compare", "o", "--against", "none")
    assert (code, out) == (2, "")
    assert "--against none: no such experiment. There are: 'base', 'more'." in err


def test_a_run_is_shown_under_its_folder_s_name_also_from_within(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = begin(make_config({"exp_name": "mine", "output_dir": "o"}, {})).path
    write_json(path / METRICS, sample_results() | {"exp_name": "as it was called"})
    monkeypatch.chdir(path)
    code, out, _ = run("show", ".")
    assert code == 0
    assert "mine: bbc_news" in out
    assert "as it was called" not in out


def test_a_page_of_several_runs_lies_in_the_folder_that_holds_them_and_leaves_their_own(
    run: Run, tmp_path: Path
) -> None:
    for alpha, place in ((0.1, "o/one"), (0.2, "o/two"), (0.3, "p/three"), (0.4, "o/one/inner")):
        path = tmp_path / place
        finished_run(path.parent, path.name, 0, alpha=alpha)
        (path / REPORT).write_text("its own")
    for given, place in (
        (["o/one", "o/two"], "o"),
        (["o/one", "o/one/inner"], "o"),
        (["o", "p/three"], "."),
        (["p/three"], "p/three"),
    ):
        code, out, err = run("report", *given)
        assert (code, err) == (0, "")
        assert Path(out.removeprefix("Report: ").partition("   ")[0]).resolve() == tmp_path / place / REPORT
        assert "Was the distillation worth it?" in (tmp_path / place / REPORT).read_text()
    assert {(tmp_path / "o" / name / REPORT).read_text() for name in ("one", "two", "one/inner")} == {"its own"}


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("x.pdf", "the page is HTML, and its name does not say so"),
        ("x", "the page is HTML, and its name does not say so"),
        ("folder", "is a folder"),
        ("folder.html", "is a folder"),
    ],
)
def test_a_report_is_a_file_of_html(output: str, told: str, run: Run, tmp_path: Path) -> None:
    for name in ("folder", "folder.html"):
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.rglob("*"))
    said = f"error: --output {output}: {told}. Give a name that ends in .html.\n"
    assert run("report", "runs", "--output", output) == (2, "", said)
    assert sorted(tmp_path.rglob("*")) == before
