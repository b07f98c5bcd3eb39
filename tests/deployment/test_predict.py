"""A file is labelled in windows: its rows, in their order, each with the answer that it would get by itself."""

import csv
import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from lora_distill import progress
from lora_distill.data import line_windows
from lora_distill.data.windows import Source
from lora_distill.deployment import engine
from lora_distill.deployment.classifier import Classifier
from lora_distill.deployment.predict import Counts, Labelling, label_file, label_stream
from lora_distill.errors import UserError
from tests.deployment.exported import WORDS, write_exported

ROWS = 25


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_windows, "WINDOW_ROWS", 4)


@pytest.fixture(autouse=True)
def _propagating() -> Iterator[None]:
    package = logging.getLogger("lora_distill")
    before = package.propagate, package.level, package.handlers
    package.propagate = True
    yield
    package.propagate, package.level, package.handlers = before


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    return Classifier.load(write_exported(tmp_path / "model"), threads=1)


def source_of(tmp_path: Path, rows: int = ROWS) -> Source:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *([n, text(n)] for n in range(rows))])
    return Source(path, "csv", "text")


def text(number: int) -> str:
    return " ".join(WORDS[(number * step) % len(WORDS)] for step in range(1, 2 + number % 7))


def label(labelling: Labelling, source: Source, target: Path, **settings: Any) -> Counts:  # noqa: ANN401 - any of its
    return label_file(labelling, source, target, target.suffix[1:], **settings)


