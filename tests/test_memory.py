"""What is asked of glibc, and what it may refuse."""

from types import SimpleNamespace

import pytest

from lora_distill import memory
from lora_distill.memory import GIBI, HALF_A_HEAP, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_memory


@pytest.mark.parametrize(
    ("largest", "asked"), [(GIBI, [GIBI]), (HALF_A_HEAP, [GIBI, HALF_A_HEAP]), (0, [GIBI, HALF_A_HEAP])]
)
def test_a_glibc_that_refuses_is_asked_for_less(
    largest: int, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []

    def mallopt(option: int, value: int) -> int:
        calls.append((option, value))
        return int(option == M_TRIM_THRESHOLD or value <= largest)

    monkeypatch.setattr(memory, "_glibc", lambda: SimpleNamespace(mallopt=mallopt))
    keep_memory()
    assert [value for option, value in calls if option == M_MMAP_THRESHOLD] == asked
    assert (M_TRIM_THRESHOLD in dict(calls)) == (largest > 0)
