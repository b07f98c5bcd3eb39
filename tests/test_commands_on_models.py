"""What the commands on finished models say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_distill.data import line_windows
from lora_distill.deployment.classifier import Classifier
from tests.conftest import Run
from tests.deployment.exported import write_exported

KEPT = "What was labelled is kept; the same command"
NOTHING_KEPT = "Nothing is kept yet: that is done for 1,024 rows at a time."


@pytest.mark.parametrize(
    ("windows", "call", "said"),
    [
        (1, ["out.csv"], f"stopped. {KEPT} goes on."),
        (1, ["out.csv", "--overwrite"], f"stopped. {KEPT} without --overwrite goes on."),
        (0, ["out.csv"], f"stopped. {NOTHING_KEPT}"),
        (0, ["-"], "stopped."),
    ],
)
def test_something_is_kept_only_of_a_file_and_from_its_first_window_on(
    windows: int, call: list[str], said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_exported(tmp_path / "model")
    Path("in.csv").write_text("text\n" + "a tulip\n" * 6)
    Path("out.csv").write_text("old")
    answer, answered = Classifier.logits, iter(range(windows))

    def stop(self: Classifier, *asked: Any) -> NDArray[np.float32]:  # noqa: ANN401 - as the classifier's
        if next(answered, None) is None:
            raise KeyboardInterrupt
        return answer(self, *asked)

    if "--overwrite" not in call:
        Path("out.csv").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(line_windows, "WINDOW_ROWS", 2)
        patched.setattr(Classifier, "logits", stop)
        code, out, err = run("predict", "model", "in.csv", "--output", *call)
    assert (code, out, err) == (130, "", f"error: {said}\n")
    if call == ["-"]:
        return
    code, out, err = run("predict", "model", "in.csv", "--output", "out.csv")
    assert (code, out) == (0, "6 rows labelled: out.csv\n")
    assert ("goes on after 2 rows" in err) == (KEPT in said)
