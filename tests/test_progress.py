import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lora_distill import progress
from lora_distill.progress import log_to_terminal, run_log, track, track_source

logger = logging.getLogger("lora_distill.anything")


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    package = logging.getLogger("lora_distill")
    saved = package.handlers, package.level, package.propagate
    package.handlers = []  # whatever another test's command left
    yield
    package.handlers, package.level, package.propagate = saved


def test_messages_go_to_standard_error_and_warnings_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_terminal(quiet=False)
    logger.info("read [bold]100[/bold] rows")
    logger.warning("took another model")
    logger.debug("nobody asked")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "read [bold]100[/bold] rows\nWARNING: took another model\n")


def test_what_experiments_share_is_printed_once_and_is_in_the_log_of_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to_terminal(quiet=False)
    for name in ("one", "two"):
        with run_log() as log_into:
            log_into(tmp_path / name)
            logger.info("test: %s rows", 45, extra=progress.ONCE)
            logger.info("epoch 1")
        assert "test: 45 rows" in (tmp_path / name).read_text()
    assert capsys.readouterr().err == "test: 45 rows\nepoch 1\nepoch 1\n"


def test_of_what_is_printed_again_nothing_is_kept() -> None:
    log_to_terminal(quiet=False)
    for number in range(10):
        logger.warning("row %s is bad", number)
    logger.info("test: 45 rows", extra=progress.ONCE)
    (handler,) = progress._terminals()
    assert handler._printed == {"test: 45 rows"}


def test_quiet_leaves_warnings_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    log_to_terminal(quiet=True)
    logger.info("read 100 rows")
    logger.warning("took another model")
    with track("teacher", 10) as advance:
        advance(5)
    assert capsys.readouterr().err == "WARNING: took another model\n"


def test_quiet_is_quiet_on_a_terminal_and_while_a_log_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress._console, "_force_terminal", True)
    log_to_terminal(quiet=True)
    with run_log(), track("teacher", 10) as advance:
        advance(5)
    assert capsys.readouterr().err == ""


def test_without_a_terminal_progress_is_plain_lines_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_to_terminal(quiet=False)
    with track("teacher: epoch 1 of 2", 2000) as advance:
        advance(500)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
        advance(500)
        line = capsys.readouterr().err
        advance(1000)
    assert line.startswith("teacher: epoch 1 of 2: 1,000 of 2,000 rows, ")
    assert "rows/s" in line
    assert line.endswith("s left\n")
    assert capsys.readouterr().err == ""


def test_what_takes_long_and_is_no_row_is_told_as_what_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 40.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock.__next__))
    log_to_terminal(quiet=False)
    with track("timing", 8, "settings") as advance:
        advance(2)
    assert capsys.readouterr().err == "timing: 2 of 8 settings, 0.05 settings/s, 120 s left\n"


def test_of_a_source_whose_rows_nobody_counted_the_size_says_what_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_to_terminal(quiet=False)
    with track_source("rows.csv", 1000, 200, rows_before=1000) as advance:
        advance(5, 100)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
        advance(5, 300)
        line = capsys.readouterr().err
        advance(2, 400)
    assert line.startswith("rows.csv: 1,010 rows, ")
    assert " rows/s, 60% done, " in line
    assert line.endswith(" s left\n")
    with track_source("rows.parquet", 1, 0) as advance:
        advance(0, 0)  # of a window of one row that is long, its first batch
    assert capsys.readouterr().err == "rows.parquet: 0 rows, 0 rows/s\n"
    with track_source("standard input", None, 0) as advance:
        advance(5, 100)
    assert capsys.readouterr().err.startswith("standard input: 5 rows, ")
    log_to_terminal(quiet=True)
    with track_source("rows.csv", 1000, 0) as advance:
        advance(5, 100)
    assert capsys.readouterr().err == ""


def test_a_stage_without_a_name_shows_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    log_to_terminal(quiet=False)
    with track("", 10) as advance:
        advance(5)
    assert capsys.readouterr().err == ""


def test_the_log_is_complete_from_before_its_file_was_known_to_the_error_that_ended_it(tmp_path: Path) -> None:
    log_to_terminal(quiet=True)
    file = tmp_path / "train.log"
    with pytest.raises(ZeroDivisionError), run_log() as log_into:
        logger.info("before")
        log_into(file)
        logger.info("after")
        warnings.warn("from a library", stacklevel=1)
        assert "before" in file.read_text()
        raise ZeroDivisionError("the end")
    text = file.read_text()
    assert all(
        words in text for words in ("before", "after", "from a library", "ZeroDivisionError('the end')", "Traceback")
    )
    logger.info("too late")
    assert "too late" not in file.read_text()


def test_the_log_does_not_depend_on_what_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = logging.getLogger("lora_distill")
    package.handlers, package.level, package.propagate = [], logging.NOTSET, True  # as a library has it
    with run_log() as log_into:
        log_into(tmp_path / "train.log")
        logger.info("a message")
        with track("teacher", 10) as advance:
            advance(5)
    assert "a message" in (tmp_path / "train.log").read_text()
    assert capsys.readouterr().err == ""
    assert package.level == logging.NOTSET


def test_no_file_is_made_where_none_was_named(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_log():
        logger.info("before")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full, which is always full")
def test_a_full_disk_costs_lines_of_the_log_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.log").symlink_to("/dev/full")
    with run_log() as log_into:
        log_into(tmp_path / "train.log")
        logger.info("a message")
    assert capsys.readouterr().err == ""
