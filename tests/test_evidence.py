import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_distill.config import make_config
from lora_distill.errors import UserError
from lora_distill.evaluation.comparison import compare_over_seeds
from lora_distill.evaluation.metrics import classification_metrics
from lora_distill.evidence import as_json, gather
from lora_distill.grouping import group_by_seed
from lora_distill.run_folder import METRICS, PREDICTIONS, RunFolder
from lora_distill.store import write_json
from lora_distill.suite import Suite

ROWS, NAMES = 400, ["no", "yes"]
LABELS = np.arange(ROWS) % 2


def logits(accuracy: float, generator: np.random.Generator) -> np.ndarray:
    right = generator.random(ROWS) < accuracy
    answers = np.where(right, LABELS, 1 - LABELS)
    return (4 * np.eye(2)[answers] + generator.random((ROWS, 2))).astype(np.float32)


def finish(suite: Suite, accuracies: dict[str, float], texts: str = "text", **environment: dict[str, str]) -> None:
    """Let every run of a suite be finished, with roles of these accuracies, judged on rows of such texts."""
    for config in suite.runs.values():
        generator = np.random.default_rng(config.seed)
        roles = {role: logits(accuracy, generator) for role, accuracy in accuracies.items()}
        run = RunFolder.of(config)
        run.begin(config, {"requested": {}, **environment})
        tested = {role: {"test": classification_metrics(each, LABELS, NAMES)} for role, each in roles.items()}
        write_json(
            run.path / METRICS,
            {
                "exp_name": config.exp_name,
                "data": {"label_names": NAMES, "source": {"revision": "r"}, "notes": []},
                **tested,
            },
        )
        columns = {"row_id": np.arange(ROWS), "text": [f"{texts} {row}" for row in range(ROWS)], "label": LABELS}
        for role, each in roles.items():
            columns[f"{role}_logits"] = pa.array(list(each), type=pa.list_(pa.float32(), 2))
        pq.write_table(pa.table(columns), run.path / PREDICTIONS)


def suite_in(folder: Path, seeds: int, *experiments: str) -> Suite:
    runs, names = {}, {}
    for experiment in experiments:
        names[experiment] = [f"{experiment}-seed-{seed}" for seed in range(seeds)]
        for seed, name in enumerate(names[experiment]):
            settings = {"output_dir": str(folder), "exp_name": f"s-{name}", "seed": seed}
            runs[name] = make_config(settings, {})
    return Suite("s", runs, names)


def test_a_student_that_learnt_more_is_said_to_have_been_helped(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, 4, "good", "bad")
    finish(
        suite.only("good"),
        {"teacher": 0.95, "student": 0.95, "control": 0.8},
    )
    finish(
        suite.only("bad"),
        {"teacher": 0.95, "student": 0.7, "control": 0.9},
    )
    evidence = gather(suite.groups())
    found = {name: each.verdict.finding for name, each in evidence.items() if each.verdict}
    assert found == {"good": "helped", "bad": "hurt"}
    assert evidence["good"].seeds == [0, 1, 2, 3]
    assert len(evidence["good"].accuracy["student"]) == 4
    written = json.loads(json.dumps(as_json(evidence)))
    recipe = written["experiments"]["good"]["comparisons"]["control"]["recipe"]["accuracy"]
    assert recipe["low"] < recipe["difference"] < recipe["high"]
    assert written["correction"] == {
        "method": "Holm",
        "comparisons": 2,
        "corrected": ["verdicts.*.p_value"],
        "not_corrected": [
            *("comparisons.*.recipe.*.p_value", "comparisons.*.same_rows.*.p_value"),
            "one_seed.*.p_value",
        ],
    }
    assert written["experiments"]["good"]["one_seed"] == {}
    assert written["experiments"]["good"]["runs"] == [f"s-good-seed-{seed}" for seed in range(4)]


def test_a_verdict_says_what_its_control_differs_in_beside_the_teacher(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, 3, "one")
    own = {"control_num_epochs": 30, "control_learning_rate": None, "unlabelled": "texts.csv"}
    suite = replace(suite, runs={name: run.model_copy(update=own) for name, run in suite.runs.items()})
    finish(suite, {"teacher": 0.95, "student": 0.95, "control": 0.8, "self-trained": 0.8})
    verdicts = gather(suite.groups())["one"].verdicts
    differing = "over the same student without a teacher but for the number of epochs and the unlabelled texts (95%"
    assert differing in verdicts["control"].sentence
    assert "but for" not in verdicts["self-trained"].sentence


