from dataclasses import replace
from pathlib import Path

import numpy as np

from lora_distill.evaluation.verdict import Verdict
from lora_distill.evidence import Evidence, gather
from lora_distill.reporting.evidence_tables import evidence_table, explain_evidence, figures_table, pair_table
from lora_distill.reporting.pairs import pairs
from lora_distill.reporting.sentences import FASTER, SPEED
from lora_distill.reporting.summary import Experiment, summarise
from tests.reporting.test_report import finished_run
from tests.reporting.test_tables import render, suite


def test_the_table_over_seeds_says_what_is_trained_of_how_much() -> None:
    right = np.ones((445, 2), np.bool_)
    evidence = Evidence([], [0, 1], [], [], {}, {}, "", {"student": right})
    shown = render(evidence_table([Experiment("one", evidence, [], suite()[:1])]), 100).splitlines()
    assert shown[5].split() == ["one", "223,493", "2", "-", "100.00%", "-", "-", "-"]
    assert shown[6].split() == ["of", "22.9M", "±", "0.00"]


def test_what_speaks_against_verdicts_over_seeds_comes_before_them_and_the_best_after() -> None:
    results = suite()[:1]
    results[0]["teacher"]["test"] |= {"accuracy": 0.2, "confusion": [[89, 0, 0, 0, 0]] * 5}
    verdict, right = Verdict("helped", "Distillation helped.", 0.01, None), np.ones((445, 2), np.bool_)
    found = [
        Evidence([], [0, 1], ["all"], [], {}, {"control": verdict}, "", {"student": each})
        for each in (np.zeros_like(right), right)
    ]
    both = [Experiment(name, each, [], results) for name, each in zip(("one", "two"), found, strict=True)]
    lines = explain_evidence(both)
    assert lines[1].startswith("WARNING: quickstart-base: the teacher puts every test row into 'business'; the")
    assert lines[2:4] == ["- one: Distillation helped.", "- two: Distillation helped."]
    assert lines[4].startswith("The most accurate student is two, with ")
    assert lines[5].startswith("Means over seeds")
    assert not any("most accurate" in line for line in explain_evidence(both[:1]))


def test_those_without_a_control_share_a_line() -> None:
    results, right = suite()[:1], np.ones((445, 2), np.bool_)
    results[0].pop("student_minus_control", None)
    verdict = Verdict("helped", "Distillation helped.", 0.01, None)
    found = [Evidence([], [0, 1], [], [], {}, {}, "", {"student": right}) for _ in range(3)]
    found[1] = replace(found[1], verdicts={"control": verdict})
    names = ("one", "two", "three")
    lines = explain_evidence([Experiment(name, each, [], results) for name, each in zip(names, found, strict=True)])
    assert [line for line in lines if line.startswith("- ")] == [
        "- two: Distillation helped.",
        "- one, three: No control was trained, so nothing can be said of the distillation.",
    ]


def test_of_speed_no_more_is_said_than_holds_of_each() -> None:
    alike, smaller = suite()[:2]
    experiments = [
        Experiment(name, Evidence([], [0, 1], [], [], {}, {}, "", {"student": np.ones((445, 2), np.bool_)}), [], [each])
        for name, each in (("alike", alike), ("cut\n", smaller | {"same_backbone": False}), ("too", alike))
    ]
    assert explain_evidence(experiments)[-2:] == [f"alike, too: {SPEED}", FASTER]
    assert explain_evidence(experiments[:1])[-1] == SPEED
    assert explain_evidence(experiments[1:2])[-1] == FASTER


def test_a_pair_is_told_apart_by_settings_and_figures(tmp_path: Path) -> None:
    groups = {
        "one": [finished_run(tmp_path, "one", 0, labels_per_class=5)],
        "two": [finished_run(tmp_path, f"two-seed-{seed}", seed, alpha=0.7, labels_per_class=5) for seed in (0, 1)],
    }
    one, two = experiments = summarise(gather(groups), groups)
    shown = render(pair_table(pairs(experiments)[:2]), 100)
    lines = {line[:26].strip(): line[26:].split() for line in shown.splitlines()[4:]}
    assert lines["alpha"] == ["0.5", "0.7"]
    assert lines["seeds"] == ["0", "0,", "1"]
    for name in ("macro F1", "NLL", "ECE"):
        assert lines[f"student: {name}"] == [each.figures()[f"student: {name}"] for each in (one, two)]
    assert "labels_per_class" not in lines
    assert "trainable parameters" not in lines


def test_runs_of_several_seeds_can_be_told_apart_too(tmp_path: Path) -> None:
    groups = {
        "many": [finished_run(tmp_path, f"many-seed-{seed}", seed) for seed in (3, 5)],
        "one": [finished_run(tmp_path, "one", 3, alpha=0.7)],
    }
    experiments = summarise(gather(groups), groups)
    found = {each["name"]: dict(each["said"]) for each in pairs(experiments)}
    assert list(found) == ["many", "one", "many-seed-3", "many-seed-5"]
    alone = found["many-seed-5"]
    assert (alone["alpha"], alone["seeds"], found["many"]["seeds"]) == ("0.5", "5", "3, 5")
    accuracy = experiments[0].evidence.accuracy["student"][1]
    assert alone["student: accuracy"].startswith(f"{100 * accuracy:.2f}% [")
    results = groups["many"][1].results()
    assert alone["student: NLL"] == f"{results['student']['test']['nll']:.4f}"
    assert alone["student − control, points"].startswith(f"{100 * results['student_minus_control']['accuracy']:+.2f} [")


def test_figures_beside_the_accuracy_are_those_of_each_role(tmp_path: Path) -> None:
    runs = {"one": [finished_run(tmp_path, f"one-seed-{seed}", seed) for seed in (0, 1)]}
    experiments = summarise(gather(runs), runs)
    lines = [line.split() for line in render(figures_table(experiments), 80).splitlines()]
    assert ["Experiment", "Role", "Macro", "F1", "NLL", "ECE"] in lines
    tests = [run.results()["control"]["test"] for run in runs["one"]]
    means = [f"{np.mean([test[name] for test in tests]):.4f}" for name in ("macro_f1", "nll", "ece")]
    assert lines[-1] == ["one", "control", *means]
    assert len(lines) == 4 + 3
