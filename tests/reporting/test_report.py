import re
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_distill import run_folder
from lora_distill.config import ROLES, Role, make_config
from lora_distill.evaluation.metrics import classification_metrics
from lora_distill.evidence import gather
from lora_distill.reporting.figures import png
from lora_distill.reporting.report import headline, write_report
from lora_distill.reporting.sentences import FASTER, SPEED
from lora_distill.reporting.summary import summarise
from lora_distill.reporting.svg import HEIGHT, WIDTH
from lora_distill.run_folder import HISTORY, METRICS, PREDICTIONS, RunFolder
from lora_distill.store import write_json, write_jsonl
from tests.reporting.sample import LABELS, answer, sample_results

NASTY = "<script>alert('x')</script>"


def finished_run(folder: Path, name: str, seed: int, *, text: str = NASTY, **changes: float | str) -> RunFolder:
    """A run's folder with all that a report reads; it was judged on texts that begin so."""
    config = make_config({"output_dir": str(folder), "exp_name": name, "seed": seed, **changes}, {})
    names = [NASTY, *LABELS[1:]]
    results = sample_results(names) | {"exp_name": name}
    run = RunFolder.of(config)
    run.begin(config, {"requested": {}, "processor": "a processor", "versions": {"torch": "2"}})
    rows = results["data"]["test_rows"]
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % len(names)
    texts = [f"{text} {number}" for number in range(rows)]
    columns: dict[str, Any] = {"row_id": np.arange(rows), "text": texts, "label": labels}
    for role, strength in (("teacher", 3.6), ("student", 3.4), ("control", 2.5)):
        logits = (generator.normal(size=(rows, len(names))) + strength * np.eye(len(names))[labels]).astype(np.float32)
        results[role]["test"] = classification_metrics(logits, labels, names)
        columns[f"{role}_logits"] = pa.array(list(logits), type=pa.list_(pa.float32(), len(names)))
    pq.write_table(pa.table(columns), run.path / PREDICTIONS)
    history = [
        {"role": role, "event": "validation", "epoch": epoch, "step": epoch, "accuracy": 0.5 + epoch / 10, "nll": 1.0}
        for role in ("teacher", "student", "control")
        for epoch in (1, 2, 3)
    ]
    write_jsonl(run.path / HISTORY, [{"role": "teacher", "event": "step", "epoch": 1, "step": 1, "loss": 1}, *history])
    write_json(run.path / METRICS, results)
    return run


@pytest.fixture
def groups(tmp_path: Path) -> dict[str, list[RunFolder]]:
    return {
        "base": [finished_run(tmp_path, f"base-seed-{seed}", seed) for seed in range(3)],
        "alone": [finished_run(tmp_path, "alone", 0, alpha=0.7)],
    }


def page_of(groups: dict[str, list[RunFolder]], folder: Path) -> str:
    write_report(folder / "report.html", gather(groups), groups)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_verdicts_come_first(groups: dict[str, list[RunFolder]], tmp_path: Path) -> None:
    page = page_of(groups, tmp_path)
    header = page[page.index("<header>") : page.index("</header>")]
    assert "Distillation helped in 1 of 1 experiment, and hurt in 0." in header
    assert "Of others it cannot be said: alone (one seed)." in header
    assert "Not ranked with others of several seeds, for there is one seed: alone." in header
    assert page.index("</header>") < page.index('id="table"') < page.index("<svg") < page.index('id="verdicts"')
    assert re.search(r"<strong>base</strong>: Distillation helped: \+\d+\.\d\d points over the same student", page)
    assert "<strong>alone</strong>: One seed, so these models only" in page
    assert page.count('<li class="helped">') == page.count('<span class="finding helped">') == 1


def test_one_experiment_is_said_in_its_own_words(groups: dict[str, list[RunFolder]]) -> None:
    (only,) = summarise(gather({"base": groups["base"]}), groups)
    assert headline([only]) == [only.sentence]


def test_the_key_of_the_accuracies_names_no_role_that_is_not_there(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "one", 0)
    key = '<span class="key control">control</span>'
    figure = '<h2 id="overview">Accuracy against trainable parameters</h2>'
    assert key in page_of({"one": [run]}, tmp_path).partition(figure)[2].partition("</section>")[0]
    results = run.results()
    write_json(run.path / METRICS, {name: each for name, each in results.items() if name != "control"})
    shown = page_of({"one": [run]}, tmp_path).partition(figure)[2].partition("</section>")[0]
    assert shown.count('<span class="key ') == 2
    assert key not in shown


