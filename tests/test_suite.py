from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lora_distill.errors import UserError
from lora_distill.preparation import prepare
from lora_distill.suite import read_suite
from lora_distill.training.role import RoleTraining
from tests.end_to_end.conftest import write_rows
from tests.faulty_files import assert_each_told_once, write

if TYPE_CHECKING:
    from lora_distill.config import Role

CONFIGS = Path(__file__).parents[1] / "configs"


def test_experiments_are_the_base_with_overrides_and_flags_win(tmp_path: Path) -> None:
    file = write(tmp_path, "base: {alpha: 0.1, seed: 3}\nexperiments:\n  one:\n  two: {alpha: 0.9, seed: 4}\n")
    suite = read_suite(file, {"seed": "7"}, {"seed": "--seed"})
    assert suite.name == "mine"
    found = {name: (config.exp_name, config.alpha, config.seed) for name, config in suite.runs.items()}
    assert found == {"one": ("mine-one", 0.1, 7), "two": ("mine-two", 0.9, 7)}


@pytest.mark.parametrize(("line", "name"), [("name:\n", "mine"), ("name: ''\n", "mine"), ("name: 0\n", "0")])
def test_a_name_that_is_left_empty_is_the_file_s(tmp_path: Path, line: str, name: str) -> None:
    assert read_suite(write(tmp_path, f"{line}experiments:\n  one:\n"), {}, {}).name == name


def test_all_faults_of_the_file_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "bases: {}\n"  # 1
        "base:\n"
        "  alpha: 2\n"  # 3
        "experiments:\n"
        "  one:\n"
        "    temprature: 1\n"  # 6
        "  two: 5\n"  # 7
        "  three: {exp_name: mine, batch_size: 0}\n",  # 8
    )
    with pytest.raises(UserError) as error:
        read_suite(file, {}, {})
    assert_each_told_once(
        error.value,
        (
            (1, "did you mean base"),
            (3, "alpha"),
            (6, "did you mean temperature"),
            (7, "not 5"),
            (8, "exp_name"),
        ),
    )


def test_a_name_that_names_no_folder_is_told_once(tmp_path: Path) -> None:
    file = write(tmp_path, "name: a/b\nexperiments: {one: {}, two: {alpha: 2}}\n")
    with pytest.raises(UserError) as error:
        read_suite(file, {}, {})
    assert_each_told_once(error.value, ((1, "'a/b' must name one folder"), (2, "alpha")))


