from pathlib import Path

import pytest

from lora_distill.config import Config
from lora_distill.errors import UserError
from lora_distill.search import FIXED, Choices, Range, Search, read_search
from tests.faulty_files import assert_each_told_once, write

CONFIGS = Path(__file__).parents[1] / "configs"


def test_ranges_choices_and_defaults(tmp_path: Path) -> None:
    text = (
        "base: {seed: 3, alpha: 0.1}\n"
        "search:\n"
        "  student_lora_r: {low: 1, high: 8, log: true}\n"
        "  temperature: {low: 1, high: 4}\n"
        "  learning_rate: {low: 1e-5, high: 1e-3, log: true}\n"  # YAML takes 1e-5 for a text
        "  target_modules: {choices: [[q, v], []]}\n"
        "  student_rank_pattern: {choices: [{1: 2, 2: 3}, {}]}\n"
    )
    search = read_search(write(tmp_path, text), {"alpha": "0.2"}, {"alpha": "--alpha"})
    assert (search.name, search.trials, search.seed) == ("mine", 20, 0)
    assert search.space == {
        "student_lora_r": Range(1, 8, log=True),
        "temperature": Range(1.0, 4.0, log=False),
        "learning_rate": Range(1e-5, 1e-3, log=True),
        "target_modules": Choices(("q,v", "")),
        "student_rank_pattern": Choices(("1=2,2=3", "")),
    }
    assert isinstance(search.space["temperature"], Range)
    assert isinstance(search.space["temperature"].low, float)
    config = search.config({"student_lora_r": 4, "target_modules": "q,v"}, "best")
    assert (config.exp_name, config.seed, config.alpha, config.target_modules) == ("best", 3, 0.2, ("q", "v"))
    assert "temperature" not in config.model_fields_set


def test_a_name_that_is_left_empty_is_the_file_s(tmp_path: Path) -> None:
    assert read_search(write(tmp_path, "name:\nsearch:\n  alpha: {low: 0.1, high: 0.9}\n"), {}, {}).name == "mine"


