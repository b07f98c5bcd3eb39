from pathlib import Path

import pytest

from lora_distill.cache import cache_folder
from lora_distill.deployment.classifier import Classifier
from lora_distill.errors import UserError
from lora_distill.home import expanded
from lora_distill.serving.server import read_key, serve
from lora_distill.serving.settings import ServeSettings

NOBODY_S = "~no-such-user/x"
TOLD = r"~no-such-user/x: there is no such home folder. Give the path without a '~'\.$"


def test_a_home_folder_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/x") == expanded(Path("~/x")) == tmp_path / "x"
    assert expanded("x~") == Path("x~")


def test_that_of_nobody_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=f"^{TOLD}"):
        expanded(NOBODY_S)
    with pytest.raises(UserError, match=f"^model {TOLD}"):
        Classifier.load(NOBODY_S)
    with pytest.raises(UserError, match=f"^model {TOLD}"):
        serve(Path(NOBODY_S), ServeSettings(port=0), print)
    with pytest.raises(UserError, match=f"^--key_file {TOLD}"):
        read_key(NOBODY_S)
    monkeypatch.setenv("LORA_DISTILL_CACHE", NOBODY_S)
    with pytest.raises(UserError, match=rf"^\$LORA_DISTILL_CACHE {TOLD}"):
        cache_folder()
