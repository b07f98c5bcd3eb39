"""Several teachers answer as one, and none labels a training row that it has seen where that was asked for."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from scipy.special import log_softmax, softmax

from lora_distill.config import Config, make_config
from lora_distill.data.splits import collapse
from lora_distill.data.tokenising import tokenise
from lora_distill.deployment.finished import open_models, open_role
from lora_distill.errors import UserError
from lora_distill.evaluate_run import evaluate_run
from lora_distill.evaluation.calibration import fit_temperature
from lora_distill.experiment import run_experiment, train_role
from lora_distill.preparation import Prepared, prepare
from lora_distill.run_folder import RunFolder
from lora_distill.store import ARTEFACTS, read_jsonl
from lora_distill.training import loop
from lora_distill.training import role as role_module
from lora_distill.training.logits import plain, predict_logits
from lora_distill.training.loop import nobody
from lora_distill.training.opinion_pool import pooled
from lora_distill.training.outcome import LOGITS
from lora_distill.training.role import RoleTraining
from lora_distill.training.several import SeveralTeachers, teachers
from lora_distill.trainings import splits_of, trainings
from tests.end_to_end.conftest import small_values, write_rows
from tests.reporting.cards import code_of

Logits = dict[str, np.ndarray]

# Trained


def config_of(base: Path, rows: Path, out: Path, **changes: object) -> Config:
    settings = {"output_dir": str(out), "no_control": True, "exp_name": "run", "num_epochs": 2}
    return make_config(small_values(base, rows) | settings | changes, {})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some texts come twice, with other white space."""
    path = write_rows(tmp_path_factory.mktemp("rows") / "rows.csv", 75)
    again = [f"  {line}" for line in path.read_text().splitlines()[1:10]]
    path.write_text(path.read_text() + "\n".join(again) + "\n")
    return path


def teacher_of(config: Config) -> tuple[Prepared, SeveralTeachers]:
    prepared = prepare(config)
    teacher = trainings(prepared)["teacher"]
    assert isinstance(teacher, SeveralTeachers)
    return prepared, teacher


def kept(training: RoleTraining | SeveralTeachers) -> Logits:
    logits: Logits = load_file(training.artefact().folder / LOGITS)
    return logits


def test_an_ensemble_answers_with_the_mean_and_shares_its_members(
    tiny: Callable[[str], Path], rows: Path, tmp_path: Path
) -> None:
    alone = run_experiment(config_of(tiny("roberta"), rows, tmp_path, exp_name="alone"))
    config = config_of(tiny("roberta"), rows, tmp_path, teacher_ensemble=3)
    two = run_experiment(config.model_copy(update={"teacher_ensemble": 2, "exp_name": "two"}))
    results = run_experiment(config)
    assert len(list((tmp_path / ARTEFACTS).glob("teacher-*/"))) == 3  # the second has one more, and so has the third
    _, teacher = teacher_of(config)
    own = [kept(member.training) for member in teacher.members]
    assert (
        teacher.members[0].training.artefact().key
        == trainings(prepare(RunFolder(tmp_path / "alone").resolved()))["teacher"].artefact().key
    )
    together = kept(teacher)
    for split in ("train", "validation", "test"):
        mean = np.mean([softmax(each[split].astype(np.float64), axis=1) for each in own], axis=0)
        assert together[split] == pytest.approx(np.log(mean), abs=1e-5)
    assert not np.allclose(own[0]["train"], own[1]["train"])

    written = np.array(pq.read_table(tmp_path / "run" / "predictions.parquet")["teacher_logits"].to_pylist())
    assert (written.astype(np.float32) == together["test"]).all()
    facts = results["teacher"]
    assert facts["members"] == 3
    for part, number in alone["teacher"]["trainable_parameters"].items():
        assert facts["trainable_parameters"][part] == 3 * number
    assert facts["total_parameters"] == 3 * alone["teacher"]["total_parameters"]
    assert facts["seconds"] > two["teacher"]["seconds"] > alone["teacher"]["seconds"]
    history = [line for line in read_jsonl(tmp_path / "run" / "history.jsonl") if line["role"] == "teacher"]
    assert [line["member"] for line in history if line["event"] == "validation"] == [1, 1, 2, 2, 3, 3]
    steps = [line["step"] for line in history if line["event"] == "step"]
    assert steps == sorted(set(steps))

    again = run_experiment(config.model_copy(update={"exp_name": "again"}))
    assert [again[role]["reused"] for role in ("teacher", "student")] == [True, True]


