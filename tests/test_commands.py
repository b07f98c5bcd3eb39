"""What the command on the cache shows; the others: test_cli.py, test_commands_on_*.py."""

import re
from pathlib import Path

import numpy as np
import pytest

from lora_distill.cache import Cache, Stream
from tests.conftest import Run


def test_the_cache_is_listed_and_cleared(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_DISTILL_CACHE", str(tmp_path / "cache"))
    assert run("cache", "list") == (0, f"{tmp_path / 'cache'}: 0 bytes.\n", "")
    Cache(tmp_path / "cache").add("kind", {}, "part", "bert, 3 rows", {"data": Stream.of(np.zeros(1000))})
    code, out, _ = run("cache", "list")
    assert code == 0
    assert re.search(r"bert, 3 rows +20\d\d-\d\d-\d\d \d\d:\d\d +8 kB", out)
    assert run("cache", "clear") == (0, f"{tmp_path / 'cache'}: 8 kB removed.\n", "")
    assert not list((tmp_path / "cache").iterdir())
    code, _, err = run("cache", "burn")
    assert code == 2
    assert "list" in err
    assert "clear" in err
