"""What a command writes as a folder, it writes alone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lora_distill.deployment.export import _Exporting


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