def test_a_mapping_in_the_wrong_place_is_shown_as_it_stands(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 1: alpha: .* not \{'low': 0\.1, 'high': 0\.9\}\."):
        read_suite(write(tmp_path, "grid: {alpha: {low: 0.1, high: 0.9}}\n"), {}, {})


def test_a_file_without_experiments_is_refused_before_anything_is_looked_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no experiments"):
        read_suite(write(tmp_path, "base: {}\n"), {}, {}, check=lambda *_: pytest.fail("something was looked up"))


def test_the_suites_that_are_shipped_are_whole() -> None:
    quickstart = read_suite(CONFIGS / "quickstart.yaml", {}, {})
    assert list(quickstart.runs) == ["base", "alpha-0.7", "temperature-1", "student-r4"]
    assert {config.base_model for config in quickstart.runs.values()} == {"minilm"}
    full = read_suite(CONFIGS / "ag_news.yaml", {}, {})
    assert len(full.experiments) == 8
    assert full.runs["teacher-r32-seed-0"].teacher_lora_r == 32
    assert full.runs["teacher-10-layers-seed-4"].teacher_target_layers == 10
    assert full.runs["student-r4-seed-2"].student_target_layers == 4
    assert full.runs["bert-seed-1"].base_model == "bert-base-uncased"
    few = read_suite(CONFIGS / "few_labels.yaml", {}, {})
    labels = [config.labels_per_class for name, config in few.runs.items() if name.endswith("-seed-4")]
    assert labels == [10, 25, 50, 125, 250]
    assert {(config.student_base_model, config.unlabelled) for config in few.runs.values()} == {("minilm", "ag_news")}


def test_the_eight_small_experiments_need_five_teachers_and_four_controls_a_seed(tmp_path: Path) -> None:
    flags = {"dataset": str(write_rows(tmp_path / "rows.csv", 60)), "output_dir": str(tmp_path / "out")}
    suite = read_suite(CONFIGS / "eight_small.yaml", flags, {name: f"--{name}" for name in flags})
    assert (len(suite.experiments), len(suite.runs)) == (8, 24)
    keys: dict[Role, list[str]] = {"teacher": [], "control": []}
    for config in list(suite.runs.values())[:8]:
        it = prepare(config)
        for role, found in keys.items():
            found.append(RoleTraining(role, it.config, it.dataset, it.base, it.plan, it.cache).artefact().key)
    assert [len(set(found)) for found in keys.values()] == [5, 4]


def test_the_settings_of_one_run_are_no_suite(tmp_path: Path) -> None:
    file = write(tmp_path, "alpha: 0.5\nseed: 3\n")
    with pytest.raises(UserError, match=r"holds the settings of one run, not experiments\. Call: .* train --config"):
        read_suite(file, {}, {})


def test_a_fault_of_an_experiment_is_told_with_its_own_line_though_a_grid_names_the_setting(tmp_path: Path) -> None:
    file = write(tmp_path, "experiments:\n  a: {temperature: 0}\ngrid: {temperature: 2}\n")
    with pytest.raises(UserError, match=r"line 2: temperature: 0 should be greater than 0"):
        read_suite(file, {}, {})


def test_experiments_run_with_five_seeds_a_round_at_a_time(tmp_path: Path) -> None:
    suite = read_suite(write(tmp_path, "experiments:\n  one:\n  two: {seed: 9}\n"), {}, {})
    assert list(suite.runs) == ["one-seed-0", "two", *(f"one-seed-{seed}" for seed in range(1, 5))]
    assert [config.seed for config in suite.runs.values()] == [0, 9, 1, 2, 3, 4]
    assert suite.experiments == {"one": [f"one-seed-{seed}" for seed in range(5)], "two": ["two"]}
    assert suite.runs["one-seed-3"].exp_name == "mine-one-seed-3"


@pytest.mark.parametrize(("seeds", "found"), [("2", [0, 1]), ("[7, 3]", [7, 3]), ("1", [0])])
def test_seeds_are_listed_or_counted(tmp_path: Path, seeds: str, found: list[int]) -> None:
    suite = read_suite(write(tmp_path, f"seeds: {seeds}\nexperiments:\n  one:\n"), {}, {})
    assert [config.seed for config in suite.runs.values()] == found


@pytest.mark.parametrize("seeds", ["0", "100000000", "[]", "[1, 1]", "[-1]", "many", "true", "[true]", "1.5", "{a: 1}"])
def test_what_is_no_list_of_seeds(tmp_path: Path, seeds: str) -> None:
    with pytest.raises(UserError, match="line 1: seeds: must say how many seeds"):
        read_suite(write(tmp_path, f"seeds: {seeds}\nexperiments:\n  one:\n"), {}, {})


def test_a_grid_multiplies(tmp_path: Path) -> None:
    experiments = "experiments:\n  one:\n  two: {student_lora_r: 4}\n"
    grid = "grid:\n  alpha: [0.3, 0.7]\n  target_modules: [[q, v], []]\n"
    suite = read_suite(write(tmp_path, f"seeds: 1\n{experiments}{grid}"), {}, {})
    assert list(suite.runs)[:4] == [
        "one-alpha-0.3-target_modules-q+v",
        "one-alpha-0.3-target_modules-",
        "one-alpha-0.7-target_modules-q+v",
        "one-alpha-0.7-target_modules-",
    ]
    assert len(suite.runs) == 8
    last = suite.runs["two-alpha-0.7-target_modules-q+v"]
    assert (last.alpha, last.target_modules, last.student_lora_r) == (0.7, ("q", "v"), 4)


def test_a_grid_needs_no_experiments(tmp_path: Path) -> None:
    suite = read_suite(write(tmp_path, "seeds: 1\ngrid: {alpha: [0.3, 0.7]}\n"), {}, {})
    assert [config.exp_name for config in suite.runs.values()] == ["mine-alpha-0.3", "mine-alpha-0.7"]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("[alpha]", "line 1: grid: must hold a list of values for each setting"),
        ("{alpha: 0.3}", "line 1: alpha: must hold a list of values"),
        ("{alpha: []}", "line 1: alpha: must hold a list of values"),
        ("{alpha: [0.3, 2]}", "line 1: alpha: 2 "),
        ("{alhpa: [0.3]}", "did you mean alpha"),
        ("{alpha: [0.3, 0.3]}", "alpha-0.3 comes twice"),
        ("{exp_name: [a, b]}", "names its runs itself"),
    ],
)
def test_what_is_no_grid(tmp_path: Path, grid: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        read_suite(write(tmp_path, f"grid: {grid}\n"), {}, {})
    assert said in str(error.value)


def test_a_flag_for_what_the_suite_varies(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--alpha: the suite varies it: .*line 1: alpha"):
        read_suite(write(tmp_path, "grid: {alpha: [0.3, 0.7]}\n"), {"alpha": "0.5"}, {"alpha": "--alpha"})


def test_what_would_be_dropped_stands_twice(tmp_path: Path) -> None:
    experiments = "experiments:\n  one: {alpha: 0.9}\n  two: {seed: 9}\n"
    file = write(tmp_path, f"base: {{seed: 3}}\nseeds: 2\ngrid:\n  alpha: [0.1, 0.2]\n{experiments}")
    with pytest.raises(UserError) as error:
        read_suite(file, {}, {})
    assert str(error.value).splitlines() == [
        f"{file}, line 1: seed: the suite says it: {file}, line 2: seeds. Take one of them out.",
        f"{file}, line 6: alpha: the suite varies it: {file}, line 4: alpha. Take one of them out.",
    ]
    with pytest.raises(UserError, match=r"line 1: seed: the suite says it: .*line 2: seeds"):
        read_suite(write(tmp_path, "grid: {seed: [3, 4]}\nseeds: 2\n"), {}, {})


def test_the_suite_says_whether_there_are_controls(tmp_path: Path) -> None:
    experiments = "experiments: {one: {}}\nseeds: 1\n"
    for roles, no_control in (("[teacher, student, control]", False), ("[student, teacher]", True)):
        suite = read_suite(write(tmp_path, f"roles: {roles}\n{experiments}"), {}, {})
        assert suite.runs["one"].no_control == no_control
    for roles in ("[teacher]", "[student, control]", "[teacher, student, teacher]", "[]", "all", "[[teacher]]", "null"):
        with pytest.raises(UserError, match=r"line 1: roles: must be \[teacher, student, control\], or "):
            read_suite(write(tmp_path, f"roles: {roles}\n{experiments}"), {}, {})
    twice = write(tmp_path, f"roles: [teacher, student]\n{experiments}base: {{no_control: false}}\n")
    with pytest.raises(UserError, match=r"line 4: no_control: the suite says it: .*line 1: roles"):
        read_suite(twice, {}, {})


def test_runs_of_one_name(tmp_path: Path) -> None:
    file = write(tmp_path, "experiments:\n  one: {}\n  one-seed-1: {seed: 7}\n")
    with pytest.raises(UserError) as error:
        read_suite(file, {}, {})
    first, second = str(error.value).splitlines()
    assert "line 2: one: its run one-seed-1 is called as another experiment's" in first
    assert "line 3: one-seed-1: its run one-seed-1 is called as another experiment's" in second


def test_only_some_experiments(tmp_path: Path) -> None:
    suite = read_suite(write(tmp_path, "seeds: 2\nexperiments: {base: {}}\ngrid: {alpha: [0.3, 0.7]}\n"), {}, {})
    some = suite.only("*-0.7")
    assert list(some.runs) == ["base-alpha-0.7-seed-0", "base-alpha-0.7-seed-1"]
    assert list(some.experiments) == ["base-alpha-0.7"]
    with pytest.raises(UserError, match=r"--only x\*: no experiment is called so. There are base-alpha-0.3, base-"):
        suite.only("x*")
    assert read_suite(write(tmp_path, "experiments: {a: {}, b: {}}\n"), {}, {}, only="b").experiments.keys() == {"b"}
