"""The shell scripts, with a stand-in for Python and pip: what they install, when, and what they say."""

import os
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]

# Answers as the interpreter that environment.sh wants would, and notes what pip was asked for. A virtual
# environment of it holds a copy of it, and a lora-distill that shows how it was called.
FAKE_PYTHON = """#!/bin/bash
case "$*" in
*ensurepip,*) echo "3.11.99 ${FAKE_BASE:-$0}" ;;
*urllib*) exit "${FAKE_NO_INDEX:-0}" ;;
"-m venv "*)
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    printf '#!/bin/bash\\necho "in $PWD: $*"\\n' >"$3/bin/lora-distill"
    chmod +x "$3/bin/lora-distill"
    ;;
"-m pip "*)
    echo "$*" >>"$FAKE_PIP_LOG"
    sleep "${FAKE_PIP_SECONDS:-0}"
    if [ -n "${FAKE_PIP_FAILS:-}" ]; then echo "ERROR: no room"; exit 1; fi
    ;;
esac
"""


class Clone:
    """A copy of the scripts in a folder of their own, and the environment to run them in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a clone"
        self.bin = folder / "bin"
        self.pip_log = folder / "pip.log"
        self.elsewhere = folder / "elsewhere"
        for directory in (self.folder, self.bin, self.elsewhere):
            directory.mkdir()
        for name in ("scripts", "configs"):
            shutil.copytree(REPOSITORY / name, self.folder / name)
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(REPOSITORY / name, self.folder / name)
        self.python = self.executable("python3.11", FAKE_PYTHON)
        for name in ("nvidia-smi", "python3.12", "python3.13", "python3"):
            self.executable(name, "#!/bin/sh\nexit 1\n")
        self.env = {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "FAKE_PIP_LOG": str(self.pip_log),
            "FAKE_BASE": str(self.python),
            "HOME": "",
        }
        self.env.pop("PYTHON", None)

    def executable(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def start(self, script: str, *arguments: str, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [self.folder / "scripts" / script, *arguments],
            cwd=self.elsewhere,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str, *arguments: str, **env: str) -> tuple[int, str]:
        process = self.start(script, *arguments, **env)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def installed(self) -> list[str]:
        """The last arguments of each call of pip since the last time this was asked."""
        calls = self.pip_log.read_text().splitlines() if self.pip_log.exists() else []
        self.pip_log.unlink(missing_ok=True)
        return [call.split("-c constraints.txt ")[1] for call in calls]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


CPU_TORCH = "--extra-index-url https://download.pytorch.org/whl/cpu torch"


def test_the_first_call_installs_and_runs_the_default_suite_where_it_was_called(clone: Clone) -> None:
    code, output = clone.run("run_lora_distillation.sh")
    assert code == 0
    assert clone.installed() == [CPU_TORCH, "-e .[train]"]
    lines = output.splitlines()
    assert lines[0] == "Making .venv with Python 3.11.99 …"
    assert lines[1].startswith("Installing takes a minute or more, ")
    watch = shlex.split(lines[2].removeprefix("To watch it: "))
    assert watch == ["tail", "-f", f"{clone.folder}/.venv/install.log"]
    assert lines[3].startswith("Installing torch 2.13.0 (CPU build)")
    assert lines[-1] == f"in {clone.elsewhere}: suite {clone.folder}/configs/quickstart.yaml"
    assert len(lines) == 6


def test_a_suite_is_taken_from_the_callers_folder_and_flags_are_passed_on(clone: Clone) -> None:
    (clone.elsewhere / "my suite.yaml").touch()
    code, output = clone.run("run_lora_distillation.sh", "my suite.yaml", "--seed", "7")
    assert code == 0
    assert output.endswith(f"in {clone.elsewhere}: suite my suite.yaml --seed 7\n")
    code, output = clone.run("run_lora_distillation.sh", "--seed", "7")
    assert output == f"in {clone.elsewhere}: suite {clone.folder}/configs/quickstart.yaml --seed 7\n"


def test_help_and_a_missing_suite_install_nothing(clone: Clone) -> None:
    code, output = clone.run("run_lora_distillation.sh", "--help")
    assert (code, output.split()[0]) == (0, "Usage:")
    code, output = clone.run("run_lora_distillation.sh", "absent.yaml")
    assert code == 2
    assert "absent.yaml: no such suite file" in output
    assert f"{clone.folder}/configs/ag_news.yaml" in output
    assert clone.installed() == []
    assert not (clone.folder / ".venv").exists()


def test_a_python_that_will_not_do_is_refused(clone: Clone) -> None:
    code, output = clone.run("environment.sh", PYTHON="/bin/false")
    assert code == 2
    assert output.startswith("error: PYTHON=/bin/false is no Python 3.11 or later")
    clone.executable("python3.11", "#!/bin/sh\nexit 1\n")
    code, output = clone.run("environment.sh")
    assert code == 2
    assert "looked for: python3.11 python3.12 python3.13 python3" in output
    assert not (clone.folder / ".venv").exists()


def test_a_python_too_old_is_refused_by_its_own_word(clone: Clone) -> None:
    # The real check runs in a real interpreter that believes to be older.
    old = clone.executable(
        "python3.10",
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 10, 9); exec(sys.argv[1])" "$2"\n',
    )
    code, _ = clone.run("environment.sh", PYTHON=str(old))
    assert code == 2


def test_any_python_that_is_new_enough_serves(clone: Clone) -> None:
    clone.executable("python3.11", "#!/bin/sh\nexit 1\n")
    clone.executable("python3.13", FAKE_PYTHON)
    assert clone.run("environment.sh", FAKE_BASE="python3.13")[0] == 0
    assert len(clone.installed()) == 2


@pytest.mark.parametrize(
    ("change", "pip_calls", "kept"),
    [
        pytest.param(lambda _: None, [], True, id="nothing"),
        pytest.param(
            lambda clone: (clone.folder / "constraints.txt").write_text("torch==2.13.1\n"),
            [CPU_TORCH, "-e .[train]"],
            True,
            id="constraints",
        ),
        pytest.param(
            lambda clone: (clone.folder / ".venv" / "lora-distill.stamp").unlink(),
            [CPU_TORCH, "-e .[train]"],
            True,
            id="an environment of the user's own",
        ),
        pytest.param(
            lambda clone: (clone.folder / ".venv" / "bin" / "python").unlink(),
            [CPU_TORCH, "-e .[train]"],
            False,
            id="its Python is gone",
        ),
        pytest.param(
            lambda clone: (
                clone.executable("other", FAKE_PYTHON.replace("3.11.99", "3.13.1"))
                and clone.env.update(PYTHON=str(clone.bin / "other"), FAKE_BASE=str(clone.bin / "other"))
            ),
            [CPU_TORCH, "-e .[train]"],
            False,
            id="another Python is asked for",
        ),
    ],
)
def test_what_is_there_is_reused(
    clone: Clone, change: Callable[[Clone], object], pip_calls: list[str], kept: bool
) -> None:
    clone.run("environment.sh")
    clone.installed()
    mark = clone.folder / ".venv" / "mark"
    mark.touch()
    change(clone)
    assert clone.run("environment.sh")[0] == 0
    assert clone.installed() == pip_calls
    assert mark.exists() == kept
    assert clone.run("environment.sh") == (0, "")


def test_a_moved_clone_makes_its_environment_anew(clone: Clone) -> None:
    clone.run("environment.sh")
    clone.installed()
    clone.folder = clone.folder.rename(clone.folder.with_name("moved"))
    assert "Making .venv" in clone.run("environment.sh")[1]
    assert clone.installed() == [CPU_TORCH, "-e .[train]"]


def test_what_the_tests_need_is_added_once_and_stays(clone: Clone) -> None:
    add_dev = 'cd "$(dirname "$1")" && . ./environment.sh && make_environment train,dev'
    script = str(clone.folder / "scripts" / "environment.sh")
    clone.run("environment.sh")
    assert clone.installed() == [CPU_TORCH, "-e .[train]"]
    for expected in ([CPU_TORCH, "-e .[train,dev]"], []):
        subprocess.run(["bash", "-c", add_dev, "-", script], env=clone.env, check=True, capture_output=True)
        assert clone.installed() == expected
    clone.run("environment.sh")
    assert clone.installed() == []
    (clone.folder / "constraints.txt").write_text("torch==2.13.1\n")
    clone.run("environment.sh")
    assert clone.installed() == [CPU_TORCH, "-e .[train,dev]"]


def test_a_failed_installation_shows_why_and_is_begun_anew(clone: Clone) -> None:
    code, output = clone.run("environment.sh", FAKE_PIP_FAILS="yes")
    assert code == 1
    assert "ERROR: no room" in output
    assert f"{clone.folder}/.venv/install.log" in output
    clone.installed()
    code, output = clone.run("environment.sh")
    assert code == 0
    assert "Making .venv" in output
    assert len(clone.installed()) == 2


def test_a_killed_installation_is_begun_anew(clone: Clone) -> None:
    process = clone.start("environment.sh", FAKE_PIP_SECONDS="1")
    while not clone.pip_log.exists():
        assert process.poll() is None
    process.kill()
    process.communicate()
    clone.installed()
    assert "Making .venv" in clone.run("environment.sh")[1]
    assert len(clone.installed()) == 2


@pytest.mark.skipif(shutil.which("flock") is None, reason="no flock on this machine")
def test_two_at_once_install_once(clone: Clone) -> None:
    first = clone.start("environment.sh", FAKE_PIP_SECONDS="0.5")
    while not clone.pip_log.exists():
        assert first.poll() is None
    second = clone.start("environment.sh")
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert outputs[1].startswith("Waiting for another installation")
    assert len(clone.installed()) == 2


@pytest.mark.parametrize(
    ("program", "text", "words"),
    [
        ("nvidia-smi", '#!/bin/sh\necho "GPU 0: a model"\n', "Installing torch 2.13.0 …"),
        ("uname", "#!/bin/sh\necho Darwin\n", "Installing torch 2.13.0 …"),
        ("python3.11", FAKE_PYTHON.replace("FAKE_NO_INDEX:-0", "FAKE_NO_INDEX:-1"), "no answer from the index"),
    ],
)
def test_the_plain_torch_where_a_cpu_build_is_unwanted_or_out_of_reach(
    clone: Clone, program: str, text: str, words: str
) -> None:
    clone.executable(program, text)
    assert words in clone.run("environment.sh")[1]
    assert clone.installed()[0] == "torch"


def test_constraints_pin_every_requirement_within_its_bounds() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # The server and the trackers come with dev.
    assert extras["dev"][:2] == ["lora-distill[serve]", "lora-distill[trackers]"]
    required = [*project["dependencies"], *(each for name in ("train", "serve", "trackers") for each in extras[name])]
    required += extras["dev"][2:]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in pinned.items()}
    bounds = {canonicalize_name(each.name): each.specifier for each in map(Requirement, required)}
    for name, bound in bounds.items():
        assert versions[name] in bound
    for private in ("accelerate", "datasets", "optuna", "peft", "torch", "transformers"):  # names of theirs are used
        assert "99" not in bounds[canonicalize_name(private)]


def test_the_training_script_goes_on_in_the_clones_environment(tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "train_distillation.py"
    script.parent.mkdir()
    shutil.copy(REPOSITORY / "scripts" / script.name, script)
    # -S: a Python that sees no installed packages.
    bare = [sys.executable, "-S", str(script), "--alpha", "0.3"]
    without = subprocess.run(bare, capture_output=True, text=True, check=False)
    assert without.returncode == 2
    assert "lacks lora_distill" in without.stderr
    assert str(script.parent / "environment.sh") in without.stderr
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "went on: $*"\n')
    python.chmod(0o755)
    assert subprocess.check_output(bare, text=True) == f"went on: {script} --alpha 0.3\n"


def test_the_training_script_does_not_go_round_in_circles(tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "train_distillation.py"
    script.parent.mkdir()
    shutil.copy(REPOSITORY / "scripts" / script.name, script)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    python = tmp_path / ".venv" / "bin" / "python"
    result = subprocess.run([python, script], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert "lacks lora_distill" in result.stderr


def test_the_training_script_asks_for_no_more_than_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    named = {Requirement(each).name for each in project["optional-dependencies"]["train"]}
    needed = runpy.run_path(str(REPOSITORY / "scripts" / "train_distillation.py"))["NEEDED"]
    assert set(needed) <= named | {"lora_distill"}


def test_the_training_script_is_the_train_command() -> None:
    script = REPOSITORY / "scripts" / "train_distillation.py"
    ours = subprocess.check_output([sys.executable, script, "--help"], text=True)
    installed = subprocess.check_output([sys.executable, "-m", "lora_distill", "train", "--help"], text=True)
    assert ours == installed
    assert "--teacher_lora_r" in ours


def test_the_scripts_are_clean() -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("no shellcheck on this machine")
    scripts = [*sorted((REPOSITORY / "scripts").glob("*.sh")), REPOSITORY / ".ci" / "run"]
    subprocess.run([shellcheck, "-x", *scripts], cwd=REPOSITORY, check=True)
    assert all(os.access(script, os.X_OK) for script in scripts)
