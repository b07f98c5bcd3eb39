import re
from pathlib import Path
from typing import Any

import pytest

from lora_distill.cache import MOST
from lora_distill.config import Config, make_config
from lora_distill.errors import UserError
from lora_distill.yaml_file import read_yaml


def flags(**values: Any) -> Config:  # noqa: ANN401 - any setting
    return make_config(values, {name: f"--{name}" for name in values})


def test_defaults_are_those_of_the_recipe() -> None:
    config = Config()
    assert (config.base_model, config.dataset, config.exp_name) == ("roberta-base", "ag_news", "")
    assert (config.teacher_lora_r, config.teacher_lora_alpha, config.teacher_target_layers) == (16, 32, 8)
    assert (config.student_lora_r, config.student_lora_alpha, config.student_target_layers) == (8, 16, 6)
    assert (config.alpha, config.temperature, config.teacher_checkpoint) == (0.5, 2.0, None)
    assert (config.learning_rate, config.batch_size, config.num_epochs) == (2e-4, 32, 10)
    assert (config.weight_decay, config.warmup_ratio, config.lr_schedule, config.max_grad_norm) == (
        0.01,
        0.06,
        "linear",
        1,
    )
    assert (config.keep_epoch, config.early_stopping_patience, config.student_budget) == ("best", 0, 1_000_000)
    assert (config.output_dir, config.layer_placement) == ("outputs/lora_distillation", "last")


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Config.model_fields.values())


def test_strings_from_flags_become_what_the_setting_holds() -> None:
    config = flags(
        learning_rate="1e-3", max_train_rows="500", target_modules="query, value", teacher_label_map="a=World,b=Sports"
    )
    assert (config.learning_rate, config.max_train_rows) == (1e-3, 500)
    assert config.target_modules == ("query", "value")
    assert config.teacher_label_map == {"a": "World", "b": "Sports"}
    assert flags(student_rank_pattern="10=4, 11=16").student_rank_pattern == {10: 4, 11: 16}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", "-0.1"),
        ("alpha", "1.01"),
        ("alpha", "nan"),
        ("temperature", "0"),
        ("temperature", "-1"),
        ("temperature", "nan"),
        ("temperature", "inf"),
        ("temperature", "1e200"),
        ("learning_rate", "0"),
        ("learning_rate", "fast"),
        ("batch_size", "0"),
        ("batch_size", "2.5"),
        ("student_rank_pattern", "10"),
        ("student_rank_pattern", "10=0"),
        ("student_rank_pattern", "-1=4"),
        ("student_rank_pattern", "10=4,10=5"),
        ("student_rank_pattern", "010=4,10=5"),
        ("student_rank_pattern", "ten=4"),
        ("num_epochs", "0"),
        ("teacher_lora_r", "0"),
        ("student_lora_r", "-8"),
        ("student_target_layers", "0"),
        ("lora_dropout", "1"),
        ("layer_placement", "middle"),
        ("precision", "fp16"),
        ("device", "gpu"),
        ("max_length", "3"),
        ("max_train_rows", "0"),
        ("validation_fraction", "1"),
        ("test_fraction", "0"),
        ("seed", "-1"),
        ("warmup_ratio", "2"),
        ("keep_epoch", "worst"),
        ("teacher_label_map", "World"),
        ("teacher_label_map", "a=World,a=Sports"),
        ("base_model", ""),
        ("output_dir", ""),
        ("teacher_checkpoint", ""),
        ("dataset", "rows\n.csv"),
        ("dataset", "rows\0.csv"),
        ("dataset", "caf\udce9.csv"),  # what the command line makes of bytes that are no UTF-8
        ("exp_name", ".."),
        ("exp_name", "a/b"),
        ("exp_name", "a\\b"),
        ("exp_name", ".artefacts"),
        ("exp_name", "-a"),
        ("exp_name", " "),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_its_name_value_and_meaning(name: str, value: str) -> None:
    with pytest.raises(UserError) as error:
        flags(**{name: value})
    message = str(error.value)
    assert f"--{name}" in message
    assert repr(value) in message
    assert str(Config.model_fields[name].description) in message
    assert "\n" not in message


def test_a_long_name_is_measured_in_bytes() -> None:
    assert flags(exp_name="é" * 100).exp_name == "é" * 100
    with pytest.raises(UserError, match="at most 200 bytes"):
        flags(exp_name="é" * 101)


@pytest.mark.parametrize("name", ["batch_size", "alpha", "dataset", "max_train_rows", "target_modules"])
def test_yaml_s_true_is_no_number_and_no_name(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name}: True is true or false"):
        flags(**{name: True})


def test_the_limit_of_the_cache_is_the_one_that_the_help_tells() -> None:
    (told,) = re.findall(r"at most (\S+),", str(Config.model_fields["cache_limit"].description))
    assert Config(cache_limit=told).cache_limit == MOST


def test_named_settings_are_known_from_defaults() -> None:
    assert "base_model" in flags(base_model="roberta-base").model_fields_set
    assert "base_model" not in flags(alpha="0.5").model_fields_set


def test_yaml_floats_that_yaml_takes_for_strings(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("learning_rate: 1e-3\ntarget_modules: [query, value]\nno_control: true\n")
    config = Config(**read_yaml(file).plain())
    assert (config.learning_rate, config.target_modules, config.no_control) == (1e-3, ("query", "value"), True)


def test_resolved_config_survives_json_and_back() -> None:
    config = flags(target_modules="query,value", teacher_label_map="a=b", max_train_rows="7")
    assert Config(**config.model_dump(mode="json")) == config
