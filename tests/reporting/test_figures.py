import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_distill.reporting.figures import effects, learning
from lora_distill.run_folder import HISTORY, RunFolder
from lora_distill.store import write_jsonl


@dataclass
class Named:
    """What `effects` asks of an experiment: nothing."""

    name: str


def found(*settings: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    experiments = [Named(str(number)) for number in range(len(settings))]
    each = effects(settings, experiments)  # type: ignore[arg-type]  # it only hands them on
    return [(one.title, one.values) for one in each]


def test_only_experiments_that_differ_in_nothing_else_are_compared() -> None:
    base: dict[str, Any] = {"alpha": 0.5, "temperature": 2.0, "rank": 8}
    assert found(base, base | {"alpha": 0.1}, base | {"temperature": 1.0}, base | {"alpha": 0.9, "rank": 4}) == [
        ("alpha: 1, 0", [0.1, 0.5]),
        ("temperature: 2, 0", [1.0, 2.0]),
    ]


def test_a_grid_is_parted_by_what_else_it_varies() -> None:
    grid = [{"alpha": alpha, "temperature": t} for alpha in (0.9, 0.1) for t in (1.0, 4.0)]
    assert found(*grid) == [
        ("alpha: 2, 0", [0.1, 0.9]),
        ("alpha: 3, 1", [0.1, 0.9]),
        ("temperature: 0, 1", [1.0, 4.0]),
        ("temperature: 2, 3", [1.0, 4.0]),
    ]


def test_values_of_any_kind_have_an_order() -> None:
    assert found({"rows": None}, {"rows": 200}, {"rows": 30}) == [("rows: 2, 1, 0", [30, 200, None])]
    assert found({"rows": 5}) == []


def test_several_teachers_are_one_curve_of_their_means(tmp_path: Path) -> None:
    accuracies = {(1, 1): 0.5, (2, 1): 0.7, (1, 2): 0.6, (2, 2): 0.9, (1, 3): 0.8}
    line: dict[str, Any] = {"role": "teacher", "event": "validation"}
    lines = [line | {"epoch": epoch, "accuracy": found} for (epoch, _), found in accuracies.items()]
    write_jsonl(tmp_path / HISTORY, [*lines, {"role": "teacher", "event": "step", "epoch": 1}])
    one = [line | {"epoch": 1, "accuracy": statistics.mean([0.5, 0.6, 0.8])}]
    one.append(line | {"epoch": 2, "accuracy": statistics.mean([0.7, 0.9])})
    (tmp_path / "one").mkdir()
    write_jsonl(tmp_path / "one" / HISTORY, one)
    assert learning(RunFolder(tmp_path), "x") == learning(RunFolder(tmp_path / "one"), "x") != ""
