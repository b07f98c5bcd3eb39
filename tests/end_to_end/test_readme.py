"""The README, taken at its word: every command is run, every file, flag and default is looked up."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from lora_distill import parser
from lora_distill.cache import MOST
from lora_distill.config import Config
from lora_distill.reporting.sentences import standard_error
from lora_distill.suite import read_suite
from tests.end_to_end.conftest import WORDS, write_rows
from tests.hub_server import HubServer
from tests.picture import PICTURE, REPOSITORY, draw, quickstart_results
from tests.tiny import tiny_model

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PROSE = " ".join(README.split())
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

# Each command of the README and the flags that make it small. A new command needs a line here.
SMALL = "--max_train_rows 60 --num_epochs 1 --max_length 16 --test_fraction 0.05"
FEWER_EPOCHS = "--num_epochs 1"
COMMANDS = {
    "./scripts/run_lora_distillation.sh": SMALL,
    "python scripts/train_distillation.py": FEWER_EPOCHS,
    "python scripts/train_distillation.py --dataset mine.csv --base_model minilm --learning_rate 1e-3"
    " --exp_name mine": SMALL,
    ".venv/bin/lora-distill show outputs/lora_distillation/mine": "",
    ".venv/bin/lora-distill evaluate outputs/lora_distillation/mine --dataset other.csv": "",
    "./scripts/run_lora_distillation.sh configs/ag_news.yaml --max_train_rows 4000 --num_epochs 2"
    " --seed 0": FEWER_EPOCHS,
    ".venv/bin/lora-distill report outputs/lora_distillation --output report.html --figures figures": "",
    ".venv/bin/lora-distill plan configs/quickstart.yaml": SMALL,
    ".venv/bin/lora-distill plan --base_model minilm --classes 4 --student_budget 1000000": "",
    ".venv/bin/lora-distill train --preset small_student --base_model roberta-base --dataset mine.csv"
    " --exp_name small": SMALL,
    ".venv/bin/lora-distill speed outputs/lora_distillation/small": "",
    "python scripts/train_distillation.py --dataset mine.csv --base_model minilm --learning_rate 1e-3"
    " --teacher_checkpoint outputs/lora_distillation/mine": SMALL,
    ".venv/bin/lora-distill export outputs/lora_distillation/mine --to onnx-int8": "--force",  # of a model so untrained
    ".venv/bin/lora-distill push outputs/lora_distillation/mine your-name/mine --form merged --dry_run": "",
    ".venv/bin/lora-distill predict outputs/lora_distillation/mine other.csv --output labelled.csv"
    " --prefix predicted_": "",
    "python scripts/train_distillation.py --resume --exp_name mine": "",
}
NOT_JUDGED = ("report", "plan", "push", "predict", "speed")  # they show no accuracy
NOT_RUN = ["./scripts/run_tests.sh"]  # it would run this test


def test_it_installs_what_is_there_from_the_clone() -> None:
    """No index has the package."""
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = re.findall(r"pip install (?:-e )?([^`]*)`", PROSE)
    assert {"'.[train]'", "'.[serve]'", "."} == set(installed) <= {".", *(f"'.[{extra}]'" for extra in extras)}
    assert "pip install lora-distill" not in PROSE
    assert "lora-distill[" not in PROSE


def commands() -> list[str]:
    """The shell commands in order, without comments, each on one line."""
    lines = "\n".join(code for language, code in BLOCKS if language == "sh").replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := shlex.join(shlex.split(line, comments=True)))]


def test_every_code_block_has_a_rule() -> None:
    assert commands() == [*COMMANDS, *NOT_RUN]
    assert [language for language, _ in BLOCKS if language != "sh"] == ["yaml", "python", "python", "text"]


def test_the_suite_of_the_example_can_be_read(tmp_path: Path) -> None:
    (code,) = (code for language, code in BLOCKS if language == "yaml")
    (tmp_path / "suite.yaml").write_text(code)
    assert list(read_suite(tmp_path / "suite.yaml", {}, {}).runs) == [
        f"{experiment}-temperature-{temperature}-seed-{seed}"
        for seed in (0, 1, 2)
        for experiment in ("base", "alpha-0.7")
        for temperature in (1.0, 2.0)
    ]


# A Python that has everything installed already; the scripts of the clone take it for their own .venv's.
PYTHON = f"""#!/bin/sh
case "$*" in
"-m pip "* | "-m ensurepip"*) exit 0 ;;
*urlopen*) exit 1 ;;
esac
exec {shlex.quote(sys.executable)} "$@"
"""


class Clone(NamedTuple):
    """A clone of the repository as a reader has it, with an environment that is installed, and a hub."""

    folder: Path
    hub: HubServer
    env: dict[str, str]

    def run(self, command: str) -> str:
        """The command's standard output; it must succeed."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    folder, hub = tmp_path / "clone", HubServer()
    for name in ("scripts", "configs"):
        shutil.copytree(REPOSITORY / name, folder / name)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in {"python": PYTHON, "lora-distill": '#!/bin/sh\nexec python -m lora_distill "$@"\n'}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    write_rows(folder / "mine.csv", 120)
    write_rows(folder / "other.csv", 30, seed=1)
    for name, family, layers in (
        ("roberta-base", "roberta", 12),
        ("bert-base-uncased", "bert", 12),
        ("distilbert-base-uncased", "distilbert", 6),
    ):
        hub.add_model(name, tiny_model(family, tmp_path / name, layers=layers, hidden=32))
    write_rows(tmp_path / "ag_news" / "train.csv", 60)
    write_rows(tmp_path / "ag_news" / "test.csv", 30, seed=1)
    hub.add_dataset("fancyzhx/ag_news", tmp_path / "ag_news")
    env = hub.env(tmp_path / "home") | {"PATH": f"{programs}:{os.environ['PATH']}"}
    env.pop("PYTHON", None)
    yield Clone(folder, hub, env)
    hub.close()


