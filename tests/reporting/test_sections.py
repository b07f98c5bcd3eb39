from pathlib import Path

import numpy as np
import pytest

from lora_distill.evaluation.comparison import compare_over_seeds
from lora_distill.evaluation.metrics import classification_metrics
from lora_distill.evidence import Predictions, gather
from lora_distill.reporting.sections import cost, differences, rows_to_read
from lora_distill.reporting.summary import summarise
from lora_distill.run_folder import METRICS
from lora_distill.store import write_json
from tests.reporting.test_report import finished_run


def test_seeds_that_all_give_the_same_have_no_interval_on_the_page() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    labels = np.arange(50) % 2
    metrics = ([classification_metrics(each, labels, ["a", "b"])] * 3 for each in (logits, -logits))
    alike = compare_over_seeds([logits] * 3, [-logits] * 3, labels, *metrics)
    assert all(line["same_rows"] == line["same_rows_p"] == "–" for line in differences(alike))
    assert any(line["difference"] != "+0.00" for line in differences(alike))


def test_rows_worth_reading_are_chosen_by_what_the_models_say() -> None:
    predictions = Predictions(
        np.arange(5),
        [("both ", "\nsure"), "sure", "against", "fine", "fine too"],
        np.array([0, 0, 0, 0, 1]),
        {
            "teacher": np.array([[0, 9], [9, 0], [0, 9], [9, 0], [0, 9]], np.float32),
            "student": np.array([[0, 9], [0, 9], [9, 0], [9, 0], [0, 9]], np.float32),
            "control": np.array([[9, 0], [9, 0], [9, 0], [9, 0], [0, 9]], np.float32),
        },
    )
    rows = rows_to_read(predictions, ["a", "b"])
    assert [(row["texts"], row["kind"]) for row in rows] == [
        (["both", "sure"], "the label may be wrong: teacher and student are sure of another"),
        (["sure"], "wrong, and sure of it"),
        (["against"], "against its teacher"),
    ]
    assert rows[1]["said"] == {"teacher": "a (99.99%)", "student": "b (99.99%)", "control": "a (99.99%)"}


def test_seconds_add_up_and_what_was_shared_is_told(tmp_path: Path) -> None:
    runs = {name: [finished_run(tmp_path, name, 0)] for name in ("one", "two")}
    results = runs["two"][0].results()
    results["teacher"]["reused"] = True
    write_json(runs["two"][0].path / METRICS, results)
    found = cost(summarise(gather(runs), runs))
    assert found["total"] == pytest.approx(2 * 71.3)
    assert found["stages"]["training steps"] == {"teacher": 2 * 31.2, "student": 2 * 19.0}
    assert sum(sum(row.values()) for row in found["stages"].values()) == pytest.approx(found["total"])
    assert found["reused"] == {"teacher": (1, 2)}
    assert found["saved"] == pytest.approx(31.2)
    assert found["spared"] == pytest.approx(5 * 12.5)  # of the six that the two experiments ask for