def test_all_faults_of_the_file_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "bases: {}\n"  # 1
        "base:\n"
        "  alpha: 2\n"  # 3
        "  batch_size: 4\n"
        "trials: 0\n"  # 5
        "seed: -1\n"  # 6
        "search:\n"
        "  learning_rate: {low: 0, high: 1}\n"  # 8
        "  temprature: {low: 1, high: 2}\n"  # 9
        "  dataset: {choices: [a, b]}\n"  # 10
        "  batch_size: {low: 4, high: 8}\n"  # 11
        "  num_epochs: [1, 2]\n"  # 12
        "  weight_decay: {low: 0, high: 1, log: true}\n"  # 13
        "  warmup_ratio: {low: 0.5, high: 0.1}\n"  # 14
        "  lr_schedule: {choices: [linear, straight]}\n"  # 15
        "  keep_epoch: {low: best, high: last}\n"  # 16
        "  temperature: {choices: []}\n"  # 17
        "  student_lora_r: {low: 1, hihg: 2}\n"  # 18
        "  use_rslora: {low: false, high: true}\n",  # 19
    )
    with pytest.raises(UserError) as error:
        read_search(file, {}, {})
    assert_each_told_once(
        error.value,
        (
            (1, "did you mean base"),
            (3, "alpha"),
            (5, "at least 1"),
            (6, "at least 0"),
            (8, "learning_rate"),
            (9, "did you mean temperature"),
            (10, "cannot be searched"),
            (11, "line 4: batch_size, too"),
            (12, "must be `{low"),
            (13, "low must be more than 0"),
            (14, "must be less than"),
            (15, "straight"),
            (16, "no number"),
            (19, "no number"),
            (17, "list of values"),
            (18, "must be `{low"),
        ),
    )
    assert len(str(error.value).splitlines()) == 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "varies nothing"),
        ("search: 5\n", "line 1: search: must hold"),
        ("base: {exp_name: a}\nsearch: {alpha: {low: 0, high: 1}}\n", "names its winner's run itself"),
        ("name: a/b\nsearch: {alpha: {low: 0, high: 1}}\n", "mine.yaml, line 1: name: 'a/b' must name one folder"),
    ],
)
def test_what_is_no_search(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        read_search(write(tmp_path, text), {}, {})
    assert said in str(error.value)


def test_what_does_not_fit_the_model_is_told_with_the_rest_and_only_of_what_is_sound(tmp_path: Path) -> None:
    asked: list[Search] = []

    def misfits(search: Search) -> list[str]:
        asked.append(search)
        return ["does not fit"]

    text = "search:\n  alpha: {low: 0, high: 1}\n  temperature: {low: 2, high: 1}\n"
    with pytest.raises(UserError, match=r"(?s)line 3: temperature.*does not fit"):
        read_search(write(tmp_path, text), {}, {}, misfits)
    assert list(asked[0].space) == ["alpha"]


def test_the_control_is_searched_between_its_own_bounds_or_the_student_s(tmp_path: Path) -> None:
    space = (
        "search:\n  alpha: {low: 0, high: 1}\n  learning_rate: {low: 1e-4, high: 1e-3}\n"
        "  num_epochs: {low: 2, high: 9}\n"
    )
    search = read_search(write(tmp_path, space), {}, {})
    assert search.of_student() == search
    control = search.of_control({"alpha": 0.5, "num_epochs": 4, "learning_rate": 2e-4}, "its")
    assert control.space == {
        "control_learning_rate": Range(1e-4, 1e-3, log=False),
        "control_num_epochs": Range(2, 4, log=False),  # no more than the student's
    }
    config = control.config({"control_num_epochs": 3}, "run")
    assert (config.alpha, config.num_epochs, config.control_num_epochs) == (0.5, 4, 3)
    own = read_search(write(tmp_path, space + "  control_num_epochs: {choices: [10, 30]}\n"), {}, {})
    assert set(own.of_student().space) == {"alpha", "learning_rate", "num_epochs"}
    given = {"control_learning_rate": "1e-5"}
    values = {"alpha": 0.5, "num_epochs": 4, "learning_rate": 2e-4}
    assert own.of_control(values, "its").space["control_num_epochs"] == Choices((10, 30))
    fixed = read_search(write(tmp_path, space), given, {"control_learning_rate": "--control_learning_rate"})
    assert set(fixed.of_control(values, "its").space) == {"control_num_epochs"}
    few = "base: {preset: few_labels, unlabelled: texts.txt}\nsearch:\n  num_epochs: {low: 1, high: 4}\n"
    assert not read_search(write(tmp_path, few), {}, {}).of_control({"num_epochs": 2}, "its").space  # it is given 30
    chosen = read_search(write(tmp_path, "search:\n  num_epochs: {choices: [2, 4, 8]}\n"), {}, {})
    assert chosen.of_control({"num_epochs": 4}, "its").space == {"control_num_epochs": Choices((2, 4))}


def test_a_control_that_teaches_is_searched_with_its_student_alone(tmp_path: Path) -> None:
    space = "search:\n  num_epochs: {low: 2, high: 9}\n  control_num_epochs: {low: 2, high: 30}\n"
    values = {"num_epochs": 4, "control_num_epochs": 8}
    for start in ("base: {learn_from: both}\n", ""):
        search = read_search(write(tmp_path, start + space), {}, {})
        assert ("control_num_epochs" in search.of_student().space) == bool(start)
        assert bool(search.of_control(values, "its").space) == (not start)
    chosen = read_search(write(tmp_path, space + "  learn_from: {choices: [teacher, both]}\n"), {}, {})
    assert chosen.of_student() == chosen
    assert not chosen.of_control(values | {"learn_from": "both"}, "its").space


def test_what_is_fixed_is_a_setting() -> None:
    assert set(Config.model_fields) >= FIXED


def test_the_search_that_is_shipped_is_whole() -> None:
    search = read_search(CONFIGS / "search.yaml", {}, {})
    assert (search.name, search.trials, len(search.space)) == ("search", 12, 5)
