"""What stands in a run's way, and runs that are unfinished, damaged or not there: a few lines, nothing left behind."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_distill.config import make_config
from lora_distill.experiment import run_experiment
from tests.end_to_end.conftest import Command, flags_of, small_values, write_rows
from tests.end_to_end.refusal import Change, World, file, remove, rewrite, train


@pytest.fixture(scope="module")
def source(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows and a run that was trained on them. Read it, do not write into it."""
    folder = tmp_path_factory.mktemp("source")
    write_rows(folder / "rows.csv", 60)
    run_experiment(make_config(settings(folder, tiny) | {"output_dir": str(folder), "exp_name": "run"}, {}))
    return folder


def settings(source: Path, tiny: Callable[[str], Path]) -> dict[str, object]:
    return small_values(tiny("roberta"), source / "rows.csv") | {"num_epochs": 1, "alpha": 0.5}


WAYS: list[tuple[Change, list[str]]] = [
    (file("o", ""), ["o is a file", "--output_dir"]),
    (file("o/run", ""), ["o/run is a file"]),
    (file("o/run/thesis.txt", "years"), ["o/run", "not the folder of a run", "--exp_name"]),
    (file("o/.artefacts", ""), ["o/.artefacts: File exists", "--output_dir"]),
    (lambda folder: (folder / "o").symlink_to("gone"), ["o", "File exists", "--output_dir"]),
    (lambda folder: (folder / "o").symlink_to("o"), ["link"]),
]


@pytest.mark.parametrize("flag", [[], ["--overwrite"]])
@pytest.mark.parametrize(("change", "parts"), WAYS)
def test_what_is_in_the_way_is_left_there(world: World, change: Change, flag: list[str], parts: list[str]) -> None:
    change(world.folder)
    world.refuses(train("--output_dir", "o", *flag), *parts)


unfinish = remove("metrics.json")


def damage(name: str, content: str | bytes) -> Change:
    """An unfinished run with a damaged file."""

    def change(folder: Path) -> None:
        unfinish(folder)
        file(name, content)(folder)

    return change


def nothing(_folder: Path) -> None:
    return


def other_base(folder: Path) -> None:
    """As if the base model's files had been others when the run was trained."""
    base = json.loads((folder / "environment.json").read_text())["base_model"]
    rewrite("environment.json", base_model=base | {"fingerprint": "other"})(folder)


AGAIN: list[tuple[Change, list[str], list[str]]] = [
    (nothing, ["--alpha", "0.9"], ["o/run", "alpha 0.5, now 0.9", "--exp_name", "--overwrite"]),
    (nothing, ["--resume", "--alpha", "0.9"], ["alpha 0.5, now 0.9"]),
    (unfinish, [], ["o/run", "has not finished", "--resume goes on", "--overwrite"]),
    (unfinish, ["--resume", "--alpha", "0.9"], ["alpha 0.5, now 0.9"]),
    (unfinish, ["--resume", "--dataset", "good.csv"], ["dataset", "good.csv"]),
    (damage("environment.json", "{"), ["--resume"], ["environment.json", "damaged", "--overwrite"]),
    (damage("environment.json", "{}"), ["--resume"], ["environment.json", "damaged"]),
    (damage("environment.json", b"\xff"), ["--resume"], ["environment.json", "damaged"]),
    (damage("config.yaml", "alpha: ["), ["--resume"], ["config.yaml, line 1", "not YAML"]),
    (damage("config.yaml", "alfa: 1"), ["--resume"], ["config.yaml, line 1", "did you mean alpha?"]),
    (file("metrics.json", "{"), [], ["metrics.json", "damaged", "--overwrite"]),
    (other_base, [], ["has changed since", "--exp_name", "--overwrite"]),
]


@pytest.mark.parametrize(("change", "flags", "parts"), AGAIN)
def test_a_run_that_is_there(
    world: World,
    source: Path,
    tiny: Callable[[str], Path],
    change: Change,
    flags: list[str],
    parts: list[str],
) -> None:
    change(shutil.copytree(source / "run", world.folder / "o" / "run"))
    same = flags_of(settings(source, tiny) | {"output_dir": "o", "exp_name": "run"})
    world.refuses(["train", *same, *flags], *parts)


def lose_base(folder: Path) -> None:
    base = {"name": "gone", "kind": "folder", "reference": "./gone", "revision": "", "fingerprint": ""}
    rewrite("environment.json", base_model=base)(folder)


EVALUATED: list[tuple[Change, list[str], list[str]]] = [
    (unfinish, [], ["has not finished", "--output_dir . --exp_name run --resume"]),
    (file("metrics.json", "[]"), [], ["metrics.json", "damaged"]),
    (remove("environment.json"), [], ["environment.json", "missing"]),
    (remove("config.yaml"), [], ["config.yaml", "missing", "another --exp_name"]),
    (lose_base, [], ["base model ./gone", "no such folder"]),
    (remove("student/adapter_model.safetensors"), [], ["student", "does not fit"]),
    (file("student/adapter_model.safetensors", "junk"), [], ["student", "does not fit"]),
    (nothing, ["--dataset", "absent.csv"], ["absent.csv", "no such file"]),
    (nothing, ["--dataset", "strange.csv"], ["strange.csv", "1 row", "'sports'", "'garden', 'kitchen', 'space'"]),
    (nothing, ["--text_column", "body"], ["'body'", "--text_column"]),
    (nothing, ["--device", "cuda:99"], ["--device cuda:99"]),
]


@pytest.mark.parametrize(("change", "flags", "parts"), EVALUATED)
def test_evaluate(world: World, source: Path, change: Change, flags: list[str], parts: list[str]) -> None:
    change(shutil.copytree(source / "run", world.folder / "run"))
    (world.folder / "strange.csv").write_text("text,label\na comet,space\na goal,sports\n")
    world.refuses(["evaluate", "run", "--dataset", str(source / "rows.csv"), *flags], *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (unfinish, ["run", "has not finished", "--exp_name run --resume"]),
        (file("metrics.json", "{"), ["metrics.json", "damaged"]),
        (shutil.rmtree, ["run", "no such run"]),
    ],
)
def test_show(world: World, source: Path, change: Change, parts: list[str]) -> None:
    change(shutil.copytree(source / "run", world.folder / "run"))
    world.refuses(["show", "run"], *parts)


def test_damaged_runs_are_told_all_at_once(call: Command, tmp_path: Path, source: Path) -> None:
    for name in ("one", "two"):
        run = shutil.copytree(source / "run", tmp_path / "runs" / name)
        (run / "metrics.json").write_text("{")
    for command in ("report", "compare"):
        done = call(command, "runs")
        assert done.returncode == 2
        assert re.search(
            r"one/metrics.json: missing, damaged.*\n.*two/metrics.json: missing, damaged", done.stderr, re.DOTALL
        )


def test_an_unfinished_run_is_no_teacher(world: World, source: Path) -> None:
    shutil.rmtree(shutil.copytree(source / "run", world.folder / "other") / "teacher")
    world.refuses(train("--teacher_checkpoint", "other"), "--teacher_checkpoint other", "no teacher of its own")