def test_each_row_has_its_own_answer(classifier: Classifier, tmp_path: Path) -> None:
    counts = label(Labelling(classifier, 0.6), source_of(tmp_path), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    texts = [text(number) for number in range(ROWS)]
    probabilities = classifier.predict_proba(texts)
    assert [row["id"] for row in found] == [str(number) for number in range(ROWS)]
    assert [row["text"] for row in found] == texts
    assert [row["label"] for row in found] == classifier.predict(texts).tolist()
    names = [f"probability_{name}" for name in classifier.labels]
    assert (np.array([[row[name] for name in names] for row in found], np.float32) == probabilities).all()
    assert (np.array([row["confidence"] for row in found], np.float32) == probabilities.max(axis=1)).all()
    marked = probabilities.max(axis=1) < 0.6
    assert [row["review"] for row in found] == ["true" if each else "false" for each in marked]
    assert 0 < counts.review == marked.sum() < ROWS
    assert list(found[0]) == ["id", "text", "label", "confidence", "review", *names]


def test_a_class_has_its_own_column_whatever_the_order_of_the_letters(tmp_path: Path) -> None:
    labels = ["space", "10", "9"]
    loaded = Classifier.load(write_exported(tmp_path / "model", labels=labels))
    found = Labelling(loaded).columns(["tulip", "oven", "orbit"])
    assert list(found) == ["label", "confidence", *(f"probability_{label}" for label in labels)]
    assert found["label"].tolist() == labels
    for row, label in enumerate(labels):
        assert found[f"probability_{label}"][row] == found["confidence"][row]


def test_names_that_are_taken_get_a_prefix(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("label,text\nspace,comet\n")
    source = Source(path, "csv", "text")
    with pytest.raises(UserError, match=r"there is a column 'label' already; --prefix .* such as --prefix predicted_"):
        label(Labelling(classifier), source, tmp_path / "out.csv")
    assert not list(tmp_path.glob("out*"))
    label(Labelling(classifier, prefix="predicted_"), source, tmp_path / "out.csv")
    header = (tmp_path / "out.csv").read_text().splitlines()[0]
    assert header.startswith("label,text,predicted_label,predicted_confidence,predicted_probability_garden")


class StoppingClassifier(Classifier):
    """Answers so many windows, and stops as by Ctrl-C."""

    windows = 10**9

    def logits(self, *asked: Any) -> NDArray[np.float32]:  # noqa: ANN401 - as the classifier's
        if not self.windows:
            raise KeyboardInterrupt
        self.windows -= 1
        return super().logits(*asked)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_stopped_after_any_window_it_goes_on_to_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    model, source = write_exported(tmp_path / "model"), source_of(tmp_path)
    assert source.path is not None
    source.path.write_text(source.path.read_text() + "only one column\n")
    whole = tmp_path / f"whole.{suffix}"
    label(Labelling(Classifier.load(model, threads=1)), source, whole)
    answered = 0
    for windows in range(1, 7):
        stopping = StoppingClassifier.load(model, threads=1)
        stopping.windows = windows
        out = tmp_path / f"{windows}.{suffix}"
        with pytest.raises(KeyboardInterrupt):
            label(Labelling(stopping), source, out)
        assert not out.exists()
        going_on = StoppingClassifier.load(model, threads=1)
        assert label(Labelling(going_on), source, out) == Counts(ROWS, 0, 1)
        answered += 10**9 - going_on.windows
        assert out.read_bytes() == whole.read_bytes()
        bad = out.with_name(f"{out.name}.bad.jsonl")
        assert bad.read_bytes() == whole.with_name(f"{whole.name}.bad.jsonl").read_bytes()
    assert answered == sum(7 - windows for windows in range(1, 7))  # no window was answered twice


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_optional_keys_are_columns_also_after_a_kill(suffix: str, tmp_path: Path) -> None:
    path, whole, out = (tmp_path / name for name in ("rows.jsonl", f"whole.{suffix}", f"out.{suffix}"))
    keys: list[dict[str, Any]] = [{}, {"id": 1}, {}, {"note": "n"}]  # as many as a window has rows
    rows = [{"text": text(number)} | keys[number % 4] for number in range(12)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    model, source = write_exported(tmp_path / "model"), Source(path, "jsonl", "text")
    assert label(Labelling(Classifier.load(model, threads=1)), source, whole) == Counts(12, 0, 0)
    stopping = StoppingClassifier.load(model, threads=1)
    stopping.windows = 1
    with pytest.raises(KeyboardInterrupt):
        label(Labelling(stopping), source, out)
    label(Labelling(Classifier.load(model, threads=1)), source, out)
    assert out.read_bytes() == whole.read_bytes()
    if suffix == "csv":
        header, *lines = out.read_text().splitlines()
        assert header.startswith("text,id,note,label,")
        assert [line.split(",")[1:3] for line in lines] == [["", ""], ["1", ""], ["", ""], ["", "n"]] * 3


@pytest.mark.parametrize("about", [{"pairs": True, "segments": True}, {"long_text": "chunk_mean"}])
def test_of_pairs_and_chunks_too(about: dict[str, Any], tmp_path: Path) -> None:
    model, second = write_exported(tmp_path / "model", **about), "other" if "pairs" in about else None
    path = tmp_path / "rows.csv"
    pairs = [(f"{text(n)} {text(n + 1)} {text(2 * n)}", text(n + 3)) for n in range(ROWS)]
    path.write_text("".join(f"{first},{other}\n" for first, other in [("text", "other"), *pairs]))
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    source = Source(path, "csv", "text", text_pair_column=second)
    classifier = Classifier.load(model, threads=1)
    label(Labelling(classifier), source, whole)
    asked = pairs if second else [first for first, _ in pairs]
    with whole.open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == classifier.predict(asked).tolist()
    begin(model, source, out)
    if second:
        with pytest.raises(UserError, match="was begun with another columns"):
            label(Labelling(classifier), replace(source, text_pair_column="text", text_column="other"), out)
    label(Labelling(classifier), source, out)
    assert out.read_bytes() == whole.read_bytes()


def test_progress_is_told_within_a_window(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(line_windows, "WINDOW_ROWS", 100)
    monkeypatch.setattr(engine, "BATCH_TOKENS", 16)
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    progress.log_to_terminal(quiet=False)
    logging.getLogger("lora_distill").propagate = True
    label(Labelling(classifier), source_of(tmp_path), tmp_path / "out.csv")
    told = [re.fullmatch(r".*rows.csv: (\d+) rows, .* (\d+)% done, .*", line) for line in caplog.messages]
    rows, shares = zip(*((int(each[1]), int(each[2])) for each in told if each), strict=True)
    assert len(rows) > 3
    assert list(rows) == sorted(set(rows))
    assert rows[-1] < ROWS
    assert 0 < shares[0] < shares[-1] < 100


def begin(model: Path, source: Source, target: Path) -> None:
    stopping = StoppingClassifier.load(model, threads=1)
    stopping.windows = 2
    with pytest.raises(KeyboardInterrupt):
        label(Labelling(stopping), source, target)


def test_it_goes_on_with_the_same_only(tmp_path: Path) -> None:
    model, source, out = write_exported(tmp_path / "model"), source_of(tmp_path), tmp_path / "out.csv"
    begin(model, source, out)
    classifier = Classifier.load(model)
    for labelling, target, what in (
        (Labelling(Classifier.load(write_exported(tmp_path / "other", temperature=2.0))), out, "model: "),
        (Labelling(classifier, threshold=0.5), out, r"threshold: null; now it is 0\.5\."),
        (Labelling(classifier, prefix="x_"), out, r'columns: \["text", "label", .*; now it is \["text", "x_label", '),
    ):
        with pytest.raises(UserError, match=rf"out\.csv: was begun with another {what}.*\n.*--overwrite"):
            label(labelling, source, target)
    assert source.path is not None
    before = source.path.read_text()
    source.path.write_text(before.replace("0,tulip", "0,comet"))
    with pytest.raises(UserError, match=r"rows.csv: has changed since its first rows were labelled. --overwrite"):
        label(Labelling(classifier), source, out)
    label(Labelling(classifier), source, out, overwrite=True)
    assert "0,comet" in out.read_text()


def test_rows_that_came_since_are_labelled_too(tmp_path: Path) -> None:
    model, source, out = write_exported(tmp_path / "model"), source_of(tmp_path), tmp_path / "out.csv"
    begin(model, source, out)
    source = source_of(tmp_path, ROWS + 5)
    assert label(Labelling(Classifier.load(model)), source, out).labelled == ROWS + 5


def test_bad_rows_stand_apart_and_are_counted(
    classifier: Classifier, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(f'{{"text": "{text(n)}"}}\n{{"text": {n}}}\n' for n in range(10)))
    counts = label(Labelling(classifier), Source(path, "jsonl", "text"), out)
    assert counts == Counts(10, 0, 10)
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == [text(n) for n in range(10)]
    bad = [json.loads(line) for line in (tmp_path / "out.jsonl.bad.jsonl").read_text().splitlines()]
    assert [each["line"] for each in bad] == list(range(2, 22, 2))
    assert bad[1] == {"line": 4, "reason": "the text is '1' (int), not a string", "content": '{"text": 1}\n'}
    assert f"10 rows could not be read: {out}.bad.jsonl says which, and why." in caplog.messages


@pytest.mark.parametrize(("suffix", "labelled"), [("csv", 1), ("jsonl", 1), ("parquet", 2)])
def test_what_text_has_no_place_for_stays_in_parquet(
    suffix: str, labelled: int, classifier: Classifier, tmp_path: Path
) -> None:
    notes = pa.array([b"a", b"\xff"]).view(pa.string())
    parquet.write_table(pa.table({"text": ["tulip", "comet"], "note": notes}), tmp_path / "rows.parquet")
    source = Source(tmp_path / "rows.parquet", "parquet", "text")
    assert label(Labelling(classifier), source, tmp_path / f"out.{suffix}") == Counts(labelled, 0, 2 - labelled)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("text\n", "rows.csv: no rows."),
        ("text,n\n" + "a\n" * 9, "line 2: 1 columns found, 2 expected.\nNone of the first 4 rows can be read:"),
    ],
)
def test_without_a_row_that_can_be_read_nothing_is_written(
    rows: str, told: str, classifier: Classifier, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(rows)
    with pytest.raises(UserError, match=told):
        label(Labelling(classifier), Source(tmp_path / "rows.csv", "csv", "text"), tmp_path / "out.csv")
    assert not list(tmp_path.glob("out*"))


def test_the_input_is_never_the_output(classifier: Classifier, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    with pytest.raises(UserError, match="is the input"):
        label(Labelling(classifier), source, tmp_path / "model" / ".." / "rows.csv", overwrite=True)
    bad = tmp_path / "rows.csv.bad.jsonl"
    bad.write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match=r"rows.csv.bad.jsonl: is the input. Give another --output"):
        label(Labelling(classifier), Source(bad, "jsonl", "text"), tmp_path / "rows.csv", overwrite=True)
    assert bad.read_text() == '{"text": "a"}\n'


def test_standard_output(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = source_of(tmp_path)
    label(Labelling(classifier), source, tmp_path / "out.csv")
    written = io.TextIOWrapper(io.BytesIO())
    assert source.path is not None
    source.path.write_text(source.path.read_text() + "only one column\n")
    monkeypatch.setattr(sys, "stdout", written)
    label_stream(Labelling(classifier), source, "csv")
    assert isinstance(written.buffer, io.BytesIO)
    assert written.buffer.getvalue() == (tmp_path / "out.csv").read_bytes()
    assert f"{source.path}, line 27: 1 columns found, 2 expected." in caplog.messages
    assert not list(tmp_path.glob("out.csv.*"))


def test_a_closed_standard_output(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(UserError, match=r"^--output -: standard output is closed\. Give a file\.$"):
        label_stream(Labelling(classifier), source_of(tmp_path), "csv")
