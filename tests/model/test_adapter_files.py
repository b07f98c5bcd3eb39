"""One place says what the files of an adapter are called."""

from pathlib import Path

import lora_distill
from lora_distill.hub import MODEL_FILES
from lora_distill.model import adapter_files
from lora_distill.model.adapter_files import ADAPTER_FILES


def test_they_are_named_in_one_place_and_all_of_them_are_fetched() -> None:
    root = Path(lora_distill.__file__).parent
    for name in ADAPTER_FILES:
        named_in = [file for file in root.rglob("*.py") if f'"{name}"' in file.read_text(encoding="utf-8")]
        assert named_in == [Path(adapter_files.__file__)]
    assert set(ADAPTER_FILES) < set(MODEL_FILES)
