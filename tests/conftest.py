"""What all tests share: no hub but the stand-in, no cache but a test's own, quiet libraries."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from lora_distill.hub import quiet
from tests.hub_server import HubServer, hub_env

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Run = Callable[..., tuple[int, str, str]]
CLOSED_PORT = "http://127.0.0.1:9"

# Before any test imports the libraries that read these: no test in this process asks the real hub or finds a
# user's cache. One thread each: the tests run side by side, and threads that wait for each other spin.
_CACHE = tempfile.TemporaryDirectory()
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": _CACHE.name, "OMP_NUM_THREADS": "1"}
os.environ["LORA_DISTILL_CACHE"] = str(Path(_CACHE.name, "activations"))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # called in the background, which what tests start would inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)
quiet()
hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Commands that run in this process may leave torch with as many threads as there are cores."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub on this machine; `hub.env(tmp_path)` is the environment of a process that uses it."""
    server = HubServer()
    yield server
    server.close()


@pytest.fixture
def no_hub(tmp_path: Path) -> dict[str, str]:
    """Environment of a process that has an empty home and no hub in reach."""
    return hub_env(CLOSED_PORT, tmp_path / "home")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny random encoder of a family, written once; a test must not change it."""
    from tests.tiny import tiny_model

    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = tiny_model(family, tmp_path_factory.mktemp("tiny") / family)
        return made[family]

    return make


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Headless Chromium, for tests that are skipped where there is none."""
    from playwright.sync_api import sync_playwright

    from tests.report_picture import CHROMIUM

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def ag_news() -> Path:
    """Folder of real AG News rows, train.csv and test.csv."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "ag_news"
    if not folder.is_dir():
        pytest.skip("no AG News rows beside the repository")
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command in an empty folder; gives exit code, standard output and standard error."""
    from lora_distill.cli import main

    monkeypatch.chdir(tmp_path)
    package = logging.getLogger("lora_distill")
    before = package.level, package.propagate, package.handlers

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(list(map(str, arguments)))
        return code, *capsys.readouterr()

    yield call
    package.setLevel(before[0])
    package.propagate, package.handlers = before[1:]