def test_a_projector_that_was_dropped_stands_beside_what_is_kept(tmp_path: Path) -> None:
    runs = {"one": [finished_run(tmp_path, "one", 0)]}
    assert " dropped</small>" not in page_of(runs, tmp_path)
    (run,) = runs["one"]
    results = run.results()
    results["student"]["projector_parameters"] = 24_576
    write_json(run.path / METRICS, results)
    assert page_of(runs, tmp_path).count("<small>+ 24,576 dropped</small></td>") == 1


def test_where_nothing_was_learnt_that_is_what_is_said(tmp_path: Path) -> None:
    runs = {name: [finished_run(tmp_path, name, 0)] for name in ("one", "two")}
    for (run,) in runs.values():
        results = run.results()
        confusion = np.array(results["student"]["test"]["confusion"])
        results["student"]["test"]["confusion"] = [[int(row.sum()), *[0] * (len(row) - 1)] for row in confusion]
        write_json(run.path / METRICS, results)
    (said,) = headline(summarise(gather(runs), runs))
    assert said.startswith("Nothing was learnt: in every run the student puts all test rows into one class.")


def test_where_the_test_has_one_class_only_nothing_is_said_of_what_was_learnt(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "one", 0)
    results = run.results()
    for role in ROLES[:3]:
        results[role]["test"] |= {"accuracy": 1.0, "confusion": [[445, 0, 0, 0, 0], *[[0] * 5] * 4]}
    write_json(run.path / METRICS, results)
    runs = {"one": [run]}
    (said,) = headline(summarise(gather(runs), runs))
    assert said == ("The test rows have one class only, so that nothing can be judged. Give test rows of every class.")


def test_a_teacher_that_learnt_nothing_is_said_before_any_difference(
    groups: dict[str, list[RunFolder]], tmp_path: Path
) -> None:
    (run,) = groups["alone"]
    results = run.results()
    constant = {"accuracy": 0.2, "confusion": [[89, 0, 0, 0, 0]] * 5}
    learnt = results["teacher"]["test"]
    results["teacher"]["test"] = learnt | constant
    write_json(run.path / METRICS, results)
    evidence = gather(groups)
    first, advice, *others = headline(summarise({"alone": evidence["alone"]}, groups))
    assert first == f"What has not learnt cannot teach: the teacher is no better than always answering {NASTY!r}."
    assert advice == (
        "57 steps of training (3 epochs) is little: give more --teacher_num_epochs, or a higher"
        " --teacher_learning_rate than 0.001."
    )
    assert others[0].startswith("One seed, so these models only")
    page = page_of(groups, tmp_path)
    assert page.index('give more <code class="flag">--teacher_num_epochs</code>, or a higher') < page.index(
        'id="table"'
    )
    first, _, *others = headline(summarise(evidence, groups))
    assert first.startswith("What has not learnt cannot teach: in 1 of 4 runs, as in alone: the teacher is no better")
    assert others[0].startswith("Distillation helped in ")
    results["teacher"]["test"], results["control"]["test"] = learnt, results["control"]["test"] | constant
    write_json(run.path / METRICS, results)
    first = headline(summarise({"alone": evidence["alone"]}, groups))[0]
    assert first.startswith("What has not learnt cannot be compared: the control is no better")


def test_a_variation_without_a_control_that_learnt_nothing_comes_after_what_the_others_show(
    groups: dict[str, list[RunFolder]],
) -> None:
    (run,) = groups["alone"]
    results = run.results()
    results["student"]["test"] |= {"accuracy": 0.2, "confusion": [[89, 0, 0, 0, 0]] * 5}
    del results["control"], results["student_minus_control"]
    write_json(run.path / METRICS, results)
    first, *others, last, _ = headline(summarise(gather(groups), groups))
    assert first.startswith("Distillation helped in ")
    assert last.startswith("What has not learnt cannot be compared: in 1 of 4 runs, as in alone: the student is no")
    assert not any("learnt" in each for each in others)


