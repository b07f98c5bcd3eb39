"""The cache: whatever happens to it, a run goes on."""

import json
import logging
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_distill import cache as cache_module
from lora_distill.cache import PROCESSORS, Cache, Entry, Stream, cache_folder
from lora_distill.store import file_sha256

RECIPE = {"made": "so"}
ARRAY = np.arange(1000, dtype=np.float32).reshape(100, 10)


def add(cache: Cache, part: str = "part", recipe: dict[str, str] = RECIPE, array: np.ndarray = ARRAY) -> None:
    assert cache.add("kind", recipe, part, "a title", {"data": Stream.of(array)})


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", limit=100_000)


def test_what_was_put_in_comes_out_by_its_recipe(cache: Cache) -> None:
    pieces = Stream(ARRAY.shape, ARRAY.dtype, (ARRAY[at : at + 7] for at in range(0, 100, 7)))
    assert cache.add("kind", RECIPE, "part", "a title", {"data": pieces, "more": Stream.of(np.array([b"a", b"bc"]))})
    (entry,) = Cache(cache.folder).find("kind", RECIPE)
    found = entry.array("data")
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, ARRAY)
    assert entry.array("more").tolist() == [b"a", b"bc"]
    assert entry.size == sum(path.stat().st_size for path in entry.folder.glob("*.npy"))
    assert cache.find("kind", {"made": "otherwise"}) == cache.find("other", RECIPE) == []


def test_parts_of_one_recipe_are_found_together(cache: Cache) -> None:
    add(cache, "b")
    add(cache, "a", array=ARRAY[:3])
    assert [len(entry.array("data")) for entry in cache.find("kind", RECIPE)] == [3, 100]


