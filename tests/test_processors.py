import os
from pathlib import Path

import pytest

from lora_distill import processors
from lora_distill.processors import cores


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 8), ("250000 100000", 3), ("50000 100000", 1), ("6400000 100000", 8)]
)
def test_a_container_has_no_more_cores_than_it_has_the_time_of(
    limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(processors, "QUOTA", tmp_path / "cpu.max")
    assert cores() == 8
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert cores() == expected
