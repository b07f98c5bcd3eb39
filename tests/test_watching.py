import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from lora_distill import progress, watching
from lora_distill.config import Config
from lora_distill.progress import log_to_terminal, track
from lora_distill.run_folder import CONFIG, ENVIRONMENT, LOG, METRICS, RunFolder
from lora_distill.running import SuiteResult
from lora_distill.store import write_json, write_text
from lora_distill.suite import Suite
from lora_distill.watching import SuiteTable, watched
from tests.reporting.sample import sample_results

NAMES = ("finished", "halfway", "starting", "broken", "later")


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    runs = {name: Config(output_dir=str(tmp_path), exp_name=f"s-{name}", num_epochs=3) for name in NAMES}
    for name in ("later", "halfway"):
        write_json(tmp_path / f"s-{name}" / ENVIRONMENT, {})
        write_text(tmp_path / f"s-{name}" / CONFIG, "")
    write_json(tmp_path / "s-later" / METRICS, sample_results())  # of an earlier call: this one has not come to it
    early = "INFO lora_distill.preparation: student: 450 trainable parameters of 1,000 allowed\n"
    write_text(tmp_path / "s-starting" / LOG, early)
    said = [
        "INFO lora_distill.training.loop: teacher: epoch 3 of 3: validation accuracy 90.00%, loss 0.3",
        "INFO lora_distill.training.loop: student: epoch 1 of 3: validation accuracy 88.00%, loss 0.4",
        "INFO lora_distill.experiment: another line",
    ]
    write_text(tmp_path / "s-halfway" / LOG, "\n".join([*["x" * 100] * 100, *said, ""]))
    return Suite("s", runs, {})


@pytest.fixture
def outcome() -> SuiteResult:
    results = [sample_results() | {"exp_name": "s-finished"}]
    return SuiteResult(results, {"broken": "why"}, trained=["finished"], running={"halfway", "starting"})


def drawn(table: SuiteTable, height: int) -> list[list[str]]:
    screen = Console(file=io.StringIO(), width=100)
    with screen.capture() as capture:
        screen.print(table.draw(height))
    return [line.split(maxsplit=1) for line in capture.get().splitlines() if line.strip(" ─")]


def test_each_run_has_its_state_and_when_it_is_done_its_accuracies(
    suite: Suite, outcome: SuiteResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, *[30.0] * 9])  # it is made, and after half a minute drawn
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=clock.__next__))
    header, *rows, caption = drawn(SuiteTable(suite, outcome), height=30)
    assert [word for part in header for word in part.split()] == ["Run", "State", "Teacher", "Student", "Control"]
    results = sample_results()
    accuracies = [f"{results[role]['test']['accuracy']:.2%}" for role in ("teacher", "student", "control")]
    assert [(name, state.split("  ")[0].strip()) for name, state in rows] == [
        ("finished", "done"),
        ("halfway", "student, 1 of 3 epochs"),
        ("starting", "begins"),
        ("broken", "failed"),
        ("later", "waiting"),
    ]
    assert rows[0][1].split()[1:] == accuracies
    assert " ".join(caption).startswith("1 of 5 done, about 0:01:30 left")


def test_on_a_low_terminal_those_that_run_are_shown_before_those_that_wait(suite: Suite, outcome: SuiteResult) -> None:
    table = SuiteTable(suite, outcome)
    assert [row[0] for row in drawn(table, height=watching._LINES_AROUND + 3)][1:-1] == [
        "halfway",
        "starting",
        "broken",
    ]
    assert [row[0] for row in drawn(table, height=1)][1:-1] == ["halfway"]


@pytest.fixture
def _logging() -> Iterator[None]:
    package = logging.getLogger("lora_distill")
    saved = package.handlers, package.level, package.propagate
    yield
    package.handlers, package.level, package.propagate = saved


@pytest.mark.usefixtures("_logging")
@pytest.mark.parametrize(
    ("is_terminal", "quiet", "seen"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_it_is_shown_on_a_terminal_only_with_progress_below_it_and_is_gone_afterwards(
    is_terminal: bool, quiet: bool, seen: bool, suite: Suite, outcome: SuiteResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(file=io.StringIO(), force_terminal=is_terminal, width=100, height=40)
    monkeypatch.setattr(progress, "_console", screen)
    log_to_terminal(quiet=quiet)
    with watched(suite, outcome), track("student: epoch 2 of 3", 10) as advance:
        advance(5)
        logging.getLogger("lora_distill.x").info("a message")
    written = screen.file.getvalue()  # type: ignore[attr-defined]
    assert ("student, 1 of 3 epochs" in written, "student: epoch 2 of 3" in written) == (seen, seen)
    assert ("a message\n" in written) == (not quiet)
    assert (not seen) or written.endswith("\x1b[2K")  # the last that is done is to remove a line


def test_epochs_are_those_of_the_training_and_no_old_log_is_believed(suite: Suite, outcome: SuiteResult) -> None:
    run = RunFolder.of(suite.runs["halfway"])
    line = "INFO lora_distill.training.loop: teacher: epoch 1 of 2: validation accuracy 90.00%, loss 0.3\n"
    write_text(run.path / LOG, line)  # 2 of its own, where the config has 3
    table = SuiteTable(suite, outcome)
    assert ["halfway", "teacher, 1 of 2 epochs"] in [[name, state.strip()] for name, state in drawn(table, 30)[1:3]]
    run.mark_outdated()
    os.utime(run.path / LOG, (0, 0))
    assert ["halfway", "begins"] in [[name, state.strip()] for name, state in drawn(table, 30)[1:3]]