@pytest.mark.slow
def test_a_reader_can_run_it_all_from_top_to_bottom(clone: Clone) -> None:
    runs = clone.folder / "outputs" / "lora_distillation"
    for command, flags in COMMANDS.items():
        if "--resume" in command:
            (runs / "mine" / "metrics.json").unlink()  # as if it had been stopped before its end
        output = clone.run(f"{command} {flags}")
        assert "Accuracy" in output or any(f"lora-distill {name} " in command for name in NOT_JUDGED)
        assert "SUBSTITUTED" not in output
        if command == "./scripts/run_lora_distillation.sh":
            assert clone.hub.requests == []
            assert_like_the_picture(draw(quickstart_results(clone.folder)))
    asked = " ".join(clone.hub.requests)
    assert all(name in asked for name in ("roberta-base", "bert-base-uncased", "distilbert-base-uncased", "ag_news"))
    (evaluation,) = (runs / "mine").glob("evaluation-other-*.json")

    plain, with_ours = (code for language, code in BLOCKS if language == "python")
    ours = "\nimport sys; assert 'lora_distill' not in sys.modules"
    answer = clone.run(f"python -c {shlex.quote(plain + ours)}")
    assert answer.strip() in WORDS
    assert clone.run(f"python -c {shlex.quote(with_ours)}") == answer

    (table,) = re.findall(r"^\| in it \| \|\n(?:\|.*\n)+", README, re.MULTILINE)
    written = {name.rstrip("/") for row in table.splitlines()[2:] for name in re.findall(r"`(\S+)`", row.split("|")[1])}
    assert {path.name for path in (runs / "mine").iterdir()} == written - {"evaluation-*.json", "speed.json"} | {
        evaluation.name
    }


def assert_like_the_picture(svg: str) -> None:
    """The picture may be of other results, but not of another table."""

    def words(drawing: str) -> list[str]:
        # Digits, signs and the spaces that they leave differ.
        texts = (text.text or "" for text in ElementTree.fromstring(drawing).iterfind(".//{*}text"))
        return [word for word in re.split(r"[\s\d.,+()%\[\]-]+", " ".join(texts).replace("\xa0", " ")) if word]

    assert words(svg) == words(PICTURE.read_text(encoding="utf-8"))


def test_the_picture_needs_no_other_machine() -> None:
    svg = PICTURE.read_text(encoding="utf-8")
    assert not re.search(r"href|@import|url\((?!#)", svg)


def test_what_is_said_of_the_picture_is_so() -> None:
    assert "Every interval here contains zero" in PROSE
    intervals = re.findall(r"\[([+-][\d.]+),(?:&#160;| )([+-][\d.]+)\]", PICTURE.read_text(encoding="utf-8"))
    assert len(intervals) == 4
    assert all(float(low) <= 0 <= float(high) for low, high in intervals)


def test_what_it_names_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    named = re.findall(r"`(?:\./)?((?:scripts|configs|docs|src|tests)/\S*)`", README)
    assert {"LICENSE", "CONTRIBUTING.md", "CHANGELOG.md"} <= set(links)
    assert [path for path in [*links, *named] if not (REPOSITORY / path).exists()] == []


def test_every_flag_exists() -> None:
    known = {flag for command in parser.COMMANDS for flag in parser.flags_of(parser.make_parser(command), command)}
    assert set(re.findall(r"--\w+", README)) - known == set()
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program == "python":
            parser.parse(["train", *arguments[1:]])


def test_what_is_said_of_the_cache_is_so() -> None:
    assert f"never more than {MOST // 2**30} GiB" in PROSE
    limit = re.findall(r"`--cache_limit (\S+)` is another limit", PROSE)
    assert Config(cache_limit=limit[0]).cache_limit == 500 * 10**6


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").iterdir()), ids=str)
def test_a_file_opens_with_the_command_that_runs_it(path: Path) -> None:
    script, *named = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").split()
    if script == ".venv/bin/lora-distill":
        assert (named[0], REPOSITORY / named[1]) == ("tune", path)
        return
    default = re.findall(r"^suite=\$clone/(\S+)$", (REPOSITORY / script).read_text(encoding="utf-8"), re.MULTILINE)
    assert [REPOSITORY / name for name in named or default] == [path]


def test_every_default_is_the_config_s() -> None:
    stated = re.findall(r"`--(\w+)` \(default `?([^`)]+)`?\)", PROSE)
    assert len(stated) == PROSE.count("(default ") > 0
    for name, value in stated:
        default = Config.model_fields[name].default
        assert type(default)(value.replace(",", "")) == default, name


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs"])
def test_no_number_is_still_to_be_measured(name: str) -> None:
    path = REPOSITORY / name
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    assert files
    assert [file for file in files if b"MEASURE_" in file.read_bytes()] == []


def test_the_standard_errors_are_right() -> None:
    assert "AG News has 7,600 test rows, so an accuracy of 94% has a standard error of 0.27 points" in PROSE
    assert "0.27 points" in standard_error(0.94, 7600)
    assert "BBC News' test split here has 445, so 93% has 1.21" in PROSE
    assert "1.21 points" in standard_error(0.93, 445)
