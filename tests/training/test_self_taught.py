"""A teacher is trained a second time, with what it said of the texts without labels."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lora_distill.config import Config
from lora_distill.data.types import UNLABELLED
from lora_distill.experiment import run_experiment, train_role
from lora_distill.preparation import prepare
from lora_distill.store import ARTEFACTS, read_json, read_jsonl
from lora_distill.training import loop
from lora_distill.training import role as role_module
from lora_distill.training.loop import nobody
from lora_distill.training.outcome import LOGITS, answered
from lora_distill.training.self_taught import SelfTaughtTeacher
from lora_distill.trainings import splits_of, trainings


@pytest.fixture
def config(with_texts: Callable[..., Config]) -> Config:
    return with_texts(no_control=True, teacher_num_epochs=2, teacher_self_training=True)


def teacher_of(config: Config) -> SelfTaughtTeacher:
    teacher = trainings(prepare(config))["teacher"]
    assert isinstance(teacher, SelfTaughtTeacher)
    return teacher


def trained_with(config: Config, monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[dict[str, Any]]:
    """What the trainings of a run were given; before one of them it is stopped, if that is wanted."""
    given: list[dict[str, Any]] = []

    def watched(network: Any, training: Any, validation: Any, **settings: Any) -> Any:  # noqa: ANN401
        given.append(settings | {"training": training})
        if len(given) == stop_at:
            raise KeyboardInterrupt
        return loop.train(network, training, validation, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(role_module, "train", watched)
        run_experiment(config)
    return given


def test_the_second_training_is_like_a_student_s_of_the_first(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second, student = trained_with(config, monkeypatch)
    assert [each["role"] for each in (first, second, student)] == ["teacher", "teacher", "student"]
    assert first["soft_labels"] is None
    assert [each["settings"].num_epochs for each in (first, second, student)] == [2, 1, 1]
    assert [each["settings"].labelled_per_batch for each in (first, second, student)] == [0, 3, 3]
    labelled = len(first["training"].labels)
    assert (second["training"].labels[:labelled] == first["training"].labels).all()
    assert (second["training"].labels[labelled:] == UNLABELLED).all()
    assert first["seed"] == second["seed"] != student["seed"]

    teacher = teacher_of(config)
    rows = {name: len(each) for name, each in prepare(config).dataset.splits().items()}
    for taught, of in ((second, teacher.first), (student, teacher)):
        said = load_file(of.artefact().folder / LOGITS)
        asked = rows.keys() if of is teacher else rows.keys() - {"test"}  # the first one's are nobody's to judge
        assert {name: len(each) for name, each in said.items()} == {name: rows[name] for name in asked}
        assert len(taught["soft_labels"].logits) == len(taught["training"].labels)
        assert (taught["soft_labels"].logits == np.concatenate([said["train"], said["unlabelled"]])).all()
        assert taught["soft_labels"].alpha == config.alpha
    adapter = Path(config.output_dir) / "run" / "teacher" / "adapter_model.safetensors"
    assert adapter.read_bytes() == (teacher.artefact().folder / "adapter" / adapter.name).read_bytes()


def test_results_are_of_the_last_and_seconds_of_both(config: Config) -> None:
    results = run_experiment(config)["teacher"]
    teacher = teacher_of(config)
    first, last = (read_json(each.artefact().folder / "facts.json") for each in (teacher.first, teacher.last))
    assert results["seconds"] == first["seconds"] + last["seconds"]
    assert (results["steps"], results["epochs"]) == (last["steps"], 1)
    assert not results["reused"]
    assert "test" not in answered(teacher.first.artefact())  # whose answers to test nobody asks for
    again = run_experiment(config.model_copy(update={"exp_name": "again"}))
    assert again["teacher"]["reused"]


def test_the_first_is_the_teacher_that_would_be_alone(config: Config) -> None:
    alone = run_experiment(config.model_copy(update={"exp_name": "alone", "teacher_self_training": False}))
    results = run_experiment(config)
    assert len(list((Path(config.output_dir) / ARTEFACTS).glob("teacher-*/"))) == 2
    assert results["teacher"]["seconds"] > alone["teacher"]["seconds"]
    assert results["teacher"]["test"] != alone["teacher"]["test"]


def history_of(config: Config) -> list[dict[str, Any]]:
    lines = read_jsonl(Path(config.output_dir) / "run" / "history.jsonl")
    return [line for line in lines if line["role"] == "teacher"]


def test_both_trainings_are_told_and_kept_as_one(config: Config) -> None:
    teacher, told = teacher_of(config), list[dict[str, Any]]()
    splits = splits_of(prepare(config), teacher)
    outcome = teacher.run(splits, observe=told.append)
    assert told == outcome.history
    assert [line["member"] for line in told if line["event"] == "validation"] == [1, 1, 2]
    steps = [line["step"] for line in told]
    assert steps == sorted(steps)
    run_experiment(config)
    assert history_of(config) == told


def test_several_teach_one(config: Config) -> None:
    results = run_experiment(config.model_copy(update={"teacher_ensemble": 2}))
    ends = [line["member"] for line in history_of(config) if line["event"] == "validation"]
    assert ends == [1, 1, 2, 2, 3]
    assert len(list((Path(config.output_dir) / ARTEFACTS).glob("teacher-*/"))) == 3
    assert "members" not in results["teacher"]
    assert (Path(config.output_dir) / "run" / "teacher" / "adapter_config.json").is_file()


def test_stopped_between_the_two_it_goes_on_to_the_same_bits(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    run_experiment(config.model_copy(update={"output_dir": f"{config.output_dir}-whole"}))
    with pytest.raises(KeyboardInterrupt):
        trained_with(config, monkeypatch, stop_at=2)
    run_experiment(config, resume=True)
    one, other = (
        (Path(folder) / "run" / "predictions.parquet").read_bytes()
        for folder in (config.output_dir, f"{config.output_dir}-whole")
    )
    assert one == other


def test_a_search_leaves_the_test_split_alone(config: Config) -> None:
    train_role(config, "student", nobody)
    teacher = teacher_of(config)
    for each in (teacher.first, teacher.last):
        assert "test" not in load_file(each.artefact().folder / LOGITS)
    assert run_experiment(config)["teacher"]["reused"]


def test_its_recipe_says_what_it_learned_from(config: Config) -> None:
    teacher = teacher_of(config)
    assert isinstance(teacher.last.teacher, type(teacher.first.artefact()))
    other = replace(teacher.last, config=config.model_copy(update={"alpha": 0.7}))
    assert len({each.artefact().key for each in (teacher.first, teacher.last, other)}) == 3
