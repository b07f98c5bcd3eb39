import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, GPT2ForSequenceClassification

from lora_distill.errors import UserError
from lora_distill.model.adapter import AdapterSettings, attach_adapter, load_classifier
from lora_distill.model.base import has_changed, resolve_base_model
from lora_distill.model.given_teacher import GivenTeacher, check_order, match_labels, open_again, open_teacher
from lora_distill.model.layers import find_target_modules
from lora_distill.model.saved_adapter import save_adapter

Tiny = Callable[[str], Path]
OURS = ["Business", "Sci/Tech", "Sports", "World"]
THEIRS = ["World", "Sports", "Business", "Sci/Tech"]
UNNAMED = ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]


# Labels


@given(st.lists(st.text(min_size=1), min_size=2, max_size=8, unique=True).flatmap(st.permutations))
def test_labels_fit_by_name_in_any_order(ours: list[str]) -> None:
    theirs = sorted(ours)
    columns, by_index = match_labels(theirs, ours, {})
    assert [theirs[column] for column in columns] == ours
    assert not by_index


@given(st.permutations(["world", "SPORTS", "business", "sci/TECH"]))
def test_labels_fit_in_other_cases(theirs: list[str]) -> None:
    columns, by_index = match_labels(theirs, OURS, {})
    assert [theirs[column].casefold() for column in columns] == [name.casefold() for name in OURS]
    assert not by_index


def test_cases_that_tell_labels_apart_are_kept_apart() -> None:
    columns, _ = match_labels(["us", "US"], ["US", "us"], {})
    assert columns.tolist() == [1, 0]
    with pytest.raises(UserError, match="other labels"):
        match_labels(["Us", "uS"], ["US", "us"], {})


def test_labels_without_names_are_taken_in_the_data_s_order_and_loudly(caplog: pytest.LogCaptureFixture) -> None:
    columns, by_index = match_labels(UNNAMED, OURS, {})
    assert (columns.tolist(), by_index) == ([0, 1, 2, 3], True)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "LABEL_0 = Business, LABEL_1 = Sci/Tech, LABEL_2 = Sports, LABEL_3 = World" in warning.getMessage()


def test_data_whose_labels_are_such_names_themselves_fits_by_name(caplog: pytest.LogCaptureFixture) -> None:
    columns, by_index = match_labels(UNNAMED, UNNAMED[::-1], {})
    assert (columns.tolist(), by_index) == ([3, 2, 1, 0], False)
    assert caplog.records == []


@pytest.mark.parametrize(
    "theirs",
    [
        ["World", "Sports"],
        [*OURS, "Other"],
        ["World", "Sports", "Business", "Arts"],
        UNNAMED[:3],
        [*UNNAMED[:3], "World"],
    ],
)
def test_other_labels_are_refused_with_both_lists(theirs: list[str]) -> None:
    with pytest.raises(UserError) as error:
        match_labels(theirs, OURS, {})
    message = str(error.value)
    quoted = [", ".join(map(repr, names)) for names in (theirs, OURS)]
    assert f"The teacher's: {quoted[0]}. The data's: {quoted[1]}." in message
    assert "--teacher_label_map" in message
    assert "teacher_label_map: {theirs: ours}" in message
    assert len(message.splitlines()) <= 3


def test_a_map_settles_it() -> None:
    columns, by_index = match_labels(UNNAMED, OURS, dict(zip(UNNAMED, THEIRS, strict=True)))
    assert [THEIRS[column] for column in columns] == OURS
    assert not by_index
    columns, _ = match_labels(["World", "Sports", "Money", "Sci/Tech"], OURS, {"Money": "Business"})
    assert columns.tolist() == [2, 3, 1, 0]