def test_a_row_s_soft_label_comes_from_the_teachers_that_have_not_seen_its_text(
    tiny: Callable[[str], Path], rows: Path, tmp_path: Path
) -> None:
    texts = write_rows(tmp_path / "texts.csv", 20, seed=1)
    folds = {"teacher_fit": "crossfit", "teacher_folds": 3, "teacher_ensemble": 2, "unlabelled": str(texts)}
    config = config_of(tiny("roberta"), rows, tmp_path, num_epochs=1, labelled_per_batch=4, **folds)
    run_experiment(config)
    prepared, teacher = teacher_of(config)
    train = prepared.dataset.train
    splits, together = splits_of(prepared, teacher), kept(teacher)
    assert len(teacher.members) == 6
    by_row: list[list[np.ndarray]] = [[] for _ in range(len(train))]
    for member in teacher.members:
        assert member.held is not None
        held_texts = {collapse(train.texts[row]) for row in member.held}
        seen = member.training.dataset.train
        assert held_texts.isdisjoint(map(collapse, seen.texts))
        assert len(seen) + len(member.held) == len(train)
        # What its training reads is what its data set says.
        read, whole = member.reads(splits), splits["train"]
        places = [train.ids.tolist().index(number) for number in seen.ids]
        assert (read["train"].flat == whole.take(np.array(places)).flat).all()
        assert len(read["unlabelled"]) == len(member.held) + len(splits["unlabelled"])
        own = kept(member.training)
        assert len(own["train"]) == len(seen)
        for row, logits in zip(member.held, own["unlabelled"], strict=False):
            by_row[row].append(softmax(logits.astype(np.float64)))
    assert {len(each) for each in by_row} == {2}  # once for each seed
    assert together["train"] == pytest.approx(np.log([np.mean(each, axis=0) for each in by_row]), abs=1e-5)
    for split in ("validation", "test", "unlabelled"):
        own_logits = [kept(member.training)[split] for member in teacher.members]
        if split == "unlabelled":
            own_logits = [each[-len(splits[split]) :] for each in own_logits]
        mean = np.mean([softmax(each.astype(np.float64), axis=1) for each in own_logits], axis=0)
        assert together[split] == pytest.approx(np.log(mean), abs=1e-5)


