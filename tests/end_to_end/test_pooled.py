"""A student on a narrower encoder that matches its teacher's pooled vectors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from lora_distill.config import Config, make_config
from lora_distill.errors import UserError
from lora_distill.experiment import run_experiment
from lora_distill.model import pooling
from lora_distill.model.adapter import load_classifier
from lora_distill.model.base import resolve_base_model
from lora_distill.preparation import prepare
from tests.end_to_end.conftest import WORDS, small_values, write_rows
from tests.tiny import tiny_model

TEACHER_WIDTH, STUDENT_WIDTH = 32, 48
OF_THE_TEACHER = ("student_base_model", "teacher_lora_r", "teacher_target_layers")  # not where it is given


class World(NamedTuple):
    """What there is to train with, and a run without pooled vectors."""

    values: dict[str, object]
    plain: dict[str, Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[[str], Path]) -> World:
    folder = tmp_path_factory.mktemp("pooled")
    narrow = tiny_model("bert", folder / "student", layers=2, hidden=STUDENT_WIDTH)
    values = small_values(tiny("roberta"), write_rows(folder / "rows.csv", 60)) | {
        "student_base_model": str(narrow),
        "unlabelled": str(write_rows(folder / "others.csv", 30, seed=1)),
        "num_epochs": 1,
        "output_dir": str(folder / "out"),
    }
    return World(values, run_experiment(make_config(values | {"exp_name": "plain"}, {})))


@pytest.fixture(scope="module")
def pooled(world: World) -> dict[str, Any]:
    """The same with them, after the other: teacher and control are there, and lack their vectors."""
    return run_experiment(config_of(world))


def config_of(world: World, **changes: object) -> Config:
    return make_config(world.values | {"exp_name": "pooled", "pooled_weight": 2.0} | changes, {})


def predictions(config: Config) -> dict[str, Any]:
    table = pq.read_table(Path(config.output_dir) / "pooled" / "predictions.parquet")
    return {name: table[name].to_pylist() for name in table.column_names}


def test_only_those_who_match_them_are_trained_again(world: World, pooled: dict[str, Any]) -> None:
    reused = {role: pooled[role]["reused"] for role in ("teacher", "student", "control", "self-trained")}
    assert reused == {"teacher": True, "student": False, "control": True, "self-trained": False}
    for role in ("student", "self-trained"):
        assert pooled[role]["test"] != world.plain[role]["test"]


def test_each_teacher_keeps_those_of_what_it_teaches(world: World, pooled: dict[str, Any]) -> None:
    assert pooled["data"]["unlabelled_rows"] > 0
    for role, width in (("teacher", TEACHER_WIDTH), ("control", STUDENT_WIDTH)):
        (file,) = Path(str(world.values["output_dir"])).glob(f".artefacts/{role}-*/pooled.safetensors")
        shapes = {split: vectors.shape for split, vectors in load_file(file).items()}
        assert shapes == {split: (pooled["data"][f"{split}_rows"], width) for split in ("train", "unlabelled")}


def test_the_projector_is_counted_apart_and_dropped(world: World, pooled: dict[str, Any]) -> None:
    assert pooled["student"]["projector_parameters"] == STUDENT_WIDTH * TEACHER_WIDTH
    assert pooled["self-trained"]["projector_parameters"] == STUDENT_WIDTH**2
    assert not any("projector_parameters" in pooled[role] for role in ("teacher", "control"))
    assert pooled["student"]["trainable_parameters"] == world.plain["student"]["trainable_parameters"]
    student = Path(str(world.values["output_dir"])) / "pooled" / "student"
    weights = load_file(student / "adapter_model.safetensors")
    assert sum(each.size for each in weights.values()) == pooled["student"]["trainable_parameters"]["total"]
    card = (student / "README.md").read_text()
    assert f"A projector of {STUDENT_WIDTH * TEACHER_WIDTH:,} parameters was trained beside them and dropped" in card
    assert "+ 2 × the squared distance of the normalised vectors" in card


def test_asked_for_at_once_or_later_the_bits_are_the_same(world: World, pooled: dict[str, Any], tmp_path: Path) -> None:
    fresh = config_of(world, output_dir=str(tmp_path))
    results = run_experiment(fresh)
    assert not results["teacher"]["reused"]
    assert predictions(fresh) == predictions(config_of(world))


@pytest.mark.parametrize("kind", ["run", "whole"])
def test_a_teacher_that_was_given_has_them_too(
    kind: str, world: World, tmp_path: Path, tiny: Callable[[str], Path]
) -> None:
    teacher = Path(str(world.values["output_dir"])) / "plain"
    if kind == "whole":
        teacher = tmp_path / "whole"
        load_classifier(resolve_base_model(str(tiny("roberta"))), sorted(WORDS), seed=0).model.save_pretrained(teacher)
        AutoTokenizer.from_pretrained(tiny("roberta")).save_pretrained(teacher)
    given = {"teacher_checkpoint": str(teacher), "base_model": world.values["student_base_model"], "no_control": True}
    own = {name: value for name, value in world.values.items() if name not in OF_THE_TEACHER}
    values = own | given | {"output_dir": str(tmp_path), "exp_name": "pooled", "pooled_weight": 2.0}
    results = run_experiment(make_config(values, {}))
    (file,) = tmp_path.glob(".artefacts/given-teacher-*/pooled.safetensors")
    assert load_file(file)["train"].shape == (results["data"]["train_rows"], TEACHER_WIDTH)
    assert results["student"]["projector_parameters"] == STUDENT_WIDTH * TEACHER_WIDTH


def test_a_model_without_one_such_vector_is_refused_before_anything_is_written(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known, told in (("bert", "roberta"), ("roberta", "bert")):
        monkeypatch.setattr(pooling, "FAMILIES", (known,))
        with pytest.raises(UserError, match=f"--pooled_weight: which vector the head of {told} reads"):
            prepare(config_of(world, output_dir=str(tmp_path / "out")))
    given = {
        "teacher_checkpoint": str(Path(str(world.values["output_dir"])) / "plain"),
        "base_model": world.values["student_base_model"],
        **{name: Config.model_fields[name].default for name in OF_THE_TEACHER},
    }
    monkeypatch.setattr(pooling, "FAMILIES", ("bert",))
    with pytest.raises(UserError, match="--pooled_weight: which vector the head of roberta reads"):
        prepare(config_of(world, output_dir=str(tmp_path / "out"), **given))
    assert not (tmp_path / "out").exists()