def test_that_merging_makes_no_student_faster_is_said_of_whom_it_holds(
    groups: dict[str, list[RunFolder]], tmp_path: Path
) -> None:
    assert f"<li>{SPEED}</li>" in page_of(groups, tmp_path)
    (run,) = groups["alone"]
    write_json(run.path / METRICS, run.results() | {"same_backbone": False})
    page = page_of(groups, tmp_path)
    assert f"<li>base: {SPEED}</li>\n<li>{FASTER}</li>" in page
    assert page.count(SPEED) == 1


def time_it(run: RunFolder, weights: str = "weight_bytes", **measured: str) -> None:
    """As if its models had answered 32 texts in 64 and 32 milliseconds."""
    timing = {"batch": 32, "teacher": {"median": 0.064}, "student": {"median": 0.032}}
    model = {"total_parameters": 22_713_216, "multiply_adds": 10_616_832, weights: 90_852_864}
    write_json(run.path / run_folder.SPEED, {"models": {"student": model}, "timings": [{}, timing]} | measured)


def test_speed_and_size_say_what_they_are_of(tmp_path: Path) -> None:
    runs = {name: [finished_run(tmp_path, f"{name}-seed-{seed}", seed) for seed in (0, 1)] for name in ("one", "two")}
    time_it(runs["one"][1])  # whichever of its seeds was timed
    adapter = runs["one"][0].path / "student" / "adapter_model.safetensors"
    adapter.parent.mkdir()
    adapter.write_bytes(b"x" * 1500)
    for form, size in (("merged", 7_000_000), ("onnx-int8", 3_000_000)):
        verification = runs["one"][0].path / "exported" / f"student-{form}" / "verification.json"
        verification.parent.mkdir(parents=True)
        write_json(verification, {"form": form, "bytes": size})
    page = page_of(runs, tmp_path)
    headings = re.findall("<button>(.*?)</button>", page)
    one, two = (
        [" ".join(re.sub("<[^>]*>", " ", cell).split()) for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
        for row in re.findall(r"<tr>.*?</tr>", page[page.index("<tbody>") :].partition("</tbody>")[0], re.DOTALL)
    )
    places = [headings.index(name) - 1 for name in ("Trainable", "Total", "Speed, texts/s", "Size")]
    assert [one[place] for place in places] == [
        "223,493 22.35% of budget",
        "22,862,981 10.6M multiply- adds a token",
        "1,000.0 answering, merged 2.00× teacher",
        "2 kB adapter 7 MB merged 3 MB onnx-int8",
    ]
    assert [two[place] for place in places[1:]] == ["22,862,981", "94.7 in training", "–"]
    for file in runs["one"][0].path.glob("exported/*/*.json"):
        file.unlink()
    assert "<small>91 MB merged</small>" in page_of(runs, tmp_path)
    time_it(runs["one"][1], weights="bytes")  # as an earlier version called them
    assert "MB merged" not in page_of(runs, tmp_path)
    assert page.count("<td>22,862,981</td>") == 2 * 3  # each role of each


def test_runs_that_were_timed_have_a_plot_of_their_own(tmp_path: Path) -> None:
    runs = {name: [finished_run(tmp_path, name, 0)] for name in ("one", "two")}
    assert "Accuracy against the time of an answer" not in page_of(runs, tmp_path)
    time_it(runs["one"][0])
    time_it(runs["two"][0], form="onnx-int8")
    page = page_of(runs, tmp_path)
    assert "<h2>Accuracy against the time of an answer</h2>" in page
    assert "on the machine that it was called on:\nmerged, onnx-int8.\n" in page
    assert 'class="line front"' not in page.partition("against the time of an answer")[2].partition("</svg>")[0]
    assert re.search(r"student of one: [^<]*, 1\.00 ms a text", page)
    assert re.search(r"teacher of one: [^<]*, 2\.00 ms a text", page)


def test_students_are_ranked_among_those_on_the_same_texts(tmp_path: Path) -> None:
    runs = {name: [finished_run(tmp_path, name, 0, text=name[0])] for name in ("a1", "a2", "b1", "c1", "c2")}
    for name, wrong in {"a1": 10, "a2": 5, "b1": 0, "c1": 5, "c2": 20}.items():
        answer(runs[name][0], "student", wrong)
        results = runs[name][0].results()
        results["data"]["name"] = f"data {name[0]}"
        write_json(runs[name][0].path / METRICS, results)
    best = [said for said in headline(summarise(gather(runs), runs)) if "most accurate" in said]
    assert [said.partition(", with")[0] for said in best] == [
        "The most accurate student on data a is a2",
        "The most accurate student on data c is c1",
    ]
    (apart,) = [said for said in headline(summarise(gather(runs), runs)) if "not to be compared" in said]
    assert apart.endswith("compared: a1, a2 on rows of data a; b1 on rows of data b; c1, c2 on rows of data c.")
    page = page_of(runs, tmp_path)
    assert "dashed line: no model" not in page
    assert "front" not in page[page.index("<svg") : page.index("</svg>")]


@pytest.mark.parametrize(("wrong", "has_line"), [(40, True), (400, False)])
def test_a_line_is_explained_where_there_is_one(wrong: int, has_line: bool, tmp_path: Path) -> None:
    run = finished_run(tmp_path, "one", 0)
    parts: dict[Role, int] = {"teacher": wrong, "student": 200, "control": 200}
    for role, of_role in parts.items():
        answer(run, role, of_role)
    page = page_of({"one": [run]}, tmp_path)
    overview = page[page.index('id="overview"') : page.index("</figure>")]
    assert ('class="line front"' in overview) == has_line
    assert ("The dashed line: no model" in overview) == has_line


def test_it_asks_no_network_and_escapes_what_users_wrote(groups: dict[str, list[RunFolder]], tmp_path: Path) -> None:
    page = page_of(groups, tmp_path)
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', page) == []
    assert not re.search(r"url\(|@import|fetch\(|https?:(?!//www\.w3\.org/)", page)
    assert NASTY not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert page.count("<script>") == 1


def test_every_plot_is_well_formed_and_says_what_it_shows(groups: dict[str, list[RunFolder]], tmp_path: Path) -> None:
    groups["other"] = [finished_run(tmp_path, f"other-seed-{seed}", seed, alpha=0.9) for seed in range(3)]
    plots = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page_of(groups, tmp_path), re.DOTALL)]
    assert len(plots) == 1 + 2 + 4 * len(groups)  # accuracy; what alpha does; and of each experiment
    for plot in plots:
        assert plot.get("aria-label")
        assert plot.findall(".//title")
    marks = [str(mark.text).partition(":")[0] for mark in plots[0].findall(".//g/title")]
    assert sorted(marks) == sorted(f"{role} of {names}" for names in ("base, other", "alone") for role in ROLES[:3])