def test_p_values_are_corrected_for_all_that_is_asked(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, 3, "one", "two", "three")
    for name, control in {"one": 0.88, "two": 0.83, "three": 0.86}.items():
        finish(suite.only(name), {"teacher": 0.9, "student": 0.9, "control": control})
    found = gather(suite.groups())
    alone = {name: each.comparisons["control"].recipe["accuracy"].p_value for name, each in found.items()}
    corrected = {name: each.verdict.p_value for name, each in found.items() if each.verdict}
    two, three, one = sorted(alone.values())
    assert alone == {"one": one, "two": two, "three": three}
    assert 3 * two < 2 * three < one < 1  # so that each has a factor of its own
    assert corrected == pytest.approx({"one": one, "two": 3 * two, "three": 2 * three})


def test_what_a_seed_does_not_draw_is_named(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, 2, "given", "carved", "older", "unlabelled")
    finish(suite, {"teacher": 0.9, "student": 0.9})
    drawn_from_texts = {"unlabelled": ["train", "unlabelled"]}
    for name, drawn in ({"given": [], "carved": ["train", "validation"]} | drawn_from_texts).items():
        for config in suite.only(name).runs.values():
            results = RunFolder.of(config).results()
            results["data"]["drawn_by_seed"] = drawn
            if name == "carved":
                results["teacher"]["checkpoint"] = "given"
            if name == "unlabelled":
                results["data"]["unlabelled_rows"] = 7
            write_json(RunFolder.of(config).path / METRICS, results)
    written = as_json(gather(suite.groups()))["experiments"]
    own = ["the student's first weights", "the order of the rows", "dropout"]
    splits = ["the training texts", "the validation split"]
    texts = "the texts without labels"
    assert written["given"]["seed_draws"] == ["the teacher", *own]
    assert written["given"]["seed_keeps"] == splits
    assert written["carved"]["seed_draws"] == [*splits, *own]
    assert written["carved"]["seed_keeps"] == ["the teacher"]
    assert written["unlabelled"]["seed_draws"] == [splits[0], texts, "the teacher", *own]
    assert written["unlabelled"]["seed_keeps"] == [splits[1]]
    assert written["older"]["seed_draws"] == ["the teacher", *own]
    assert written["older"]["seed_keeps"] == []  # what a run does not say is neither


def test_dropout_that_is_set_to_none_is_not_said_to_be_drawn(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, 2, "one")
    suite = replace(
        suite, runs={name: run.model_copy(update={"lora_dropout": 0.0}) for name, run in suite.runs.items()}
    )
    finish(suite, {"teacher": 0.9, "student": 0.9})
    assert gather(suite.groups())["one"].seed_draws[-1] == "any dropout of the encoder's own"


def test_one_seed_or_no_control_has_no_verdict(tmp_path: Path) -> None:
    one = suite_in(tmp_path / "a", 1, "one")
    finish(one, {"teacher": 0.9, "student": 0.9, "control": 0.85})
    found = gather(one.groups())["one"]
    assert found.verdict is None
    written = json.loads(json.dumps(as_json({"one": found})))["experiments"]["one"]
    difference = written["one_seed"]["control"]
    student, control = (written["accuracy"][role][0] for role in ("student", "control"))
    assert difference["difference"] == pytest.approx(student - control)
    assert difference["low"] < difference["difference"] < difference["high"]
    assert 0 < difference["p_value"] <= 1
    assert difference["both_right"] + difference["only_first_right"] == np.sum(found.right["student"])
    assert (written["comparisons"], written["verdicts"]) == ({}, {})
    without = suite_in(tmp_path / "b", 3, "one")
    finish(without, {"teacher": 0.9, "student": 0.9})
    assert gather(without.groups())["one"].verdict is None
    assert gather(without.groups())["one"].one_seed == {}
    assert "control" not in gather(without.groups())["one"].accuracy


def test_two_students_are_compared_row_by_row_and_seed_by_seed(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, 3, "good", "bad", "one")
    finish(suite.only("good"), {"teacher": 0.9, "student": 0.95})
    finish(suite.only("bad"), {"teacher": 0.9, "student": 0.7})
    one = suite.only("one")
    finish(replace(one, runs=dict(list(one.runs.items())[:1])), {"teacher": 0.9, "student": 0.7})
    found = gather(suite.groups())
    lead = found["good"].lead_over(found["bad"], [0, 1, 2])
    means = [np.mean(found[name].accuracy["student"]) for name in ("good", "bad")]
    assert lead.difference == pytest.approx(means[0] - means[1])
    assert 0 < lead.low < lead.difference < lead.high
    itself = found["good"].lead_over(found["good"], [0, 1, 2])
    assert itself.difference == 0
    assert itself.low == -itself.high < 0  # other texts may part them
    of_one_seed = found["good"].lead_over(found["one"], [0]).difference
    assert of_one_seed == pytest.approx(found["good"].accuracy["student"][0] - found["one"].accuracy["student"][0])
    one_against_itself = found["one"].lead_over(found["one"], [0])
    assert one_against_itself.low < 0 == one_against_itself.difference < one_against_itself.high
    written = as_json(found)["experiments"]["good"]
    assert "right" not in written
    assert written["accuracy"] == found["good"].accuracy


