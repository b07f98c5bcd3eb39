"""A result is known by the code that decides its bits."""

from pathlib import Path

import pytest

import lora_distill
from lora_distill.training import outcome

ROOT = Path(lora_distill.__file__).parent
DECIDING = [file for part in ("data", "model", "training") for file in (ROOT / part).rglob("*.py")]


def test_a_change_of_any_file_that_decides_is_another_source(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ROOT / "training" / "losses" / "kl.py" in DECIDING
    before, read_text = outcome._source.__wrapped__(), Path.read_text
    for file in [*DECIDING, ROOT / "seeding.py", ROOT / "evaluation" / "calibration.py"]:
        with monkeypatch.context() as patch:
            patch.setattr(
                Path,
                "read_text",
                lambda path, encoding, changed=file: read_text(path, encoding) + "#" * (path == changed),
            )
            assert outcome._source.__wrapped__() != before, file


def test_versions_are_of_all_that_compute() -> None:
    assert {"numpy", "scipy", "tokenizers", "torch", "transformers", "peft", "source"} <= outcome.versions().keys()