@pytest.mark.parametrize(
    ("label_map", "unknown"), [({"Mars": "World"}, "'Mars'"), ({"LABEL_0": "Mars", "LABEL_1": "World"}, "'Mars'")]
)
def test_a_map_with_labels_that_are_not_there(label_map: dict[str, str], unknown: str) -> None:
    with pytest.raises(
        UserError, match=rf"--teacher_label_map: {unknown} is no such label\.\nThe teacher's: 'LABEL_0'"
    ) as error:
        match_labels(UNNAMED, OURS, label_map)
    assert "--config file, as teacher_label_map: {theirs: ours}" in str(error.value)


def test_a_map_that_gives_two_labels_one_name() -> None:
    with pytest.raises(UserError, match="other labels"):
        match_labels(THEIRS, OURS, {"Sports": "World"})


# Order


def teacher(*, by_index: bool) -> GivenTeacher:
    return GivenTeacher("there", "/there", None, Path("/there"), None, UNNAMED, np.arange(4), by_index, "")


def logits_that_say(predicted: list[int]) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[predicted]


def test_an_order_that_does_worse_than_the_commonest_class_is_refused() -> None:
    labels = np.array([0, 0, 1, 2, 3])
    with pytest.raises(UserError, match=r"20\.0%.*40\.0%.*\n.*--teacher_label_map LABEL_0="):
        check_order(teacher(by_index=True), logits_that_say([1, 1, 2, 3, 3]), labels)
    check_order(teacher(by_index=True), logits_that_say([0, 1, 1, 3, 2]), labels)  # as good as the commonest class


# Folders


