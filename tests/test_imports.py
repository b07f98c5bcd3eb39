"""What the command line does not import, and what works without the packages that only training needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_distill.config import make_config
from lora_distill.program import install
from lora_distill.run_folder import METRICS, REPORT
from lora_distill.store import write_json
from tests.reporting.sample import sample_results
from tests.test_cli import begin

HEAVY = {"torch", "transformers", "datasets", "sklearn", "peft", "accelerate", "pandas", "pyarrow"}


def python(code: str, *arguments: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "lacking"),
    [
        (["--help"], HEAVY | {"numpy", "pydantic"}),
        (["--version"], HEAVY | {"numpy", "pydantic"}),
        (["train", "--help"], HEAVY | {"numpy"}),
        (["suite", "--help"], HEAVY | {"numpy"}),
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str], lacking: set[str], tmp_path: Path) -> None:
    code = f"""
import sys
from lora_distill.cli import main
try:
    main(sys.argv[1:])
finally:
    assert not {lacking} & sys.modules.keys(), sys.modules.keys()
    from lora_distill.cache import Cache, Stream
    assert not {HEAVY} & sys.modules.keys(), sys.modules.keys()
"""
    done = python(code, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


# Without what only training needs

WITHOUT_TRAINING = f"""
import sys
sys.modules |= dict.fromkeys({HEAVY - {"pyarrow"}})  # importing one of these now fails
from lora_distill.cache import Cache, Stream
from lora_distill.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_the_extra_for_training_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("experiments: {a: {}}\n")
    for arguments in (["train"], ["suite", "s.yaml"]):
        done = python(WITHOUT_TRAINING, *arguments, cwd=tmp_path)
        assert done.returncode == 2
        *_, error = done.stderr.splitlines()
        assert error.startswith("error: the package ")
        assert error.endswith(f" is not installed. Install it: {install('train')}")


def test_a_finished_run_answers_without_it(tmp_path: Path) -> None:
    config = make_config({"exp_name": "s-a", "output_dir": str(tmp_path / "o"), "alpha": 0.9}, {})
    finished = begin(config)
    write_json(finished.path / METRICS, sample_results() | {"exp_name": "s-a"})
    (tmp_path / "s.yaml").write_text("seeds: 1\nbase: {alpha: 0.9}\nexperiments: {a: {}}\n")
    for page in (finished.path / REPORT, tmp_path / "o" / "s.html"):
        page.touch()
    write_json(tmp_path / "o" / "s.json", {"experiments": {"a": {"runs": ["s-a"]}}})
    before = sorted(tmp_path.rglob("*"))
    for arguments in (
        ["show", finished.path],
        ["compare", finished.path],
        ["train", "--exp_name", "s-a", "--output_dir", "o", "--alpha", "0.9"],
        ["suite", "s.yaml", "--output_dir", "o"],
        ["plan", "s.yaml", "--output_dir", "o"],
    ):
        done = python(WITHOUT_TRAINING, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("s-a" if arguments[0] != "plan" else "1 run, all finished.\n") in done.stdout
        assert ("already finished" in done.stderr) == (arguments[0] in ("train", "suite"))
    assert sorted(tmp_path.rglob("*")) == before
    assert json.loads((finished.path / METRICS).read_text())["exp_name"] == "s-a"