def test_differences_of_all_figures_are_shown_as_what_they_are_of(
    groups: dict[str, list[RunFolder]], tmp_path: Path
) -> None:
    page, evidence = page_of(groups, tmp_path), gather(groups)["base"]
    comparison = evidence.comparisons["control"]
    assert evidence.verdict
    table = page[page.index("<h3>Student − control, over 3 seeds</h3>") :].partition("</table>")[0]
    assert page.count("<h3>Student − control, over") == 1
    assert re.findall("<th scope=.col.>(.*?)</th>", table) == [
        *("Figure", "Difference", "For other texts and seeds", "p", "On exactly these rows, for other seeds", "p"),
    ]
    lines = [re.findall(r"<t[hd](?: scope=.row.)?>(.*?)</t[hd]>", line) for line in re.findall("<tr>.*?</tr>", table)]
    names = ("Accuracy, points", "Macro F1, points", "NLL", "Brier", "ECE", "ECE, equal mass", "AURC")
    assert [line[0] for line in lines] == list(names)
    nll, ece = (lines[names.index(name)] for name in ("NLL", "ECE"))
    of_texts, of_rows = comparison.recipe["nll"], comparison.same_rows["nll"]
    assert nll[1:4] == [
        f"{of_texts.difference:+.4f}",
        f"{of_texts.low:+.4f} to {of_texts.high:+.4f}",
        f"{of_texts.p_value:.2g}",
    ]
    assert nll[4] == f"{of_rows.low:+.4f} to {of_rows.high:+.4f}"
    assert ece[2:4] == ["–", "–"]
    assert evidence.verdict.detectable
    assert f"accuracy of {100 * evidence.verdict.detectable:.2f} points\nwould be shown" in page


def test_what_was_learned_from_the_teacher_is_counted_over_all_seeds(
    groups: dict[str, list[RunFolder]], tmp_path: Path
) -> None:
    right = gather(groups)["base"].right
    gains = int((right["teacher"] & ~right["control"]).sum())
    page = page_of(groups, tmp_path)
    assert f"<p>Of {gains:,} answers that the teacher has right and the control wrong, over all seeds,\n" in page
    assert len(re.findall(r"control wrong,\nthe student has", page)) == 1  # of the one with one seed


