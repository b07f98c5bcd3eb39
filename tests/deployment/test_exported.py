"""How an exported model is opened on this processor or another."""

from pathlib import Path

import pytest

from lora_distill.deployment.exported import _products_may_overflow


@pytest.mark.parametrize(
    ("flags", "may_overflow"),
    [
        ("fpu avx2 avx512f avx512_vnni", False),
        ("fpu avx2 avx_vnni serialize", False),
        ("fpu avx2 avx512f avx512_vbmi2", True),
        ("fpu avx2 avx_vnni_int16", True),
    ],
)
def test_which_processors_products_of_bytes_may_overflow(flags: str, may_overflow: bool, tmp_path: Path) -> None:
    told = f"processor\t: 0\nmodel name\t: avx512_vnni\nflags\t\t: {flags}\nbugs\t\t: none\n"
    (tmp_path / "cpuinfo").write_text(told * 2)
    assert _products_may_overflow(tmp_path / "cpuinfo") is may_overflow


def test_a_processor_that_is_not_known_may_overflow(tmp_path: Path) -> None:
    assert _products_may_overflow(tmp_path / "none")