def test_what_is_stopped_between_two_teachers_goes_on_to_the_same_bits(
    tiny: Callable[[str], Path], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = {"teacher_fit": "crossfit", "teacher_folds": 2}
    run_experiment(config_of(tiny("roberta"), rows, tmp_path / "whole", **folds))
    config = config_of(tiny("roberta"), rows, tmp_path / "stopped", **folds)
    begun: list[str] = []

    def stop(*arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
        begun.append(settings["role"])
        if len(begun) == 2:
            raise KeyboardInterrupt
        return loop.train(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(role_module, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(config)
    assert len(list((tmp_path / "stopped" / ARTEFACTS).glob("teacher-*/"))) == 1
    run_experiment(config, resume=True)
    one, other = ((tmp_path / name / "run" / "predictions.parquet").read_bytes() for name in ("whole", "stopped"))
    assert one == other


def test_several_that_were_trained_for_validation_only_are_judged_when_an_experiment_asks(
    tiny: Callable[[str], Path], rows: Path, tmp_path: Path
) -> None:
    config = config_of(tiny("roberta"), rows, tmp_path, num_epochs=1, teacher_ensemble=2)
    train_role(config, "student", nobody)
    _, teacher = teacher_of(config)
    assert "test" not in kept(teacher)
    results = run_experiment(config)
    assert results["teacher"]["reused"]
    assert kept(teacher)["test"] == pytest.approx(pooled([kept(member.training)["test"] for member in teacher.members]))


def test_a_search_may_share_a_member_that_was_judged_before(
    tiny: Callable[[str], Path], rows: Path, tmp_path: Path
) -> None:
    run_experiment(config_of(tiny("roberta"), rows, tmp_path, num_epochs=1, exp_name="alone"))
    config = config_of(tiny("roberta"), rows, tmp_path, num_epochs=1, teacher_ensemble=2)
    train_role(config, "student", nobody)
    _, teacher = teacher_of(config)
    assert kept(teacher).keys() == {"train", "validation"}
    assert run_experiment(config)["teacher"]["reused"]


def test_calibrated_fold_by_fold_each_split_gets_the_temperature_of_those_that_answered_it(
    tiny: Callable[[str], Path],
    rows: Path,
    tmp_path: Path,
    learned: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = write_rows(tmp_path / "texts.csv", 20, seed=1)
    folds = {"teacher_fit": "crossfit", "teacher_folds": 2, "unlabelled": str(texts), "labelled_per_batch": 4}
    config = config_of(tiny("roberta"), rows, tmp_path, num_epochs=1, teacher_calibrate=True, **folds)
    # Models so untrained would all get the largest temperature that is looked for.
    monkeypatch.setattr(role_module, "fit_temperature", lambda _, labels: float(len(labels)))
    results = run_experiment(config)
    prepared, teacher = teacher_of(config)
    said = kept(teacher)
    unseen, by_all = float(len(prepared.dataset.train)), float(len(prepared.dataset.validation))
    assert results["student"]["teacher_temperature"] == unseen != by_all
    wanted = np.concatenate([said["train"] / unseen, said["unlabelled"] / by_all])
    assert learned["student"] == pytest.approx(wanted, rel=1e-6)


def test_other_texts_are_answered_by_all_of_them(
    tiny: Callable[[str], Path], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_experiment(config_of(tiny("roberta"), rows, tmp_path, num_epochs=1, teacher_ensemble=2))
    run = RunFolder(tmp_path / "run")
    table = pq.read_table(run.path / "predictions.parquet")
    names = run.results()["data"]["label_names"]
    others = tmp_path / "others.jsonl"
    lines = zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True)
    others.write_text("".join(json.dumps({"text": text, "label": names[label]}) + "\n" for text, label in lines))
    results, _ = evaluate_run(run.path, Config(dataset=str(others)))
    for metric in ("accuracy", "nll"):
        assert results["teacher"]["test"][metric] == pytest.approx(run.results()["teacher"]["test"][metric], abs=1e-5)
    assert results["teacher"]["members"] == 2
    models = open_models(run, "teacher")
    assert len(models) == 2
    namespace: dict[str, Any] = {}
    monkeypatch.chdir(run.path / "teacher")
    exec(code_of((run.path / "teacher" / "README.md").read_text()), namespace)
    tokens = tokenise(namespace["texts"], models[0].tokenizer_folder, models[0].tokeniser.reading.max_length)
    together = pooled([predict_logits(plain(each.model), tokens) for each in models])
    assert namespace["probabilities"].log().numpy() == pytest.approx(together, abs=1e-5)

    with pytest.raises(UserError, match=r"its teacher is 2 models, which answer together"):
        open_role(run, "teacher")
    untaught = {"teacher_lora_r": 16, "teacher_target_layers": 8}  # the defaults again
    with pytest.raises(UserError, match=r"or has several, in teacher/1 and so on"):
        prepare(config_of(tiny("roberta"), rows, tmp_path, teacher_checkpoint=str(run.path), **untaught))
    one = str(run.path / "teacher" / "2")
    given_one = config_of(tiny("roberta"), rows, tmp_path, teacher_checkpoint=one, **untaught)
    assert not any(note.startswith("teacher:") for note in prepare(given_one).dataset.notes)
    others_tested = given_one.model_copy(update={"test_fraction": 0.5})
    assert any("hold texts that the run trained on" in note for note in prepare(others_tested).dataset.notes)


def test_one_teacher_for_all_rows_is_no_several(tiny: Callable[[str], Path], rows: Path, tmp_path: Path) -> None:
    alone = trainings(prepare(config_of(tiny("roberta"), rows, tmp_path)))["teacher"]
    assert isinstance(alone, RoleTraining)
    assert teachers(alone) is alone
    folds = alone.config.model_copy(update={"teacher_fit": "crossfit", "teacher_folds": 2})
    several = teachers(replace(alone, config=folds))
    assert isinstance(several, SeveralTeachers)
    assert len({member.training.artefact().key for member in several.members} | {alone.artefact().key}) == 3


# Calibrated


def test_a_student_learns_from_logits_divided_by_the_temperature_of_validation(
    tiny: Callable[[str], Path], rows: Path, tmp_path: Path, learned: dict[str, Any]
) -> None:
    texts = write_rows(tmp_path / "texts.csv", 20, seed=1)
    more = {"unlabelled": str(texts), "no_control": False, "labelled_per_batch": 4, "num_epochs": 1}
    plain = config_of(tiny("roberta"), rows, tmp_path, exp_name="plain", **more)
    run_experiment(plain)
    config = plain.model_copy(update={"teacher_calibrate": True, "exp_name": "run"})
    results = run_experiment(config)
    reused = {role: results[role]["reused"] for role in ("teacher", "student", "control", "self-trained")}
    assert reused == {"teacher": True, "student": False, "control": True, "self-trained": False}
    prepared = prepare(config)
    wanted = trainings(prepared)
    for student, teacher in (("student", "teacher"), ("self-trained", "control")):
        logits = load_file(wanted[teacher].artefact().folder / LOGITS)  # type: ignore[index]
        temperature = fit_temperature(logits["validation"], prepared.dataset.validation.labels)
        assert results[student]["teacher_temperature"] == temperature
        assert results[teacher]["temperature_scaling"]["temperature"] == temperature
        said = np.concatenate([logits["train"], logits["unlabelled"]])
        assert learned[student] == pytest.approx(said / temperature, rel=1e-6)
        assert log_softmax(learned[student], axis=1) != pytest.approx(log_softmax(said, axis=1))
    assert (
        f"divided by {results['student']['teacher_temperature']:.3f}"
        in (tmp_path / "run" / "student" / "README.md").read_text()
    )
