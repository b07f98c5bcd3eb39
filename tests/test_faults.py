"""What is wrong with settings, in words."""

import pytest

from lora_distill.config import Config
from lora_distill.errors import UserError
from lora_distill.faults import find_faults, suggest
from tests.test_config import flags


def test_a_value_is_shown_as_yaml_gave_it() -> None:
    with pytest.raises(UserError, match="--dataset: 5 should be a valid string"):
        flags(dataset=5)
    with pytest.raises(UserError, match=r"--alpha: \[1\] should be"):
        flags(alpha=[1])


def test_what_is_allowed_is_told_in_words() -> None:
    for name, value, told in (
        ("alpha", "abc", "'abc' is no number; it must be at least 0 and at most 1. It is: weight of"),
        ("batch_size", "2.5", "'2.5' is no whole number; it must be at least 1. It is: rows"),
        ("max_train_rows", "few", "'few' is no whole number. It is: train on"),
        ("no_control", "perhaps", "'perhaps' is neither true nor false. It is: do not"),
        ("cache_limit", "12 apples", "'12 apples' is no size. It is: bytes (or 500MB"),
        ("device", "gpu", "'gpu' is not allowed. It is: auto, cpu, mps, cuda or cuda:N."),
    ):
        (fault,) = find_faults(Config, {name: value}, {})
        assert fault.startswith(f"{name}: {told}")


def test_no_more_than_three_lines_however_many_faults() -> None:
    with pytest.raises(UserError) as error:
        flags(alpha="2", temperature="0", batch_size="0", num_epochs="0", seed="x")
    assert str(error.value).count("\n") == 2
    assert "3 more" in str(error.value)


def test_an_unknown_setting_is_told_with_its_nearest() -> None:
    assert find_faults(Config, {"temprature": 2.0}, {"temprature": "x.yaml, line 3: temprature"}) == [
        "x.yaml, line 3: temprature: no such setting; did you mean temperature?"
    ]
    for unlike_all in ("zzzz", "experiments"):
        assert suggest(unlike_all, Config.model_fields) == ""