def test_what_is_not_wanted_is_neither_read_nor_kept_from_making_room(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(cache, "a")
    add(cache, "b", array=ARRAY[:3])
    for about in cache.folder.glob("*/entry.json"):
        os.utime(about, (1, 1))
    monkeypatch.setattr(cache_module, "_READ", set())
    read = list[Path]()

    def see(path: Path) -> str:
        read.append(path)
        return file_sha256(path)

    monkeypatch.setattr(cache_module, "file_sha256", see)
    fresh = Cache(cache.folder, limit=sum(each.size for each in cache.entries()))
    (found,) = fresh.find("kind", RECIPE, lambda entry: len(entry.array("data")) == 3)
    assert read == [found.folder / "data.npy"]
    assert [each.last_used > 1 for each in fresh.entries()] == [False, True]
    assert fresh.make_room(ARRAY.nbytes) >= ARRAY.nbytes
    assert [each.folder for each in fresh.entries()] == [found.folder]


def entry_of(cache: Cache) -> Path:
    (folder,) = cache.folder.glob("kind-*")
    return folder


def truncate(folder: Path) -> None:
    file = folder / "data.npy"
    file.write_bytes(file.read_bytes()[:-1])


def flip(folder: Path) -> None:
    file = folder / "data.npy"
    contents = bytearray(file.read_bytes())
    contents[-3] ^= 1
    file.write_bytes(contents)
    os.utime(file, ns=(0, 0))  # the file system's clock may be too coarse to tell this from the first writing


def lose(folder: Path) -> None:
    (folder / "data.npy").unlink()


def garble(folder: Path) -> None:
    (folder / "entry.json").write_text("{")


def foreign(folder: Path) -> None:
    about = json.loads((folder / "entry.json").read_text())
    (folder / "entry.json").write_text(json.dumps(about | {"recipe": {"made": "by others"}}))


def test_what_another_process_is_about_to_put_in_place_is_left_alone(cache: Cache) -> None:
    add(cache)
    beside = entry_of(cache).rename(cache.folder / ".kind-0123-part.part")
    assert cache.entries() == []
    assert (beside / "data.npy").is_file()


@pytest.mark.parametrize("harm", [truncate, flip, lose, garble, foreign])
def test_a_damaged_entry_is_noticed_and_removed(cache: Cache, harm: object, caplog: pytest.LogCaptureFixture) -> None:
    add(cache)
    folder = entry_of(cache)
    harm(folder)  # type: ignore[operator]
    with caplog.at_level(logging.INFO, "lora_distill"):
        assert Cache(cache.folder).find("kind", RECIPE) == []
    assert not folder.exists()
    assert "not as it was written" in caplog.text
    add(cache)
    assert len(Cache(cache.folder).find("kind", RECIPE)) == 1


def test_a_process_reads_a_file_once(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    add(cache)
    monkeypatch.setattr(cache_module, "file_sha256", lambda _: pytest.fail("read again"))
    assert len(Cache(cache.folder).find("kind", RECIPE)) == 1


def test_a_disk_that_takes_no_more_is_told_and_nothing_is_left(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    def pieces() -> Iterator[np.ndarray]:
        yield ARRAY[:50]
        raise OSError(28, "No space left on device")

    assert cache.add("kind", RECIPE, "part", "a title", {"data": Stream(ARRAY.shape, ARRAY.dtype, pieces())}) is None
    assert "takes no more (No space left on device): going on without" in caplog.text
    assert list(cache.folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_cache_without_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "cache")
    assert cache.room() == cache.make_room(10) == 0
    assert "no cache in" in caplog.text
    with cache.lock("kind", RECIPE):
        assert cache.find("kind", RECIPE) == cache.entries() == []


def test_the_limit_is_of_all_entries_together_and_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=10_000)
    for number, part in enumerate("abc"):
        add(cache, part, {"made": part}, ARRAY[:50])
        os.utime(next(tmp_path.glob(f"*-{part}")) / "entry.json", (number, number))
    assert 0 < cache.room() < 10_000 - 3 * 2000
    assert cache.make_room(3000) == cache.room()  # nothing goes: this process has written it all
    assert Cache(tmp_path).find("kind", {"made": "a"})  # used now
    fresh = Cache(tmp_path, limit=10_000)
    assert fresh.make_room(5000) >= 5000
    assert [entry.folder.name[-1] for entry in fresh.entries()] == ["c", "a"]
    assert fresh.make_room(10_000) == 10_000
    assert fresh.entries() == []


def test_making_room_reads_the_entries_a_few_times_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        add(Cache(tmp_path), "a", {"made": str(number)}, ARRAY[:50])
    fresh = Cache(tmp_path, limit=sum(each.size for each in Cache(tmp_path).entries()))
    read, seen = cache_module._read, []

    def see(folder: Path) -> Entry | None:
        seen.append(folder)
        return read(folder)

    monkeypatch.setattr(cache_module, "_read", see)
    size = fresh.limit // 2
    assert fresh.make_room(size) >= size
    assert 9 <= len(list(tmp_path.glob("[!.]*/"))) <= 10
    assert len(seen) < 5 * 20


def test_without_a_cache_nothing_is_found_in_it_or_locked(tmp_path: Path) -> None:
    add(Cache(tmp_path))
    assert Cache(tmp_path, 0).find("kind", RECIPE) == []
    with Cache(tmp_path / "other", 0).lock("kind", RECIPE):
        assert not (tmp_path / "other").exists()


def test_what_can_never_fit_removes_nothing(tmp_path: Path) -> None:
    add(Cache(tmp_path, 10_000))
    for limit, size in ((0, 1), (0, 10**9), (10_000, 10_001)):
        assert Cache(tmp_path, limit).make_room(size) < size
    assert len(Cache(tmp_path).entries()) == 1
    assert Cache(tmp_path, 10_000).limit == 10_000


def test_an_entry_of_another_user_is_used_all_the_same(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    add(cache)
    monkeypatch.setattr(os, "utime", refuse)
    assert len(Cache(cache.folder).find("kind", RECIPE)) == 1
    monkeypatch.setattr(cache_module, "_READ", set())
    monkeypatch.setattr(cache_module, "file_sha256", refuse)  # it goes while it is read
    assert Cache(cache.folder).find("kind", RECIPE) == []
    monkeypatch.setattr(cache_module, "read_json", refuse)
    assert cache.entries() == []
    assert entry_of(cache).joinpath("data.npy").is_file()  # what cannot be read now is not damaged


def test_the_limit_that_nobody_gave_is_half_of_the_free_disk_or_the_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, expected in ((2**32, 2**31), (10 * cache_module.MOST, cache_module.MOST)):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _, usage=usage: usage)  # type: ignore[attr-defined]
        assert Cache(tmp_path).room() == expected


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORA_DISTILL_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("LORA_DISTILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/lora_distill")


def test_clear(cache: Cache) -> None:
    add(cache)
    folder = entry_of(cache)
    size = folder.joinpath("data.npy").stat().st_size
    half = [folder.with_name(f".{folder.name}{end}") for end in (".part", ".away.part")]
    for each in half:
        each.mkdir()
    (cache.folder / PROCESSORS).write_text("{}")
    with cache.lock("kind", RECIPE):
        pass
    assert list(cache.folder.glob("*.lock"))
    assert cache.clear() == size
    assert cache.entries() == []
    assert list(cache.folder.iterdir()) == []


def test_what_is_being_written_is_not_cleared(cache: Cache) -> None:
    def pieces() -> Iterator[NDArray[Any]]:
        Cache(cache.folder).clear()
        yield ARRAY

    with cache.lock("kind", RECIPE):
        entry = cache.add("kind", RECIPE, "part", "title", {"data": Stream(ARRAY.shape, ARRAY.dtype, pieces())})
        assert entry
        np.testing.assert_array_equal(entry.array("data"), ARRAY)
    assert cache.find("kind", RECIPE)


def test_what_vanishes_as_soon_as_it_is_written_is_lived_with(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lora_distill.cache._identity", lambda path: path.with_name("gone").stat())
    assert cache.add("kind", RECIPE, "part", "title", {"data": Stream.of(ARRAY)}) is None
    assert "takes no more (No such file or directory): going on without" in caplog.text


def test_a_closed_terminal_is_no_fault_of_the_disk(cache: Cache) -> None:
    def pieces() -> Iterator[NDArray[Any]]:
        raise BrokenPipeError
        yield

    with pytest.raises(BrokenPipeError):
        cache.add("kind", RECIPE, "part", "title", {"data": Stream(ARRAY.shape, ARRAY.dtype, pieces())})


def test_what_a_killed_process_left_half_written_goes_when_room_is_asked_for(cache: Cache) -> None:
    add(cache)
    left = entry_of(cache).rename(cache.folder / f".{entry_of(cache).name}.part")
    with cache.lock("kind", RECIPE):  # somebody works on it
        cache.room()
        assert left.is_dir()
    cache.room()
    assert not left.exists()


def test_a_limit_leaves_some_of_the_disk_to_what_runs_write(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3 * 2**30))
    assert Cache(cache.folder, 10**12).room() == 2 * 2**30
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**29))
    assert Cache(cache.folder, 10**12).room() == 0


def test_what_is_not_the_cache_s_own_is_left_where_it_is(cache: Cache) -> None:
    add(cache)
    strangers = ["project/entry.json", "project/sub/thesis.txt", "settings.json", ".work.part/x", "tokens-1/entry.json"]
    for name in strangers:
        file = cache.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    assert len(cache.entries()) == 1
    assert cache.make_room(10**12) < 10**12
    cache.clear()
    left = {str(path.relative_to(cache.folder)) for path in cache.folder.rglob("*") if path.is_file()}
    assert left == set(strangers)


def write_and_read(folder: Path, wrong: "multiprocessing.Queue[str]") -> None:
    for turn in range(30):
        mine = Cache(folder, limit=10**9)
        with mine.lock("kind", RECIPE):
            found = mine.find("kind", RECIPE)
            if not found:
                add(mine)
            elif not np.array_equal(found[0].array("data"), ARRAY):
                wrong.put("other contents")
        if turn % 7 == 0:
            mine.clear()


def test_processes_at_once_do_not_break_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    wrong = context.Queue()
    processes = [context.Process(target=write_and_read, args=(tmp_path, wrong)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert wrong.empty()
