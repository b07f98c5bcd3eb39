"""What the commands on finished models say."""

from pathlib import Path

import pytest

from lora_distill.deployment import classifier, predict
from tests.conftest import Run


@pytest.mark.parametrize(
    ("output", "said"),
    [("out.csv", "stopped. What was labelled is kept; the same command goes on."), ("-", "stopped.")],
)
def test_only_of_a_file_that_is_stopped_something_is_kept(
    output: str, said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(classifier.Classifier, "load", lambda _: None)
    monkeypatch.setattr(predict, "Labelling", lambda *_: None)
    for name in ("label_file", "label_stream"):
        monkeypatch.setattr(predict, name, stop)
    Path("in.csv").write_text("text\na\n")
    code, out, err = run("predict", "model", "in.csv", "--output", output)
    assert (code, out, err) == (130, "", f"error: {said}\n")
