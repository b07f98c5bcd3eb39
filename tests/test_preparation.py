"""What is checked and settled before the first step; nothing is trained here."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_distill import preparation
from lora_distill.combinations import check_combinations
from lora_distill.config import Config, make_config
from lora_distill.errors import UserError
from lora_distill.hub import Unavailable
from lora_distill.model.base import BaseModel, resolve_base_model
from lora_distill.preparation import Prepared, prepare
from lora_distill.training.several import SeveralTeachers
from lora_distill.trainings import trainings
from tests.end_to_end.conftest import write_rows
from tests.tiny import tiny_model

Tiny = Callable[[str], Path]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.csv", 60)


def config_of(base: Path | str, rows: Path | str, **named: object) -> Config:
    return make_config({"base_model": str(base), "dataset": str(rows), **named}, {})


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Defaults and what was named


def test_defaults_adapt_to_a_small_model_and_say_so(tiny: Tiny, rows: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepared = prepare(config_of(tiny("roberta"), rows))
    config = prepared.config
    assert (config.teacher_target_layers, config.student_target_layers) == (3, 3)
    assert warnings_of(caplog) == [
        f"{tiny('roberta')} has 3 layers, so the default teacher_target_layers of 8 becomes 3",
        f"{tiny('roberta')} has 3 layers, so the default student_target_layers of 6 becomes 3",
    ]
    assert config.max_length == 128
    assert prepared.fallbacks == []


def test_a_small_student_of_its_own_encoder_is_warned_of(
    tiny: Tiny, rows: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = "--preset small_student: teacher and student are on one encoder"
    named = {"preset": "small_student", "student_base_model": str(tiny("roberta")), "student_lora_r": 4}
    prepare(config_of(tiny("bert"), rows, **named))
    assert not any(told in message for message in warnings_of(caplog))
    answers = tmp_path / "answers.csv"
    answers.write_text(rows.read_text().replace("label", "prediction", 1))
    a_file = {"preset": "small_student", "teacher_predictions": str(answers), "student_lora_r": 4}
    prepare(config_of(tiny("bert"), rows, **a_file))
    assert not any(told in message for message in warnings_of(caplog))
    prepare(config_of(tiny("roberta"), rows, **named))
    assert any(told in message for message in warnings_of(caplog))


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_layers_that_were_named_and_are_not_there_are_refused(role: str, tiny: Tiny, rows: Path) -> None:
    with pytest.raises(UserError, match=rf"--{role}_target_layers 4: .* has 3 layers\. Ask for at most 3\."):
        prepare(config_of(tiny("roberta"), rows, **{f"{role}_target_layers": 4}))


def test_the_default_named_is_named(tiny: Tiny, rows: Path) -> None:
    with pytest.raises(UserError, match="--teacher_target_layers 8"):
        prepare(config_of(tiny("roberta"), rows, teacher_target_layers=8))


@pytest.fixture
def near_sighted(tmp_path: Path) -> Path:
    """An encoder that reads 20 tokens."""
    folder = tiny_model("distilbert", tmp_path / "near")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 20}))
    return folder


def test_max_length_adapts_too_and_is_refused_where_it_was_named(
    near_sighted: Path, rows: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layers = {"teacher_target_layers": 3, "student_target_layers": 3}
    prepared = prepare(config_of(near_sighted, rows, **layers))
    assert prepared.config.max_length == 20
    assert warnings_of(caplog) == [
        f"{near_sighted} reads 20 tokens at most, so the default max_length of 128 becomes 20"
    ]
    assert prepared.tokenised(near_sighted, "x", ("train",))["train"].lengths.max() <= 20
    with pytest.raises(UserError, match=r"--max_length 21: .* reads 20 tokens at most\. Ask for at most 20"):
        prepare(config_of(near_sighted, rows, max_length=21, **layers))


def test_a_default_that_became_less_for_the_teacher_becomes_still_less_for_the_student(
    near_sighted: Path, tiny: Tiny, rows: Path, tmp_path: Path
) -> None:
    teacher = Path(shutil.copytree(tiny("bert"), tmp_path / "teacher"))
    config = json.loads((teacher / "tokenizer_config.json").read_text())
    (teacher / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 40}))
    settings = {"student_base_model": str(near_sighted), "teacher_target_layers": 3, "student_target_layers": 3}
    assert prepare(config_of(teacher, rows, **settings)).config.max_length == 20
    with pytest.raises(UserError, match=r"--max_length 39: .* reads 20 tokens at most"):
        prepare(config_of(teacher, rows, max_length=39, **settings))


def test_albert_s_one_set_of_weights_is_spoken_of(tiny: Tiny, rows: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepared = prepare(config_of(tiny("albert"), rows))
    assert (prepared.config.teacher_target_layers, prepared.config.student_target_layers) == (1, 1)
    note, *others = warnings_of(caplog)
    assert note == "albert shares 1 set of weights among its 3 layers, so LoRA acts on all of them"
    assert len(others) == 2


def test_the_budget_is_a_gate_and_what_it_counts_is_logged(
    tiny: Tiny, rows: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"teacher_target_layers": 2, "student_target_layers": 2, "student_lora_r": 4}
    with caplog.at_level(logging.INFO, "lora_distill"):
        prepare(config_of(tiny("roberta"), rows, **settings))
    assert "student: 2,691 trainable parameters of 1,000,000 allowed (LoRA 1,536, head 1,155)" in caplog.messages
    with pytest.raises(UserError, match=r"2,691 trainable parameters, 1 over its budget of 2,690"):
        prepare(config_of(tiny("roberta"), rows, student_budget=2690, **settings))
    # The teacher has none.
    prepare(config_of(tiny("roberta"), rows, student_budget=2691, teacher_lora_r=16, **settings))


def test_a_teacher_s_rank_that_does_not_fit_is_found_as_well(tiny: Tiny, rows: Path) -> None:
    with pytest.raises(UserError, match="rank 64"):
        prepare(config_of(tiny("roberta"), rows, teacher_lora_r=64, teacher_target_layers=1, student_target_layers=1))


def test_splits_are_cut_counted_and_in_the_rows_order(tiny: Tiny, rows: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = config_of(tiny("roberta"), rows, max_length=8, teacher_target_layers=1, student_target_layers=1)
    prepared = prepare(config)
    with caplog.at_level(logging.INFO, "lora_distill"):
        splits = prepared.tokenised(tiny("roberta"), prepared.base.fingerprint, prepared.dataset.splits())
        prepared.tokenised(tiny("roberta"), prepared.base.fingerprint, prepared.dataset.splits())  # at hand
    dataset = prepared.dataset
    for name, split in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test)):
        assert len(splits[name]) == len(split)
    total = len(dataset.train) + len(dataset.validation) + len(dataset.test)
    (line,) = (message for message in caplog.messages if "were cut" in message)
    assert re.fullmatch(rf"\d+ of {total} texts are longer than 8 tokens and were cut", line)


def test_a_depth_and_the_layers_adapted_in_it_have_bounds_and_nothing_is_written_where_they_are_passed(
    tiny: Tiny, rows: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"output_dir": str(tmp_path / "out"), "student_target_layers": 2}
    for changes, said in (
        ({"base_depth": 4}, r"--base_depth 4: .* has 3 layers\. Ask for at most 3\."),
        ({"base_depth": 1}, r"--student_target_layers 2: .* has 1 layer with --base_depth 1\. Ask for at most 1\."),
        ({"base_depth": 2, "student_budget": 99}, "over its budget of 99"),
    ):
        with pytest.raises(UserError, match=said):
            prepare(config_of(tiny("roberta"), rows, **asked, **changes))
    with pytest.raises(UserError, match=r"--base_depth: '0' .*greater than or equal to 1"):
        make_config({"base_depth": "0"}, {"base_depth": "--base_depth"})
    assert not (tmp_path / "out").exists()
    caplog.clear()
    prepared = prepare(config_of(tiny("roberta"), rows, base_depth=2, **asked))
    assert warnings_of(caplog) == [
        f"{tiny('roberta')} has 2 layers with --base_depth 2, so the default teacher_target_layers of 8 becomes 2"
    ]
    assert prepared.base.folder.is_relative_to(tmp_path / "out")
    assert prepared.base.whole.folder == tiny("roberta")


def test_few_rows_get_the_epochs_that_the_least_steps_take(
    tiny: Tiny, rows: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"num_epochs": 2, "teacher_num_epochs": 3, "batch_size": 8}
    base = tiny("roberta")

    def epochs(**more: object) -> list[int]:
        config = prepare(config_of(base, rows, **asked, **more)).config
        assert prepare(config).config == config  # as where it is resumed
        return [config.own("num_epochs", role) for role in ("teacher", "student", "control")]

    assert epochs() == epochs(min_steps=1) == [3, 2, 2]
    steps = -(-len(prepare(config_of(base, rows)).dataset.train) // 8)
    with caplog.at_level(logging.INFO, "lora_distill"):
        assert epochs(min_steps=4 * steps + 1) == [5, 5, 5]
    assert f"teacher: 3 epochs of {steps} steps become 5, for --min_steps {4 * steps + 1}" in caplog.messages
    more = {"unlabelled": str(rows), "labels_per_class": 4, "labelled_per_batch": 4}
    teacher, student, control = epochs(min_steps=30, **more)
    assert teacher == control > student >= 2  # who reads no more than the labels makes fewer steps
    folds = {"teacher_fit": "crossfit", "teacher_folds": 2, "batch_size": 4}
    teachers = trainings(prepare(config_of(base, rows, min_steps=40, **folds)))["teacher"]
    assert isinstance(teachers, SeveralTeachers)
    member = teachers.members[0].training
    fewest = len(member.labels) - (member.labels < 0).sum()
    assert fewest < len(prepare(config_of(base, rows)).dataset.train)
    assert -(-fewest // 4) * member.settings.num_epochs >= 40
    config = prepare(config_of(base, rows, min_steps=99, no_control=True)).config
    assert config.control_num_epochs is None
    check_combinations(config)


def test_the_config_says_what_is_really_used(tiny: Tiny, rows: Path) -> None:
    config = prepare(config_of(tiny("roberta"), rows)).config
    assert config.device != "auto"
    assert config.precision in ("fp32", "bf16")


# Defaults that cannot be had


def unavailable(*_: object, **__: object) -> BaseModel:
    raise Unavailable("model roberta-base cannot be had: no connection.\nWhat works: minilm.")


def only_others_available(monkeypatch: pytest.MonkeyPatch, instead: Path) -> None:
    """No hub; what the fallback names is the tiny encoder."""

    def resolve(name: str, revision: str | None = None) -> BaseModel:
        return resolve_base_model(str(instead)) if name == "minilm" else unavailable()

    monkeypatch.setattr(preparation, "resolve_base_model", resolve)


def test_a_default_falls_back_with_one_loud_line_that_the_results_get_too(
    tiny: Tiny, rows: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    only_others_available(monkeypatch, tiny("roberta"))
    settings = {"dataset": str(rows), "teacher_target_layers": 1, "student_target_layers": 1}
    prepared = prepare(make_config(settings, {}))
    (line,) = prepared.fallbacks
    assert line == (
        "the default base_model roberta-base could not be had; minilm was used instead"
        " (model roberta-base cannot be had: no connection)"
    )
    assert warnings_of(caplog) == [line]
    assert prepared.config.base_model == "minilm"


def test_what_was_named_is_never_substituted_not_even_when_it_is_the_default(
    tiny: Tiny, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_others_available(monkeypatch, tiny("roberta"))
    for name in ("roberta-base", "some/other"):
        with pytest.raises(Unavailable):
            prepare(config_of(name, rows))


def test_the_default_data_fall_back_and_data_that_were_named_do_not(
    tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"base_model": str(tiny("roberta")), "teacher_target_layers": 1, "student_target_layers": 1}
    prepared = prepare(make_config(settings, {}))  # the tests' process has no hub
    assert (prepared.config.dataset, prepared.dataset.source["kind"]) == ("bbc_news", "packaged")
    assert warnings_of(caplog) == prepared.fallbacks
    assert prepared.fallbacks[0].startswith("the default dataset ag_news could not be had; bbc_news was used instead (")
    for name in ("ag_news", "some/data"):
        with pytest.raises(Unavailable, match="HF_HUB_OFFLINE is set"):
            prepare(make_config(settings | {"dataset": name}, {}))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_share_of_a_split_that_the_data_bring_is_refused(split: str, tiny: Tiny, rows: Path, tmp_path: Path) -> None:
    share = {f"{split}_fraction": 0.3, "teacher_target_layers": 1, "student_target_layers": 1}
    assert len(getattr(prepare(config_of(tiny("roberta"), rows, **share)).dataset, split)) > 12
    write_rows(tmp_path / "data" / "train.csv", 60)
    write_rows(tmp_path / "data" / f"{split}.csv", 30, seed=1)
    with pytest.raises(UserError, match=rf"--{split}_fraction 0.3: .*data has a {split} split of its own"):
        prepare(config_of(tiny("roberta"), tmp_path / "data", **share))
    share[f"{split}_fraction"] = float(Config.model_fields[f"{split}_fraction"].default)  # as config.yaml names it
    prepare(config_of(tiny("roberta"), tmp_path / "data", **share))


def test_so_many_labelled_rows_that_others_have_room(tiny: Tiny, rows: Path, tmp_path: Path) -> None:
    mixed = {"unlabelled": str(write_rows(tmp_path / "texts.csv", 20, seed=1)), "batch_size": 2}
    layers = {"teacher_target_layers": 1, "student_target_layers": 1}
    assert prepare(config_of(tiny("roberta"), rows, **mixed, **layers)).config.labelled_per_batch == 1
    with pytest.raises(UserError, match=r"--labelled_per_batch 2: a batch has 2 rows, .* Ask for at most 1"):
        prepare(config_of(tiny("roberta"), rows, labelled_per_batch=2, **mixed, **layers))


def test_classes_that_differ_by_case_only_are_warned_of(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x.csv").write_text("text,label\n" + "".join(f"word {n},{'aAb'[n % 3]}\n" for n in range(60)))
    prepare(config_of(tiny("roberta"), tmp_path / "x.csv", teacher_target_layers=1, student_target_layers=1))
    assert warnings_of(caplog) == ["labels: 'A', 'a' differ by case only and are different classes"]


def test_a_name_is_put_on_what_is_prepared(tiny: Tiny, rows: Path) -> None:
    prepared = prepare(config_of(tiny("roberta"), rows))
    named: Prepared = prepared.named("mine")
    assert (prepared.config.exp_name, named.config.exp_name) == ("", "mine")
    assert named.dataset is prepared.dataset
