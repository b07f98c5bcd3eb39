"""Settings that go together."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_distill.combinations import check_combinations
from lora_distill.config import Config, make_config
from lora_distill.errors import UserError
from lora_distill.presets import PRESETS

SOURCES: list[dict[str, Any]] = [
    {},
    {"teacher_checkpoint": "t"},
    {"teacher_predictions": "p"},
    {"no_control": True},
    {"unlabelled": "texts"},
]


@pytest.mark.parametrize("preset", PRESETS)
def test_it_gives_its_settings_and_what_is_given_wins(preset: str) -> None:
    config = make_config({"preset": preset}, {})
    for name, value in PRESETS[preset].items():  # type: ignore[index] # any name
        found = getattr(config, name)
        assert found == ((value,) if name == "target_modules" else value)
        assert found != getattr(Config(), name), "says nothing"
    mine = make_config({"preset": preset, "alpha": "0.3", "student_base_model": "mine"}, {})
    assert (mine.alpha, mine.student_base_model, mine.num_epochs) == (0.3, "mine", config.num_epochs)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("settings", SOURCES)
def test_it_leaves_out_what_would_have_nothing_to_act_on(preset: str, settings: dict[str, Any]) -> None:
    needed = {"unlabelled": "texts"} if preset == "few_labels" else {}
    config = make_config({"preset": preset, **needed, **settings}, {})
    check_combinations(config)
    given_one = "teacher_checkpoint" in settings or "teacher_predictions" in settings
    assert (config.base_model, config.student_base_model) == (
        ("minilm", None) if given_one else ("roberta-base", "minilm")
    )
    if preset == "few_labels":  # a file need not answer validation, by which these are decided
        assert config.teacher_calibrate == ("teacher_predictions" not in settings)
        assert (config.learn_from == "both") == (not {"teacher_predictions", "no_control"} & set(settings))


@pytest.mark.parametrize("said", [False, "false", "no", 0, True, "true"])
def test_what_is_the_control_s_is_left_out_where_there_is_none_however_that_is_said(said: object) -> None:
    config = make_config({"preset": "few_labels", "unlabelled": "texts", "no_control": said}, {})
    assert config.control_num_epochs == (None if config.no_control else PRESETS["few_labels"]["control_num_epochs"])
    assert config.learn_from == ("teacher" if config.no_control else "both")


@given(st.sampled_from(list(PRESETS)), st.sampled_from(SOURCES))
def test_what_a_run_stores_gives_the_same_again(preset: str, settings: dict[str, Any]) -> None:
    config = Config(preset=preset, **settings)
    named = config.model_dump(mode="json", include=set(config.model_fields_set))
    assert Config(**named) == Config(**config.model_dump(mode="json")) == config
    assert Config(**named).model_fields_set == config.model_fields_set


def test_one_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(UserError, match="--preset: 'small' should be 'small_student' or 'few_labels'"):
        make_config({"preset": "small"}, {"preset": "--preset"})
