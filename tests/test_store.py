import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_distill import store
from lora_distill.store import (
    Artefact,
    fingerprint,
    is_locked,
    lock,
    locked_folder,
    read_json,
    remove_folder,
    whole_folder,
    write_json,
    write_jsonl,
    write_text,
    write_whole,
)

JSON = st.recursive(
    st.none() | st.integers() | st.text(),  # no booleans: Python holds True and 1 for equal, JSON does not
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(one=JSON, other=JSON)
def test_fingerprints_are_equal_where_the_values_are(one: object, other: object) -> None:
    assert fingerprint(one) == fingerprint(one)
    assert (fingerprint(one) == fingerprint(other)) == (repr(one) == repr(other) or one == other is not None)


def test_fingerprint_knows_no_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert fingerprint(True) != fingerprint(1)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "file.txt"
    write_text(file, "old")

    def broken(beside: Path) -> None:
        beside.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(file, broken)
    assert file.read_text() == "old"
    assert os.listdir(file.parent) == ["file.txt"]  # noqa: PTH208


def test_two_that_write_one_file_at_once_both_write_it_whole(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"

    def write(beside: Path) -> None:
        beside.write_text("first")
        other = threading.Thread(target=write_text, args=(file, "other"))
        other.start()
        other.join()
        assert file.read_text() == "other"
        assert beside.read_text() == "first"

    write_whole(file, write)
    assert file.read_text() == "first"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    file, neighbour = tmp_path / "file", tmp_path / "file.json"
    script = """
import os, sys
from pathlib import Path
from lora_distill.store import write_whole
def write(beside):
    beside.write_text("half")
    os.kill(os.getpid(), 9)
write_whole(Path(sys.argv[1]), write)
"""
    for path in (file, neighbour):
        subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert not file.exists()
    assert len(list(tmp_path.iterdir())) == 2
    write_text(file, "whole")
    (left,) = set(tmp_path.iterdir()) - {file}
    assert left.name.startswith(".file.json.")
    write_text(neighbour, "whole")
    assert set(tmp_path.iterdir()) == {file, neighbour}


NO_ROOM = "No space left on device"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, NO_ROOM),
        shutil.Error([("a", "b", f"[Errno 28] {NO_ROOM}: 'a' -> 'b'")]),
        RuntimeError(f"Error while serializing: I/O error: {NO_ROOM} (os error 28)"),  # as Rust's libraries say it
    ],
)
def test_what_the_system_refused_is_told_with_its_number_and_the_file(error: Exception, tmp_path: Path) -> None:
    def broken(_beside: Path) -> None:
        raise error

    with pytest.raises(OSError, match=NO_ROOM) as told:
        write_whole(tmp_path / "file.txt", broken)
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, str(tmp_path / "file.txt"))
    with pytest.raises(OSError, match=NO_ROOM) as told, whole_folder(tmp_path / "folder"):
        raise error
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, str(tmp_path / "folder"))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_put_in_place_is_told_of_that_place(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as told:
        write_text(tmp_path / "folder", "text")
    assert told.value.filename == str(tmp_path / "folder")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as told, whole_folder(tmp_path / "folder"):
        (tmp_path / "absent").read_text()
    assert told.value.filename == str(tmp_path / "absent")
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "folder"):
        raise ZeroDivisionError


def test_json_and_jsonl(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1.5, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1.5, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()
    write_jsonl(tmp_path / "c.jsonl", [{"a": "x\ny"}, {"b": 2}])
    assert (tmp_path / "c.jsonl").read_text().count("\n") == 2


def test_a_folder_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with whole_folder(target) as folder:
        (folder / "one").write_text("1")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), whole_folder(target) as folder:
        (folder / "two").write_text("2")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert [path.name for path in target.iterdir()] == ["one"]
    with whole_folder(target) as folder:
        (folder / "three").write_text("3")
    assert [path.name for path in target.iterdir()] == ["three"]


def test_those_that_fill_a_folder_wait_for_each_other(tmp_path: Path) -> None:
    target, inside = tmp_path / "sub" / "folder", threading.Semaphore()

    def fill(name: str) -> list[str]:
        with locked_folder(target) as folder:
            assert inside.acquire(blocking=False)
            (folder / name).write_text("")
            time.sleep(0.1)
            inside.release()
            return [path.name for path in folder.iterdir()]

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(fill, "abcd")) == [["a"], ["b"], ["c"], ["d"]]
    assert list((tmp_path / "sub").iterdir()) == [target]
    with pytest.raises(ZeroDivisionError), locked_folder(target):
        raise ZeroDivisionError
    assert list((tmp_path / "sub").iterdir()) == [target]


