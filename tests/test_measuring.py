from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_distill.config import make_config
from lora_distill.measuring import Costs, Measurements, Work, _spread
from lora_distill.preparation import prepare
from lora_distill.training.outcome import Outcome
from tests.end_to_end.conftest import small_values, write_rows

NO_OUTCOME = Outcome("", {}, {}, [], {}, reused=False)
WORK = Work(300, 60, 120, 50, token_layers=7000, exact_token_layers=11_000)


@pytest.mark.parametrize(
    ("stage", "units"),
    [
        ("load", 1),
        ("frozen layers", 7000),
        ("frozen layers in fp32", 11_000),
        ("training steps", 300),
        ("validation", 60),
        ("logits", 120),
        ("test in fp32", 50),
    ],
)
def test_each_stage_grows_with_its_own_work(stage: str, units: int) -> None:
    assert Costs({stage: 0.5}, None, 0, 0, 0.0, NO_OUTCOME).of(WORK) == 0.5 * units


def test_the_rows_that_are_measured_are_batches_of_neighbours_of_every_length() -> None:
    lengths = np.random.default_rng(0).permutation(np.arange(1000))
    rows = _spread(lengths, 4, 10)
    chosen = np.sort(lengths[rows]).reshape(4, 10)
    assert np.ptp(chosen, axis=1).tolist() == [9] * 4
    assert abs(chosen.mean() - lengths.mean()) < 1
    assert _spread(lengths[:30], 4, 10).tolist() == list(range(30))


def test_runs_that_are_unlike_are_measured_each(tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    base = small_values(tiny("roberta"), write_rows(tmp_path / "rows.csv", 60)) | {"output_dir": str(tmp_path / "out")}
    unlike: list[dict[str, Any]] = [{}, {"no_control": True}, {"max_train_rows": 20}, {"student_depth": 2}]
    measurements = Measurements(tmp_path / "measured")
    costs = [measurements.run(prepare(make_config(base | changes, {}))) for changes in [*unlike, {"alpha": 0.7}]]
    assert len(set(costs)) == len(unlike)
    assert costs[0] == costs[-1]