def test_a_teacher_is_judged_beside_what_a_student_could_teach_itself(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, 4, "one")
    finish(suite, {"teacher": 0.95, "student": 0.93, "control": 0.7, "self-trained": 0.93})
    found = gather(suite.groups())["one"]
    assert list(found.verdicts) == ["control", "self-trained"]
    assert found.verdicts["control"].finding == "helped"
    assert "over the same student without a teacher" in found.verdicts["control"].sentence
    assert found.verdicts["self-trained"].finding == "no difference"
    assert "over the same student taught by what it learned without one" in found.verdicts["self-trained"].sentence
    written = as_json({"one": found})
    assert written["correction"]["comparisons"] == 2
    # Each is corrected for the other.
    assert found.verdicts["control"].p_value == pytest.approx(
        min(1.0, 2 * found.comparisons["control"].recipe["accuracy"].p_value)
    )


def test_only_finished_runs_count(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, 4, "one", "two")
    done = {name: config for name, config in suite.runs.items() if name in ("one-seed-0", "one-seed-2", "one-seed-3")}
    finish(replace(suite, runs=done), {"teacher": 0.9, "student": 0.9, "control": 0.85})
    evidence = gather(suite.groups())
    assert list(evidence) == ["one"]
    assert evidence["one"].seeds == [0, 2, 3]


def test_other_texts_are_another_test(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, 3, "one", "other")
    finish(suite.only("one"), {"teacher": 0.9, "student": 0.9})
    finish(suite.only("other"), {"teacher": 0.9, "student": 0.7}, texts="another")
    found = gather(suite.groups())
    assert found["one"].test != found["other"].test


@pytest.mark.parametrize(
    ("texts", "base", "said"),
    [("another", "f", "test rows"), ("text", "g", "base model"), ("another", "g", "base model, test rows")],
)
def test_runs_of_other_texts_or_models_are_no_seeds_of_one_experiment(
    texts: str, base: str, said: str, tmp_path: Path
) -> None:
    suite = suite_in(tmp_path, 3, "one")
    roles = {"teacher": 0.9, "student": 0.9, "control": 0.85}
    finish(replace(suite, runs=dict(list(suite.runs.items())[:2])), roles, base_model={"fingerprint": "f"})
    last = dict(list(suite.runs.items())[2:])
    finish(replace(suite, runs=last), roles, texts, base_model={"fingerprint": base})
    with pytest.raises(UserError, match=rf"s-one-seed-2: is no other seed of .*s-one-seed-0, .* differ in: {said}\."):
        gather(suite.groups())


def test_runs_of_other_data_are_no_seeds_of_one_experiment(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, 2, "one")
    finish(suite, {"teacher": 0.9, "student": 0.9, "control": 0.85})
    run = RunFolder.of(suite.runs["one-seed-1"])
    results = run.results()
    results["data"]["source"]["revision"] = "another"
    write_json(run.path / METRICS, results)
    with pytest.raises(UserError, match=r"differ in: data\."):
        gather(suite.groups())
    assert list(group_by_seed([RunFolder.of(config) for config in suite.runs.values()])) == [
        "s-one-seed-0",
        "s-one-seed-1",
    ]


def test_damaged_predictions_are_told(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, 2, "one")
    finish(suite, {"teacher": 0.9, "student": 0.9, "control": 0.85})
    (RunFolder.of(suite.runs["one-seed-1"]).path / PREDICTIONS).write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"predictions\.parquet: missing, damaged"):
        gather(suite.groups())


def test_differences_of_all_figures_agree_with_the_metrics() -> None:
    generator = np.random.default_rng(0)
    students, controls = ([logits(accuracy, generator) for _ in range(3)] for accuracy in (0.9, 0.8))
    metrics = [[classification_metrics(each, LABELS, NAMES) for each in side] for side in (students, controls)]
    found = compare_over_seeds(students, controls, LABELS, *metrics)
    for name in ("accuracy", "nll", "brier", "macro_f1", "ece"):
        means = [np.mean([each[name] for each in side]) for side in metrics]
        assert found.same_rows[name].difference == pytest.approx(means[0] - means[1])
        if name in found.recipe:
            assert found.recipe[name].difference == pytest.approx(means[0] - means[1])
            assert len(found.recipe[name].per_seed) == 3


def test_runs_of_several_versions_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    accuracies = {"teacher": 0.9, "student": 0.9, "control": 0.9}
    suite = suite_in(tmp_path, 2, "old", "new")
    for version, said in (("1", []), ("2", ["these runs were made by 2 versions of this program or its libraries"])):
        shutil.rmtree(tmp_path)
        finish(suite.only("old"), accuracies, versions={"torch": "1"})
        finish(suite.only("new"), accuracies, versions={"torch": version})
        caplog.clear()
        gather(suite.groups())
        assert [message.partition(" (")[0] for message in caplog.messages] == said