def test_where_a_link_leads_is_filled_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there")
    for name in ("one", "two"):
        with locked_folder(link) as folder:
            (folder / name).write_text("")
        assert link.is_symlink()
        assert [path.name for path in (tmp_path / "there").iterdir()] == [name]
    assert {path.name for path in tmp_path.iterdir()} == {"link", "there"}


def killed_in_a_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    def rmtree(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            for file in list(path.iterdir())[:1]:
                file.unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(store.shutil, "rmtree", rmtree)  # type: ignore[attr-defined]


def test_what_is_removed_or_replaced_is_never_there_by_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder"
    for again in (True, False):
        with whole_folder(target) as folder:
            for name in ("one", "two"):
                (folder / name).write_text("")
        with monkeypatch.context() as patch:
            killed_in_a_removal(patch)
            with pytest.raises(KeyboardInterrupt):
                if again:
                    with whole_folder(target) as folder:
                        (folder / "three").write_text("")
                else:
                    remove_folder(target)
        assert [path.name for path in target.glob("*")] == (["three"] if again else [])
    with whole_folder(target):
        pass
    assert list(tmp_path.iterdir()) == [target]


def test_what_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, replace = tmp_path / "folder", Path.replace
    with whole_folder(target) as folder:
        (folder / "one").write_text("")

    def stopped(path: Path, to: Path) -> Path:
        if path.name.endswith("folder.part"):
            raise KeyboardInterrupt
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt), whole_folder(target):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert [path.name for path in target.iterdir()] == ["one"]


def test_an_artefact_is_named_by_what_made_it_and_finished_only_when_filled(tmp_path: Path) -> None:
    artefact = Artefact(tmp_path, "teacher", {"seed": 0})
    assert artefact.key != Artefact(tmp_path, "teacher", {"seed": 1}).key
    artefact.work.mkdir(parents=True)
    with pytest.raises(RuntimeError), artefact.fill():
        raise RuntimeError
    assert not artefact.finished
    assert artefact.work.exists()
    with artefact.fill() as folder:
        (folder / "weights").write_text("w")
    assert artefact.finished
    assert not artefact.work.exists()
    assert read_json(artefact.folder / "recipe.json") == {"seed": 0}
    artefact.work.mkdir()
    finished = (artefact.folder / "recipe.json").stat().st_mtime
    for seconds, is_left in ((1, True), (-1, False)):  # of a training that began since, and what made this
        artefact.work.mkdir(exist_ok=True)
        os.utime(artefact.work, (finished + seconds, finished + seconds))
        with artefact.lock():
            assert artefact.work.exists() == is_left
    artefact.work.mkdir()
    artefact.forget_checkpoints(before=artefact.work.stat().st_mtime)
    assert artefact.work.exists()
    artefact.forget_checkpoints()
    assert artefact.finished
    assert not artefact.work.exists()


def test_whoever_waits_for_a_lock_says_so_also_when_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, waited_for, told = threading.Event(), threading.Event(), []

    def hold() -> None:
        with lock(tmp_path, "mine"):
            held.set()
            waited_for.wait(timeout=20)

    def warning(message: str, *arguments: object) -> None:
        told.append(message % arguments)
        waited_for.set()

    monkeypatch.setattr(store.logger, "warning", warning)
    with lock(tmp_path, "another"), lock(tmp_path, "mine"):
        assert told == []
    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(timeout=20)
    with lock(tmp_path, "mine"):
        assert told == [f"waiting for another process that works on mine in {tmp_path}"]
    holder.join()


def test_two_processes_do_not_make_the_same_artefact_at_once(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from lora_distill.store import Artefact
artefact = Artefact(Path(sys.argv[1]), "teacher", {"seed": 0})
with artefact.lock():
    if not artefact.finished:
        time.sleep(0.2)
        with artefact.fill() as folder:
            (folder / "made").write_text("")
        print("made")
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert sorted(printed) == ["", "", "made\n"]


def test_the_clock_stands_still_while_a_lock_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    held, waited_for = threading.Event(), threading.Event()

    def hold() -> None:
        nonlocal now
        with lock(tmp_path, "work"):
            held.set()
            assert waited_for.wait(timeout=20)
            now = 100.0

    monkeypatch.setattr(store, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(store, "_waits", [])
    monkeypatch.setattr(store.logger, "warning", lambda *_: waited_for.set())
    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(timeout=20)
    with lock(tmp_path, "work"):
        assert store.working_seconds() == 0
        now = 107.0
    assert store.working_seconds() == 7
    holder.join()


def test_whether_somebody_works_on_it_can_be_asked_without_a_trace(tmp_path: Path) -> None:
    assert not is_locked(tmp_path, "work")
    assert list(tmp_path.iterdir()) == []
    with lock(tmp_path, "work"):
        assert is_locked(tmp_path, "work")
        assert not is_locked(tmp_path, "other")
    assert not is_locked(tmp_path, "work")
