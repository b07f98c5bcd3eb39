"""What was written is there after a kill, wherever that came: all steps that were done, and no part of another."""

import os
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from lora_distill.deployment import unfinished
from lora_distill.deployment.unfinished import Unfinished
from lora_distill.errors import UserError
from lora_distill.store import remove_folder


def steps(path: Path, *, overwrite: bool = False) -> None:
    """Write three steps and finish, from where it is."""
    output = Unfinished(path)
    with output.open(overwrite=overwrite):
        for number in range(len((output.journal or {"steps": []})["steps"]), 3):
            output.append(f"row {number}\n".encode(), b"bad\n" * (number == 1), {"steps": [0] * (number + 1)})
        if not (output.journal or {}).get("finished"):
            output.append(b"", b"", {"steps": [0] * 3, "finished": True})
        output.finish(lambda rows: rows)


def test_steps_make_a_file(tmp_path: Path) -> None:
    steps(tmp_path / "out" / "rows.csv")
    assert (tmp_path / "out" / "rows.csv").read_text() == "row 0\nrow 1\nrow 2\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["rows.csv", "rows.csv.bad.jsonl"]


def killed_at(call: int, path: Path) -> bool:
    """Write the steps in another process, killed before its call of that number, of those that change the disk."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
        return os.WIFSIGNALED(status)
    calls = count(1)

    def guard(function: Callable[..., object]) -> Callable[..., object]:
        def guarded(*arguments: object, **named: object) -> object:
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return guarded

    for name in ("fsync", "truncate", "rename", "unlink", "rmdir"):
        setattr(os, name, guard(getattr(os, name)))
    for name in ("open", "replace", "unlink", "mkdir"):
        setattr(Path, name, guard(getattr(Path, name)))
    code = 1
    try:
        steps(path)
        code = 0
    finally:
        os._exit(code)


def test_killed_at_any_moment_it_goes_on_to_the_same(tmp_path: Path) -> None:
    for call in count(1):
        path = tmp_path / str(call) / "rows.csv"
        was_killed = killed_at(call, path)
        if not path.exists() or path.with_name("rows.csv.unfinished").exists():
            steps(path)
        assert path.read_text() == "row 0\nrow 1\nrow 2\n"
        assert path.with_name("rows.csv.bad.jsonl").read_text() == "bad\n"
        assert not path.with_name("rows.csv.unfinished").exists()
        if not was_killed:
            break
    assert call > 20


def test_half_a_step_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with Unfinished(path).open(overwrite=False):
        pass
    output = Unfinished(path)
    with output.open(overwrite=False):
        output.append(b"row 0\n", b"", {"steps": [0]})
    with (tmp_path / "rows.csv.unfinished" / "rows").open("ab") as rows:
        rows.write(b"row 1 and ha")
    steps(path)
    assert path.read_text() == "row 0\nrow 1\nrow 2\n"


def test_what_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old")
    with pytest.raises(UserError, match=r"rows.csv: exists. Give another --output, or replace it with --overwrite"):
        steps(path)
    steps(path, overwrite=True)
    assert path.read_text().startswith("row 0")
    path.unlink()
    with pytest.raises(UserError, match=r"rows.csv.bad.jsonl: exists"):
        steps(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder: exists. Give another --output\.$"):
        steps(tmp_path / "folder", overwrite=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "rows.csv.bad.jsonl"]


def test_old_bad_rows_go_where_there_are_none_now(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    steps(path)
    output = Unfinished(path)
    with output.open(overwrite=True):
        output.append(b"good\n", b"", {"finished": True})
        output.finish(lambda rows: rows)
    assert [each.name for each in tmp_path.iterdir()] == ["rows.csv"]


def test_without_a_step_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no rows"), Unfinished(tmp_path / "a" / "rows.csv").open(overwrite=False):
        raise ValueError("no rows")
    assert list((tmp_path / "a").iterdir()) == []


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with Unfinished(path).open(overwrite=False), pytest.raises(UserError, match="another process is writing it"):
        steps(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written: Not a directory. Give another --output"):
        steps(tmp_path / "file" / "rows.csv")


def test_what_is_removed_in_the_end_is_held_until_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def watched(folder: Path) -> None:
        if folder.exists():
            with pytest.raises(Timeout):
                FileLock(folder / "lock").acquire(timeout=0)
            held.append(folder.name)
        remove_folder(folder)

    monkeypatch.setattr(unfinished, "remove_folder", watched)
    with Unfinished(tmp_path / "rows.csv").open(overwrite=False):
        pass
    assert held == ["rows.csv.unfinished"]


def test_it_is_removed_once_for_another_process_may_begin_behind_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "rows.csv.unfinished" / "theirs"

    def removed(folder: Path) -> None:
        assert folder.exists()
        remove_folder(folder)
        assert not theirs.exists()
        folder.mkdir()
        theirs.write_text("")

    monkeypatch.setattr(unfinished, "remove_folder", removed)
    steps(tmp_path / "rows.csv")
    assert theirs.exists()
    assert (tmp_path / "rows.csv").exists()


def test_what_another_process_has_just_finished_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, acquire = tmp_path / "rows.csv", FileLock.acquire

    def late(lock: FileLock, **settings: Any) -> Any:  # noqa: ANN401 - as filelock's
        path.write_text("theirs")
        return acquire(lock, **settings)

    monkeypatch.setattr(FileLock, "acquire", late)
    with pytest.raises(UserError, match=r"exists. Give another --output"):
        steps(path)
    assert path.read_text() == "theirs"
    assert [each.name for each in tmp_path.iterdir()] == ["rows.csv"]


def test_what_a_kill_left_of_a_removal_goes_with_the_next_call(tmp_path: Path) -> None:
    path, left = tmp_path / "rows.csv", tmp_path / ".rows.csv.unfinished.away.part"
    path.write_text("done")
    left.mkdir()
    with pytest.raises(UserError, match="exists"):
        steps(path)
    assert not left.exists()


def test_rows_that_somebody_cut_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    output = Unfinished(path)
    with output.open(overwrite=False):
        output.append(b"row 0\n", b"", {"steps": [0]})
    folder = tmp_path / "rows.csv.unfinished"
    assert output.journal == {"steps": [0], "bytes": [6, 0]}
    (folder / "rows").write_bytes(b"row")
    with pytest.raises(UserError, match="is shorter than it was"):
        steps(path)


@pytest.mark.parametrize("damage", ["{", '{"a": 1}', "[]", "null", "\xff"])
def test_a_damaged_journal_is_told_in_words(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    output = Unfinished(path)
    with output.open(overwrite=False):
        output.append(b"row 0\n", b"", {"steps": [0]})
    journal = tmp_path / "rows.csv.unfinished" / "journal.json"
    for content in (damage.encode("latin-1"), journal.read_bytes().replace(b"6", b"5")):
        journal.write_bytes(content)
        with pytest.raises(UserError, match=r"journal.json: is damaged. --overwrite labels all rows anew\.$"):
            steps(path)
    steps(path, overwrite=True)
    assert path.read_text() == "row 0\nrow 1\nrow 2\n"