@pytest.fixture(scope="module")
def whole_source(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    return save_whole(tiny("distilbert"), folder, THEIRS)


def save_whole(base: Path, folder: Path, names: list[str]) -> Path:
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(names), id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.fixture
def whole(whole_source: Path, tmp_path: Path) -> Path:
    """A whole classifier that the test may break."""
    return shutil.copytree(whole_source, tmp_path / "whole")


@pytest.fixture
def adapter(tiny: Tiny, tmp_path: Path) -> Path:
    """A stranger's adapter, with what plain PEFT saves."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny("bert"), num_labels=4)
    settings = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False)
    get_peft_model(model, settings).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Path:
    """What a run of ours leaves, as far as a teacher is concerned."""
    base = resolve_base_model(str(tiny("roberta")))
    model = attach_adapter(load_classifier(base, THEIRS, 0), AdapterSettings(2, 4, 1, (), 0.1, "last"), 0)
    (tmp_path / "run" / "teacher").mkdir(parents=True)
    save_adapter(model, base, THEIRS, tmp_path / "run" / "teacher")
    (tmp_path / "run" / "environment.json").write_text("{}")
    return tmp_path / "run"


def test_a_whole_classifier(whole: Path) -> None:
    found = open_teacher(str(whole), OURS, {})
    assert (found.base, found.labels, found.tokenizer_folder) == (None, THEIRS, whole)
    assert [THEIRS[column] for column in found.columns] == OURS
    model, by_hand = found.load(), AutoModelForSequenceClassification.from_pretrained(whole).eval()
    batch = AutoTokenizer.from_pretrained(whole)(["A text.", "Another one, longer."], padding=True, return_tensors="pt")
    assert torch.equal(model(**batch).logits, by_hand(**batch).logits)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert next(model.parameters()).dtype == torch.float32


def test_half_precision_is_read_in_full(tiny: Tiny, tmp_path: Path) -> None:
    folder = save_whole(tiny("bert"), tmp_path / "half", THEIRS)
    AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    assert {p.dtype for p in open_teacher(str(folder), OURS, {}).load().parameters()} == {torch.float32}


def test_a_run_of_ours_and_its_adapter_by_itself(run: Path, tiny: Tiny) -> None:
    from_run, by_itself = (open_teacher(str(folder), OURS, {}) for folder in (run, run / "teacher"))
    assert from_run.labels == THEIRS
    assert from_run.base
    assert from_run.base.folder == from_run.tokenizer_folder == tiny("roberta")
    assert from_run.fingerprint == by_itself.fingerprint
    assert not from_run.load().training


def test_a_stranger_s_adapter_has_as_many_labels_as_its_head_and_no_names(adapter: Path, tiny: Tiny) -> None:
    found = open_teacher(str(adapter), OURS, {})
    assert (found.labels, found.matched_by_index) == (UNNAMED, True)
    assert found.base
    assert found.base.folder == tiny("bert")
    with pytest.raises(UserError, match=r"'LABEL_0', 'LABEL_1', 'LABEL_2', 'LABEL_3'\. The data's: 'a', 'b'"):
        open_teacher(str(adapter), ["a", "b"], {})


@pytest.mark.parametrize("family", ["roberta", "distilbert", "deberta-v2", "mpnet", "electra", "modernbert", "albert"])
def test_the_number_of_labels_is_found_whatever_the_head_looks_like(family: str, tiny: Tiny, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny(family), num_labels=5)
    settings = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=find_target_modules(model))
    get_peft_model(model, settings).save_pretrained(tmp_path)
    assert open_teacher(str(tmp_path), list("abcde"), {}).labels == [f"LABEL_{index}" for index in range(5)]


def refusal(location: Path | str) -> str:
    with pytest.raises(UserError) as error:
        open_teacher(str(location), OURS, {}).load()
    message = str(error.value)
    assert message.startswith("--teacher_checkpoint ")
    assert len(message.splitlines()) <= 3
    return message


def test_what_is_no_teacher(tmp_path: Path, tiny: Tiny, whole: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "absent")
    assert "no such folder" in refusal("./absent")
    assert "is a file" in refusal(whole / "model.safetensors")
    (tmp_path / "empty").mkdir()
    assert "holds neither adapter_config.json nor config.json" in refusal(tmp_path / "empty")
    assert "is a RobertaForMaskedLM, not a finished classifier" in refusal(tiny("roberta"))
    settings = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps(settings | {"problem_type": "multi_label_classification"}))
    assert "its problem_type is 'multi_label_classification', and a teacher gives each text one" in refusal(whole)
    assert "cannot be read" in refusal("x" * 5000)
    unreachable = refusal("some/teacher")  # the tests' process has no hub
    assert "no such folder, and the hub: model some/teacher cannot be had: HF_HUB_OFFLINE is set" in unreachable


def test_a_run_without_a_teacher_of_its_own(run: Path) -> None:
    (run / "teacher" / "adapter_config.json").unlink()
    assert "holds no teacher of its own" in refusal(run)


def test_a_whole_classifier_that_is_not_whole(whole: Path) -> None:
    weights = load_file(whole / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
    assert "its weights lack classifier.weight; it is no finished classifier" in refusal(whole)
    (whole / "model.safetensors").write_bytes(b"cut")
    assert "cut short or broken" in refusal(whole)
    (whole / "model.safetensors").unlink()
    assert "no weights in safetensors" in refusal(whole)


def test_a_head_of_another_size_than_its_config_says(whole: Path) -> None:
    config = json.loads((whole / "config.json").read_text())
    config["id2label"]["4"], config["label2id"]["Other"] = "Other", 4
    (whole / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"its weights hold classifier\..* in another size than its config"):
        open_teacher(str(whole), [*OURS, "Other"], {}).load()


def test_a_config_that_no_model_can_be_built_from(whole: Path) -> None:
    edit(whole / "config.json", activation="rolu")
    with pytest.raises(UserError, match=r"--teacher_checkpoint .*cannot be loaded: .*rolu"):
        open_teacher(str(whole), OURS, {}).load()


def test_a_whole_classifier_without_a_tokenizer_or_with_a_broken_config(whole: Path) -> None:
    for file in whole.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer" in refusal(whole)
    (whole / "config.json").write_text("{")
    assert "config.json cannot be used" in refusal(whole)


def test_a_decoder_needs_a_padding_token(tiny: Tiny, tmp_path: Path) -> None:
    settings = {"vocab_size": 600, "n_embd": 8, "n_layer": 1, "n_head": 1, "bos_token_id": 1, "eos_token_id": 1}
    GPT2ForSequenceClassification(GPT2Config(**settings, num_labels=4)).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny("modernbert"))
    tokenizer.save_pretrained(tmp_path)
    batch = tokenizer(["A text.", "Another one, longer."], padding=True, return_tensors="pt")
    assert open_teacher(str(tmp_path), UNNAMED, {}).load()(**batch).logits.shape == (2, 4)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert "has no padding token" in refusal(tmp_path)


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_broken_adapters(adapter: Path, tmp_path: Path) -> None:
    edit(adapter / "adapter_config.json", task_type="CAUSAL_LM")
    assert "its task_type is 'CAUSAL_LM'; a teacher needs SEQ_CLS" in refusal(adapter)
    edit(adapter / "adapter_config.json", task_type="SEQ_CLS", base_model_name_or_path=str(tmp_path / "gone"))
    missing = refusal(adapter)
    assert "is an adapter, and the model that it was trained on cannot be had:" in missing
    assert f"{tmp_path / 'gone'}: no such folder" in missing
    assert "base_model_name_or_path" in missing
    edit(adapter / "adapter_config.json", base_model_name_or_path=None)
    assert "cannot be had" in refusal(adapter)
    (adapter / "adapter_config.json").write_text("[]")
    assert "adapter_config.json holds no settings" in refusal(adapter)
    (adapter / "adapter_config.json").write_text("{")
    assert "adapter_config.json cannot be read" in refusal(adapter)


def test_labels_that_name_their_base_model_in_no_way_of_ours_leave_it_to_the_adapter(adapter: Path) -> None:
    labels = {"num_labels": 4, "id2label": dict(enumerate(OURS)), "base_model": "a name"}
    (adapter / "labels.json").write_text(json.dumps(labels))
    assert open_teacher(str(adapter), OURS, {}).labels == OURS


def test_adapters_without_weights_head_or_labels(adapter: Path) -> None:
    (adapter / "labels.json").write_text('{"num_labels": 4}')
    assert "labels.json holds no label names" in refusal(adapter)
    (adapter / "labels.json").unlink()
    weights = {n: t for n, t in load_file(adapter / "adapter_model.safetensors").items() if "classifier" not in n}
    save_file(weights, adapter / "adapter_model.safetensors")
    assert "no classification head" in refusal(adapter)
    (adapter / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors cannot be read" in refusal(adapter)


def test_an_adapter_that_does_not_fit_its_base(adapter: Path, tiny: Tiny) -> None:
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(tiny("roberta")))
    with pytest.raises(UserError, match=r"adapter .*(does not fit|lacks|has no place)"):
        open_teacher(str(adapter), OURS, {}).load()


# The same teacher again


def test_the_fingerprint_knows_all_that_the_logits_depend_on(whole: Path, adapter: Path) -> None:
    def fingerprints() -> list[str]:
        return [open_teacher(str(folder), OURS, {}).fingerprint for folder in (whole, adapter)]

    before = fingerprints()
    parts = [part for folder in (whole, adapter) for part in open_teacher(str(folder), OURS, {}).recorded()["models"]]
    (whole / "README.md").write_text("No part of it.")
    (adapter / "README.md").write_text("No part of it.")
    assert fingerprints() == before
    assert [has_changed(part) for part in parts] == [False] * 3
    edit(adapter / "adapter_config.json", lora_alpha=99)
    tokenizer = whole / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    after = fingerprints()
    assert after[0] != before[0]
    assert after[1] != before[1]
    assert [has_changed(part) for part in parts] == [True, True, False]  # the adapter's base is as it was


def test_a_recorded_teacher_is_found_again_from_anywhere_and_not_when_it_has_changed(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = open_teacher("whole", OURS, {})
    monkeypatch.chdir("/")
    recorded = json.loads(json.dumps(first.recorded()))
    again = open_again(recorded, OURS, {})
    assert (again.location, again.folder, again.fingerprint) == ("whole", whole, first.fingerprint)
    edit(whole / "config.json", dropout=0.2)
    with pytest.raises(UserError, match="has changed since"):
        open_again(recorded, OURS, {})
