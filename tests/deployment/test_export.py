"""What a command writes as a folder, it writes alone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lora_distill.deployment.export import UnfaithfulError, _Exporting, export_role


def test_two_exports_to_one_place_come_one_after_the_other(tmp_path: Path) -> None:
    inside, place = threading.Semaphore(), tmp_path / "model"

    def write(name: str) -> dict[str, Any]:
        def save(_form: str, folder: Path) -> None:
            assert inside.acquire(blocking=False)
            (folder / name).write_text("")
            time.sleep(0.2)
            inside.release()

        slow: Any = SimpleNamespace(
            _about=lambda form: {"form": form}, _save=save, _verify=lambda *_: {"faults": []}, _card=lambda *_: ""
        )
        return _Exporting.write(slow, "onnx", place, force=False)

    with ThreadPoolExecutor() as pool:
        written = list(pool.map(write, "abc"))
    others = ["README.md", "classifier.json", "verification.json"]
    assert [sorted(each["files"]) for each in written] == [sorted([*others, name]) for name in "abc"]
    assert list(tmp_path.iterdir()) == [place]
    assert len(list(place.iterdir())) == 4


def test_where_one_form_is_unfaithful_the_others_are_kept_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(form: str, _: Path, *, force: bool) -> dict[str, Any]:
        if form == "onnx-int8" and not force:
            raise UnfaithfulError("onnx-int8: it is off.")
        return {}

    monkeypatch.setattr(_Exporting, "of", lambda *_: SimpleNamespace(write=write))
    run: Any = SimpleNamespace(results_of=lambda _: {})
    with pytest.raises(UnfaithfulError) as error:
        export_role(run, "student", {"merged": tmp_path / "one", "onnx-int8": tmp_path / "two"})
    assert str(error.value).splitlines() == [
        "onnx-int8: it is off.",
        "Nothing of it was kept. --force keeps it all the same.",
        f"Written to {tmp_path / 'one'}",
    ]
