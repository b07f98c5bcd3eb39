"""An exported model is used where there is no torch: nothing that only training needs is loaded, or even there."""

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import httpx
import pytest

from lora_distill.program import install
from tests.deployment.exported import write_exported
from tests.serving.process import SERVE, process

REPOSITORY = Path(__file__).parents[2]
# Importing one of these fails, as where they are not installed.
ABSENT = """
import sys

class Absent:
    names = {"accelerate", "datasets", "jinja2", "optuna", "pandas", "peft", "safetensors", "scipy", "sklearn", "torch",
             "transformers"}

    def find_spec(self, name, *_):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
READS = """
from lora_distill import Classifier
c = Classifier.load("model")
print(*c.predict([("a tulip", "the comet")] if c.pairs else ["a tulip", "of " * 40 + "the comet comet"]))
"""
THREE_LINES = """
from lora_distill import Classifier
c = Classifier.load("model")
print(*c.predict(["a tulip", "the comet"]), c.predict_proba(["oven"]).shape)
"""
COMMAND = """
from lora_distill.__main__ import main
sys.argv[1:] = ["predict", "model", "rows.csv", "--output", "out.parquet", "--quiet"]
code = main()
assert "torch" not in sys.modules and "transformers" not in sys.modules
sys.exit(code)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_exported(tmp_path / "model")
    (tmp_path / "rows.csv").write_text("text\na tulip\nthe comet\n")
    return tmp_path


def python(code: str, folder: Path, program: str = sys.executable, **env: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"} | env
    return subprocess.run(
        [program, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def test_nothing_is_counted_or_kept_at_home(folder: Path) -> None:
    """ONNX Runtime would: which machine it is, and what is done on it."""
    home = folder / "home"
    home.mkdir()
    found = python(READS, folder, HOME=str(home), XDG_CACHE_HOME=str(home))
    assert found.returncode == 0, found.stderr
    assert list(home.rglob("*")) == []


def test_three_lines_of_python(folder: Path) -> None:
    done = python(ABSENT + "Absent.names.add('pydantic')" + THREE_LINES, folder)  # which takes long to load
    assert (done.stdout, done.stderr) == ("garden space (1, 3)\n", "")


@pytest.mark.parametrize(
    ("about", "answers"),
    [
        ({"pairs": True}, "space"),
        ({"pairs": True, "segments": True}, "space"),
        ({"long_text": "head_tail"}, "garden space"),
        ({"long_text": "chunk_mean"}, "garden space"),
    ],
)
def test_pairs_and_long_texts(about: dict[str, Any], answers: str, tmp_path: Path) -> None:
    write_exported(tmp_path / "model", **about)
    done = python(ABSENT + READS, tmp_path)
    assert (done.stdout, done.stderr) == (f"{answers}\n", "")


def test_the_command(folder: Path) -> None:
    done = python(ABSENT + COMMAND, folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 rows labelled: out.parquet\n", "")


def test_what_needs_torch_says_how_to_get_it(folder: Path) -> None:
    about = folder / "model" / "classifier.json"
    about.write_text(about.read_text().replace('"onnx"', '"merged"'))
    done = python(ABSENT + COMMAND, folder)
    assert done.returncode == 2
    assert done.stderr.endswith(f", which is not installed.\nInstall it: {install('train')}\n")


@pytest.mark.parametrize("command", ["predict", "serve"])
def test_a_folder_without_a_model_is_the_fault_not_that_torch_is_missing(command: str, folder: Path) -> None:
    (folder / "exp dir" / "exported").mkdir(parents=True)
    (folder / "model").rename(folder / "exp dir" / "exported" / "student-onnx")
    more = ["rows.csv", "--output", "out.csv"] if command == "predict" else ["--port", "0"]
    called = f"from lora_distill.__main__ import main\nsys.argv[1:] = {[command, 'exp dir', *more]}\nsys.exit(main())"
    done = python(ABSENT + called, folder)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: model exp dir: holds no model, for it has none of classifier.json (an exported model), environment.json"
        " (a run), adapter_config.json (an adapter), config.json (a model).",
        "Models below it: 'exp dir/exported/student-onnx'.",
    ]


def test_without_onnxruntime_it_says_how_to_get_it(folder: Path) -> None:
    done = python(ABSENT + "Absent.names.add('onnxruntime')" + COMMAND, folder)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: model model: needs the package onnxruntime, which is not installed.",
        "Install it: pip install onnxruntime",
    ]


def test_importing_the_package_loads_next_to_nothing(folder: Path) -> None:
    code = "import sys, lora_distill; assert 'numpy' not in sys.modules; lora_distill.Classifier; lora_distill.nothing"
    done = python(code, folder)
    assert done.stderr.endswith("AttributeError: module 'lora_distill' has no attribute 'nothing'\n")


@pytest.mark.slow
def test_in_an_environment_that_holds_no_more_than_the_core_and_then_the_server(folder: Path) -> None:
    venv.create(folder / "env", with_pip=True)
    program = str(folder / "env" / "bin" / "python")

    def installed(what: str) -> set[str]:
        command = [program, "-m", "pip", "install", "--quiet", "--retries", "0", "--timeout", "20"]
        command += ["-c", str(REPOSITORY / "constraints.txt"), what]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and "No matching distribution" in done.stderr:
            pytest.skip("no index of packages in reach")
        assert done.returncode == 0, done.stderr
        names = "from importlib.metadata import distributions as d; print(*(x.name for x in d()))"
        return set(python(names, folder, program).stdout.split())

    there = installed(str(REPOSITORY))
    for code in (THREE_LINES, f"import sys\n{COMMAND}"):
        done = python(code, folder, program, PYTHONPATH="")
        assert done.returncode == 0, done.stderr
    more = installed(f"{REPOSITORY}[serve]")
    assert "fastapi" in more - there
    assert not {"torch", "transformers", "peft", "scipy", "scikit-learn", "datasets"} & more
    with process(*SERVE, folder / "model", log=folder / "log", python=program, PYTHONPATH="") as (_, url):
        answered = httpx.post(f"{url}/v1/classify", json={"text": "a tulip"}).json()
        assert [each["label"] for each in answered["results"]] == ["garden"]
        assert "Classify texts" in httpx.get(url).text
