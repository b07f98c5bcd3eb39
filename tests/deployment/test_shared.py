"""What is pushed of a run, and what is refused before anything is."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from lora_distill.config import Role, make_config
from lora_distill.deployment import shared
from lora_distill.deployment.export import export_role
from lora_distill.deployment.shared import push, write_shared
from lora_distill.errors import UserError
from lora_distill.run_folder import METRICS, RunFolder
from lora_distill.store import read_json, write_json
from tests.reporting.sample import sample_results

HUB = {"name": "org/base", "kind": "hub", "revision": "c0ffee", "reference": "org/base"}
FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "labels.json", "tokenizer.json"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Finished, on a base model of the hub's, with notes of its owner beside the student."""
    config = make_config({"output_dir": str(tmp_path / "runs"), "exp_name": "mine", "dataset": "bbc_news"}, {})
    run, results = RunFolder.of(config), sample_results()
    request: dict[str, Any] = {"config": config.model_dump(mode="json"), "named": []}
    run.begin(config, {"requested": request, "base_model": HUB, "student_base_model": HUB, "given_teacher": None})
    student = run.path / "student"
    student.mkdir()
    for name in FILES | {"notes.txt", "rows.csv", "training_args.bin", "vocab.md", "my.model"}:
        (student / name).write_text(f"{name} as it was")
    write_json(student / "labels.json", {"base_model": HUB})
    write_json(run.path / METRICS, results)
    return run


def change_results(run: RunFolder, role: str, **facts: object) -> None:
    results = read_json(run.path / METRICS)
    write_json(run.path / METRICS, results | {role: results[role] | facts})


def test_only_what_makes_the_adapter_is_shared(run: RunFolder, tmp_path: Path) -> None:
    write_shared(run, "me/mine", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    for name in FILES - {"README.md"}:
        assert (tmp_path / "out" / name).read_bytes() == (run.path / "student" / name).read_bytes()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "folder = 'me/mine'\n" in card
    assert "this folder" not in card


def test_an_empty_folder_is_filled_and_no_other(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_shared(run, "me/mine", tmp_path / "empty")
    before = {path: path.read_bytes() for path in (tmp_path / "empty").iterdir()}
    with pytest.raises(UserError, match="empty: exists, and is no empty folder"):
        write_shared(run, "me/mine", tmp_path / "empty")
    assert {path: path.read_bytes() for path in (tmp_path / "empty").iterdir()} == before
    with pytest.raises(UserError, match=r"in-a-file: .* is a file\. Give another folder"):
        write_shared(run, "me/mine", tmp_path / "empty" / "README.md" / "in-a-file")


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_a_folder_without_a_name_of_its_own_is_refused(
    folder: str, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty" / "in").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty" / "in")
    with pytest.raises(UserError, match=r"is no folder's own name\. Give one, such as"):
        write_shared(run, "me/mine", Path(folder))
    with pytest.raises(UserError, match=r"is no folder's own name\. Give one, such as"):
        export_role(run, "student", {"merged": Path(folder)})


def test_a_folder_below_a_file_is_refused_before_any_work(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/sub/out: .*/file is a file\. Give another folder\.$"):
        write_shared(run, "me/mine", tmp_path / "file" / "sub" / "out")


@pytest.mark.parametrize(
    ("private", "said"),
    [
        (str(Path.home() / "rows"), rf"labels.json: would tell everybody {Path.home()}\. Nothing was pushed"),
        ("hf_" + "s" * 34, r"labels.json: would tell everybody your token"),
    ],
)
def test_a_file_that_would_tell_too_much_stops_it(
    private: str, said: str, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "s" * 34)
    write_json(run.path / "student" / "labels.json", {"base_model": HUB, "id2label": {"0": private}})
    with pytest.raises(UserError, match=said) as raised:
        write_shared(run, "me/mine", tmp_path / "out")
    assert "hf_" not in str(raised.value)
    assert not list(tmp_path.glob("*out*"))


def test_a_place_whose_letters_are_written_as_numbers_is_told_too(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = json.dumps({"base_model": HUB, "id2label": {"0": "/data/jürgen/rows"}}).encode("ascii")
    (run.path / "student" / "labels.json").write_bytes(said)
    monkeypatch.setattr(Path, "cwd", lambda: Path("/data/jürgen"))
    with pytest.raises(UserError, match=r"labels\.json: would tell everybody /data/jürgen"):
        write_shared(run, "me/mine", tmp_path / "out")


@pytest.mark.parametrize(
    ("said", "passes"),
    [*((name, True) for name in ("me/data-set", "me/data", "/data-set", "/data.csv", "../data")), ("/data/a", False)],
)
def test_a_place_is_told_by_its_whole_name_only(
    said: str, passes: bool, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(run.path / "student" / "labels.json", {"base_model": HUB, "id2label": {"0": said}})
    monkeypatch.setattr(Path, "cwd", lambda: Path("/data"))
    with nullcontext() if passes else pytest.raises(UserError, match=r"labels\.json: would tell everybody /data"):
        write_shared(run, "me/mine", tmp_path / "out")


def local_base(run: RunFolder) -> None:
    base = {"name": "minilm", "kind": "packaged", "revision": "1.0"}
    write_json(run.path / "student" / "labels.json", {"base_model": base})


def given_teacher(run: RunFolder) -> None:
    change_results(run, "teacher", trainable_parameters=None, checkpoint="org/teacher")


def several_teachers(run: RunFolder) -> None:
    change_results(run, "teacher", members=3)


def no_labels(run: RunFolder) -> None:
    (run.path / "student" / "labels.json").unlink()


def no_weights(run: RunFolder) -> None:
    (run.path / "student" / "adapter_model.safetensors").unlink()


def unfinished(run: RunFolder) -> None:
    (run.path / METRICS).unlink()


@pytest.mark.parametrize(
    ("change", "role", "said"),
    [
        (local_base, "student", r"its base model, minilm, is not from a hub.*\n--form merged pushes a whole model"),
        (given_teacher, "teacher", r"--role teacher: was given to this run, not trained by it"),
        (several_teachers, "teacher", r"--role teacher: is 3 models that answer together"),
        (no_labels, "student", r"labels\.json: missing or damaged"),
        (no_weights, "student", r"adapter_model\.safetensors: missing"),
        (unfinished, "student", r"this run has not finished"),
        (lambda _: None, "self-trained", r"this run has none\. It has: teacher, student, control\."),
    ],
)
def test_what_others_could_not_open_is_refused(
    change: Callable[[RunFolder], None],
    role: Role,
    said: str,
    run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(run)
    with pytest.raises(UserError, match=said) as raised:
        write_shared(run, "me/mine", tmp_path / "out", role=role)
    assert len(str(raised.value).splitlines()) <= 3
    assert not list(tmp_path.glob("*out*"))
    for asked in ("check_access", "check_base", "push_folder"):
        monkeypatch.setattr(shared, asked, lambda *_, **__: None)
    with pytest.raises(UserError, match=said):
        push(run, "me/mine", role=role)


def test_a_name_that_is_no_repository_s_is_refused_first(run: RunFolder, tmp_path: Path) -> None:
    unfinished(run)
    with pytest.raises(UserError, match="Give OWNER/NAME"):
        write_shared(run, "mine", tmp_path / "out")
