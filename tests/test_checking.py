"""A suite that cannot run is refused as a whole, before its first experiment."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_distill import experiment, preparation
from lora_distill.checking import misfits
from lora_distill.config import make_config
from lora_distill.data import sources
from lora_distill.errors import UserError
from lora_distill.run_folder import METRICS, RunFolder
from lora_distill.running import RENAME
from lora_distill.store import write_json
from lora_distill.suite import read_suite
from tests.end_to_end.conftest import write_rows

Tiny = Callable[[str], Path]


@pytest.fixture
def folder(tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is called from, with an encoder of three layers and rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").symlink_to(tiny("roberta"))
    write_rows(tmp_path / "rows.csv", 60)
    return tmp_path


BASE = "base: {base_model: ./base, dataset: rows.csv, teacher_target_layers: 2, student_target_layers: 2}"

FAULTS = [  # each line of a suite file, and what must be said of it
    (BASE, None),
    ("nmae: s", "no such key; did you mean name?"),
    ("seeds: [1, 1]", "must say how many seeds"),
    ("roles: [student]", "must be [teacher, student, control], or [teacher, student]"),
    ("grid: {temperature: 2.0}", "must hold a list of values"),
    ("experiments:", None),
    ("  settings: {alpha: 2}", "less than or equal to 1"),
    ("  typo: {temprature: 2}", "no such setting; did you mean temperature?"),
    ("  named: {exp_name: mine}", "a suite names its runs itself"),
    ("  model: {base_model: ./absent}", "base model ./absent: no such folder."),
    ("  data: {dataset: absent.csv}", "absent.csv: no such file"),
    ("  column: {text_column: txt}", "no column 'txt'; the columns are 'text', 'label'."),
    ("  layers: {student_target_layers: 4}", "student_target_layers 4: ./base has 3 layers. Ask for at most 3."),
    ("  budget: {student_budget: 1000}", "the student has 4,227 trainable parameters, 3,227 over its budget of 1,000"),
    ("  rank: {teacher_lora_r: 64}", "rank 64: the smallest adapted matrix of roberta has rank 32."),
    ("  modules: {target_modules: [qkv]}", "roberta has no linear module qkv in its layers"),
    ("  taken: {}", "outputs/lora_distillation/suite-taken: holds a run with another config"),
]


def test_all_faults_are_told_at_once_each_with_its_line_whatever_their_kind(folder: Path) -> None:
    begin("suite-taken", alpha=0.9)
    (folder / "suite.yaml").write_text("\n".join(line for line, _ in FAULTS))
    with pytest.raises(UserError) as error, warnings.catch_warnings(action="error"):
        read_suite(Path("suite.yaml"), {}, {}, check=misfits)
    told = re.split(r"^(?=suite\.yaml, line )", str(error.value), flags=re.MULTILINE)
    assert told[0] == ""
    found = {int(re.findall(r"line (\d+): ", each)[0]): each for each in told[1:]}
    expected = {number: said for number, (_, said) in enumerate(FAULTS, 1) if said}
    assert len(told[1:]) == len(expected) >= 12
    assert {number for number, said in expected.items() if said in found.get(number, "")} == set(expected), error.value
    assert found[len(FAULTS)].endswith(RENAME)
    assert [path.name for path in (folder / "outputs" / "lora_distillation").iterdir()] == ["suite-taken"]


MANY = [
    ("base:", None),
    ("  base_model: ./base", None),
    ("  dataset: absent.csv", "absent.csv: no such file"),
    ("  teacher_target_layers: 2", None),
    ("  student_target_layers: 9", "student_target_layers 9: ./base has 3 layers. Ask for at most 3."),
    ("  batch_size: 0", "greater than or equal to 1"),
    ("experiments:", None),
    ("  one: {alpha: 2, teacher_lora_r: 64,", "less than or equal to 1"),
    ("    target_modules: [qkv]}", "roberta has no linear module qkv in its layers"),
    ("  two: {student_target_layers: 3, temprature: 2, student_lora_r: 64,", "did you mean temperature?"),
    ("    teacher_target_layers: 8}", "teacher_target_layers 8: ./base has 3 layers"),
    ("  three: {base_model: ./absent}", "base model ./absent: no such folder."),
    ("  four: {base_model: ./absent, dataset: rows.csv,", "base model ./absent: no such folder."),
    ("    text_column: txt}", "no column 'txt'"),
]


def test_a_fault_hides_no_other_of_the_same_experiment(folder: Path) -> None:
    begin("suite-two-seed-0", alpha=0.9)  # what it differs in is not at fault here, for the settings are not whole
    (folder / "suite.yaml").write_text("\n".join(line for line, _ in MANY))
    with pytest.raises(UserError) as error:
        read_suite(Path("suite.yaml"), {}, {}, check=misfits)
    told = re.findall(r"^suite\.yaml, line (\d+): (.*)", str(error.value), flags=re.MULTILINE)
    expected = [(number, said) for number, (_, said) in enumerate(MANY, 1) if said]
    expected += [(8, "rank 64: the smallest adapted matrix"), (10, "rank 64: the smallest adapted matrix")]
    for number, said in expected:
        assert any(int(line) == number and said in each for line, each in told), (number, said, str(error.value))
    assert len(told) == len(expected), str(error.value)


def test_data_that_lie_in_the_encoders_folder_are_told_at_their_own_line(folder: Path) -> None:
    lines = ["base:", "  base_model: ./base", "  dataset: ./base/absent.csv", "experiments: {one: {}}"]
    (folder / "suite.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"\Asuite\.yaml, line 3: dataset: base/absent\.csv: no such file[^\n]*\Z"):
        read_suite(Path("suite.yaml"), {}, {}, check=misfits)


def test_what_does_nothing_without_a_setting_that_is_at_fault_is_no_fault(folder: Path) -> None:
    experiments = ["  fit: {teacher_fit: crosfit, teacher_folds: 3}", "  cut: {student_depth: 9, student_keep: spread}"]
    (folder / "suite.yaml").write_text("\n".join([BASE, "experiments:", *experiments]))
    with pytest.raises(UserError) as error:
        read_suite(Path("suite.yaml"), {}, {}, check=misfits)
    told = re.findall(r"^suite\.yaml, line (\d+): (\w+)", str(error.value), flags=re.MULTILINE)
    assert told == [("3", "teacher_fit"), ("4", "student_depth")], str(error.value)


def test_a_name_that_is_taken_hides_no_fault(folder: Path) -> None:
    begin("suite-a-seed-0", alpha=0.9)
    (folder / "suite.yaml").write_text(f"{BASE}\nexperiments:\n  a: {{teacher_lora_r: 64}}\n")
    with pytest.raises(UserError, match=r"(?s)a run with another config.*line 3: teacher_lora_r: rank 64"):
        read_suite(Path("suite.yaml"), {}, {}, check=misfits)


def begin(name: str, **settings: object) -> RunFolder:
    config = make_config({"exp_name": name, **settings}, {})
    run = RunFolder.of(config)
    request = {"config": config.model_dump(mode="json"), "named": sorted(config.model_fields_set)}
    run.begin(config, {"requested": request})
    return run


def test_what_is_to_be_trained_again_may_hold_another_config(folder: Path) -> None:
    begin("suite-a", alpha=0.9).mark_outdated()
    (folder / "suite.yaml").write_text(f"{BASE}\nexperiments: {{a: {{}}}}\nseeds: 1\n")
    assert read_suite(Path("suite.yaml"), {}, {}, check=misfits).runs


def test_a_mistake_in_what_all_share_is_told_once(folder: Path) -> None:
    (folder / "suite.yaml").write_text(f"{BASE}\nexperiments: {{a: {{}}, b: {{}}, c: {{alpha: 0.7}}}}\n")
    (folder / "rows.csv").unlink()
    with pytest.raises(UserError, match=r"\Asuite\.yaml, line 1: dataset: rows\.csv: no such file[^\n]*\Z"):
        read_suite(Path("suite.yaml"), {}, {}, check=misfits)


def test_a_flag_that_is_wrong_is_named(folder: Path) -> None:
    (folder / "suite.yaml").write_text(f"{BASE}\nexperiments: {{a: {{}}}}\n")
    with pytest.raises(UserError, match=r"\A--student_target_layers 9: ./base has 3 layers"):
        read_suite(
            Path("suite.yaml"),
            {"student_target_layers": "9"},
            {"student_target_layers": "--student_target_layers"},
            check=misfits,
        )


def test_what_experiments_share_is_read_once_and_what_is_finished_not_at_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counting(module: object, name: str) -> None:
        called = getattr(module, name)

        def call(*arguments: object, **named: object) -> object:
            read.append(name)
            return called(*arguments, **named)

        monkeypatch.setattr(module, name, call)

    for module, name in (
        (preparation, "resolve_base_model"),
        (preparation, "load_classifier"),
        (sources, "open_source"),
    ):
        counting(module, name)
    (folder / "suite.yaml").write_text(
        f"{BASE}\nexperiments: {{a: {{}}, b: {{alpha: 0.7}}, c: {{student_lora_r: 2, seed: 9}}}}\nseeds: 2\n"
    )
    suite = read_suite(Path("suite.yaml"), {}, {}, check=misfits)
    assert sorted(read) == ["load_classifier", "open_source", "resolve_base_model"]
    for config in suite.runs.values():
        request = {"config": config.model_dump(mode="json"), "named": sorted(config.model_fields_set)}
        run = RunFolder.of(config)
        run.begin(config, {"requested": request})
        write_json(run.path / METRICS, {})
    monkeypatch.setattr(experiment, "prepare_run", None)
    assert misfits(suite) == []