def test_the_f1_of_each_class_is_drawn_as_a_bar(groups: dict[str, list[RunFolder]], tmp_path: Path) -> None:
    page = page_of({"alone": groups["alone"]}, tmp_path)
    f1 = groups["alone"][0].results()["control"]["test"]["per_class"]["tech"]["f1"]
    table = page[page.index('aria-label="F1 of each class"') :].partition("</table>")[0]
    assert f'<span style="width: {100 * f1:.1f}%; background: var(--control)">' in table
    assert table.count('class="bar"') == 3 * 5


def test_every_row_of_every_table_says_what_it_is_of(groups: dict[str, list[RunFolder]], tmp_path: Path) -> None:
    tables = [table.partition("</table>")[0] for table in page_of(groups, tmp_path).split("<tbody>")[1:]]
    rows = [row for table in tables for row in table.split("<tr")[1:]]
    assert len(rows) > 50
    assert all(row.count('<th scope="row">') == 1 for row in rows)


def test_the_answers_of_every_role_are_shown(groups: dict[str, list[RunFolder]], tmp_path: Path) -> None:
    page = page_of({"alone": groups["alone"]}, tmp_path)
    for role in ROLES[:3]:
        table = page[page.index(f'aria-label="Confusion of the {role}"') :].partition("</table>")[0]
        counts = [int(count) for count in re.findall(r"<td[^>]*>([\d,]+)</td>", table)]
        assert counts == list(np.ravel(groups["alone"][0].results()[role]["test"]["confusion"]))


def test_settings_that_differ_are_named(groups: dict[str, list[RunFolder]], tmp_path: Path) -> None:
    assert "<code>alpha: 0.7</code>" in page_of(groups, tmp_path)


def test_fifty_runs_are_less_than_three_megabytes(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, f"run-{number}", 0, alpha=number / 10) for number in range(10)]
    groups = {f"e{number}": [runs[number % 10]] for number in range(50)}
    assert len(page_of(groups, tmp_path).encode()) < 3_000_000


def without_control(run: RunFolder) -> RunFolder:
    results, table = run.results(), pq.read_table(run.path / PREDICTIONS)
    del results["control"], results["student_minus_control"], results["agreement"]["control_teacher"]
    write_json(run.path / METRICS, results)
    pq.write_table(table.drop_columns(["control_logits"]), run.path / PREDICTIONS)
    return run


def test_without_a_control_nothing_is_said_of_the_distillation(tmp_path: Path) -> None:
    runs = {"mine": [without_control(finished_run(tmp_path, f"mine-seed-{seed}", seed)) for seed in range(3)]}
    assert "No control was trained, so nothing can be said" in page_of(runs, tmp_path)
    runs["other"] = [finished_run(tmp_path, "other", 0, alpha=0.7)]
    mine, other = summarise(gather(runs), runs)
    assert (mine.finding, other.finding) == ("no control", "one seed")
    said = "Whether distillation helped cannot be said: each experiment has one seed, or no control."
    assert headline([mine, other])[0] == said


def test_figures_are_files_that_need_no_page(groups: dict[str, list[RunFolder]], tmp_path: Path) -> None:
    groups["other"] = [finished_run(tmp_path, f"other-seed-{seed}", seed, alpha=0.9) for seed in range(3)]
    written = write_report(tmp_path / "report.html", gather(groups), groups, tmp_path / "figures")
    files = sorted((tmp_path / "figures").glob("*.svg"))
    assert len(files) == written == 1 + 2 + 4 * len(groups)
    assert len(list((tmp_path / "figures").iterdir())) == 2 * written
    assert {"accuracy.svg", "1-accuracy-by-alpha.svg", "1-difference-by-alpha.svg", "1-base-calibration.svg"} <= {
        file.name for file in files
    }
    for file in files:
        text = file.read_text(encoding="utf-8")
        picture = file.with_suffix(".png").read_bytes()
        assert struct.unpack(">II", picture[16:24]) == (2 * WIDTH, 2 * HEIGHT)
        assert picture != png(re.sub("<text.*?</text>", "", text))  # its letters are in it
        assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in text
        words = [word.text for word in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
        named = [word for word in words if word in ROLES]
        assert named == ([] if "difference" in file.name else list(ROLES[:3]))
