"""The Dockerfile's commands, run without a container."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from lora_distill.config import Config
from lora_distill.deployment.export import places
from lora_distill.run_folder import RunFolder
from tests.deployment.exported import write_exported
from tests.picture import REPOSITORY

TEXT = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [line.split(" ", 1) for line in TEXT.splitlines() if line and not line.startswith("#")]


def given(name: str) -> list[str]:
    return [value for instruction, value in INSTRUCTIONS if instruction == name]


def test_what_is_copied_is_there_and_is_sent() -> None:
    sent = [line.removeprefix("!") for line in (REPOSITORY / ".dockerignore").read_text().split() if line[0] == "!"]
    for copied in given("COPY")[:2]:
        *sources, _target = copied.split()
        for source in sources:
            assert (REPOSITORY / source).exists()
            assert any(fnmatch(source, pattern) for pattern in sent)
    needed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert {needed["readme"], *needed["license-files"], "pyproject.toml", "constraints.txt", "src"} == set(sent)


def test_what_is_installed_exists_and_is_pinned() -> None:
    (install,) = (run for run in given("RUN") if " install " in run)
    extras = re.findall(r'"\.\[(\w+)\]"', install)
    assert extras == ["serve"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    names = (pin.split("==")[0].lower() for pin in (REPOSITORY / "constraints.txt").read_text().split())
    pins = {re.sub("[-_.]+", "-", name) for name in names}
    for needed in [*project["dependencies"], *project["optional-dependencies"]["serve"]]:
        assert re.split("[<>=;]", needed)[0].lower() in pins
    made, used = given("RUN")[0].rsplit(" ", 1)[1], given("COPY")[-1].split()[-1]
    assert install.startswith(f"{made}/bin/python -m pip ")
    assert made == used
    assert f"PATH={made}/bin:$PATH" in given("ENV")[0]


def test_it_runs_as_nobody_in_particular() -> None:
    (user,) = given("USER")
    assert all(int(part) > 0 for part in user.split(":"))


def test_what_is_mounted_is_where_export_writes() -> None:
    mounted = re.findall(r'--volume "\$PWD/([^:]+):/model:ro"', TEXT)
    run = RunFolder(Path(Config().output_dir) / "mine")
    assert [Path(path) for path in mounted] == [*places(run, "student", ("onnx-int8",), None).values()]


def test_its_command_serves_writes_nothing_and_its_health_is_checked(tmp_path: Path) -> None:
    model = write_exported(tmp_path / "model")
    program = [sys.executable, "-m", "lora_distill"]
    here = {"lora-distill": program, "/model": [str(model)], "0.0.0.0": ["127.0.0.1"], "8000": ["0"]}
    (command,) = given("CMD")
    called = [part for word in json.loads(command) for part in here.get(word, [word])]
    assert called == [*program, "serve", str(model), "--host", "127.0.0.1", "--port", "0"]
    root = tmp_path / "root"
    root.mkdir(mode=0o555)
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "PYTHONPATH"}}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            called, cwd=root, env=kept | {"HOME": "/nonexistent"}, stdout=subprocess.PIPE, stderr=log, text=True
        ) as server,
    ):
        assert server.stdout
        found = re.search(r":(\d+) ", server.stdout.readline())
        assert found
        (check,) = given("HEALTHCHECK")
        health = json.loads(check.partition(" CMD ")[2].replace(":8000/", f":{found[1]}/"))
        health[0] = sys.executable
        assert subprocess.run(health, check=False, capture_output=True).returncode == 0
        assert given("STOPSIGNAL") == ["SIGTERM"]
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    assert subprocess.run(health, check=False, capture_output=True).returncode != 0
    assert list(root.iterdir()) == []
