from pathlib import Path

import pytest

from lora_distill.config import make_config
from lora_distill.errors import UserError
from lora_distill.run_folder import METRICS, RunFolder
from lora_distill.store import write_json
from lora_distill.suite import RENAME, Suite, read_suite, run_suite

CONFIGS = Path(__file__).parents[1] / "configs"


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text)
    return file


def test_experiments_are_the_base_with_overrides_and_flags_win(tmp_path: Path) -> None:
    file = write(tmp_path, "base: {alpha: 0.1, seed: 3}\nexperiments:\n  one:\n  two: {alpha: 0.9, seed: 4}\n")
    suite = read_suite(file, {"seed": "7"}, {"seed": "--seed"})
    assert suite.name == "mine"
    found = {name: (config.exp_name, config.alpha, config.seed) for name, config in suite.experiments.items()}
    assert found == {"one": ("mine-one", 0.1, 7), "two": ("mine-two", 0.9, 7)}


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
    lines = str(error.value).splitlines()
    for line, words in (
        (1, "did you mean base"),
        (3, "alpha"),
        (6, "did you mean temperature"),
        (7, "not 5"),
        (8, "exp_name"),
    ):
        assert sum(f"line {line}:" in each and words in each for each in lines) == 1, (line, lines)


def test_a_file_without_experiments(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no experiments"):
        read_suite(write(tmp_path, "base: {}\n"), {}, {})


def test_the_suites_that_are_shipped_are_whole() -> None:
    quickstart = read_suite(CONFIGS / "quickstart.yaml", {}, {})
    assert list(quickstart.experiments) == ["base", "alpha-0.7", "temperature-1", "student-r4"]
    assert {config.base_model for config in quickstart.experiments.values()} == {"minilm"}
    full = read_suite(CONFIGS / "ag_news.yaml", {}, {})
    assert len(full.experiments) == 8
    assert full.experiments["teacher-r32"].teacher_lora_r == 32
    assert full.experiments["teacher-10-layers"].teacher_target_layers == 10
    assert full.experiments["student-r4"].student_target_layers == 4
    assert full.experiments["bert"].base_model == "bert-base-uncased"


def test_a_failure_does_not_stop_the_rest_and_what_is_finished_is_read(tmp_path: Path) -> None:
    settings = {"output_dir": str(tmp_path), "dataset": str(tmp_path / "absent.csv"), "base_model": "minilm"}
    failing = make_config({**settings, "exp_name": "s-failing"}, {})
    finished = make_config({**settings, "exp_name": "s-finished"}, {})
    run = RunFolder.of(finished)
    request = {"config": finished.model_dump(mode="json"), "named": sorted(finished.model_fields_set)}
    run.begin(finished, {"requested": request, "base_model": {"kind": "packaged", "reference": "minilm"}})
    results = {"exp_name": "s-finished", "data": {"source": {"kind": "packaged"}}}
    write_json(run.path / METRICS, results)
    outcome = run_suite(Suite("s", {"failing": failing, "finished": finished}))
    assert outcome.results == [results]
    assert "absent.csv" in outcome.failures["failing"]
    assert run_suite(Suite("s", {"changed": finished.model_copy(update={"alpha": 0.7})})).failures == {
        "changed": f"{run.path}: holds a run with another config (alpha 0.5, now 0.7).\n{RENAME}"
    }
