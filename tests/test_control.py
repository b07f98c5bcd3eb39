import pytest

from lora_distill.config import make_config
from lora_distill.control import apart


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        ({"control_num_epochs": 3, "num_epochs": 3}, ""),
        ({"learn_from": "both"}, " but for what the control itself says, from which the student may learn"),
        ({"control_learning_rate": 1e-3}, " but for the learning rate"),
        (
            {"control_learning_rate": 1e-3, "control_num_epochs": 30, "unlabelled": "texts.txt"},
            " but for the learning rate, the number of epochs and the unlabelled texts",
        ),
    ],
)
def test_what_a_control_differs_in_beside_the_teacher(settings: dict[str, object], said: str) -> None:
    assert apart(make_config(settings, {}).model_dump()) == said
