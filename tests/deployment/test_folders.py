"""What a folder holds is told by its files, and so is what the folders below it hold."""

from pathlib import Path

import pytest

from lora_distill.deployment.folders import TELLING, check_model
from lora_distill.errors import UserError


@pytest.mark.parametrize("file", TELLING.values())
def test_a_folder_that_may_hold_a_model_passes(file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}")
    check_model(tmp_path)


def test_the_outermost_models_below_are_named_but_none_that_is_hidden_or_deep(tmp_path: Path) -> None:
    for path in ("b/environment.json", "b/student/adapter_config.json", "a/x/y/config.json", "a/x/y/z/config.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("{}")
    for path in (".artefacts/teacher/adapter_config.json", "1/2/3/4/config.json"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("{}")
    with pytest.raises(UserError) as refused:
        check_model(tmp_path)
    assert str(refused.value).splitlines()[1:] == [f"Models below it: '{tmp_path}/a/x/y', '{tmp_path}/b'."]
