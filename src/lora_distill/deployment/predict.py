"""A file of texts, labelled by a classifier: any number of rows, in little memory, and from where a kill left it."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lora_distill.data.types import Text
from lora_distill.data.windows import Reader, Source, Window, open_reader
from lora_distill.data.wording import counted
from lora_distill.deployment.classifier import Classifier
from lora_distill.deployment.forms import ONNX_FILES
from lora_distill.deployment.labelled import WRITERS, Added, Writer
from lora_distill.deployment.unfinished import Unfinished
from lora_distill.errors import UserError
from lora_distill.progress import track_source

logger = logging.getLogger(__name__)
VERSIONED = ("lora-distill", "numpy", "onnxruntime", "pyarrow", "tokenizers")
THROUGH_TORCH = ("peft", "torch", "transformers")


@dataclass(frozen=True)
class Labelling:
    """What is added to each row.

    Attributes:
        classifier: that answers.
        threshold: of the confidence; rows below it are marked. None marks none.
        prefix: of the names of all columns that are added.
    """

    classifier: Classifier
    threshold: float | None = None
    prefix: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns that are added."""
        review = () if self.threshold is None else ("review",)
        classes = (f"probability_{label}" for label in self.classifier.labels)
        return tuple(f"{self.prefix}{name}" for name in ("label", "confidence", *review, *classes))

    def columns(self, texts: list[Text], told: Callable[[float], None] | None = None) -> Added:
        """These columns, of N rows: label str, confidence float32, review bool, a probability float32 of each class.

        Args:
            texts: of the rows.
            told: is called again and again with the share of them that is answered.
        """
        probabilities = self.classifier.probabilities(self.classifier.logits(texts, told))
        confidence = probabilities.max(axis=1, initial=0)
        labels = np.array(self.classifier.labels)[probabilities.argmax(axis=1)]
        review = () if self.threshold is None else (confidence < self.threshold,)
        return dict(zip(self.names, (labels, confidence, *review, *probabilities.T), strict=True))


@dataclass(frozen=True)
class Counts:
    """Rows so far.

    Attributes:
        labelled: that were labelled.
        review: of these, that a person should read.
        bad: that could not be read.
    """

    labelled: int = 0
    review: int = 0
    bad: int = 0


def label_file(
    labelling: Labelling, source: Source, target: Path, output_format: str, *, overwrite: bool = False
) -> Counts:
    """Label a file's rows into another, in their order; after a kill, another call goes on.

    A row that cannot be read goes to `<target>.bad.jsonl`, with its place and the reason. Until the last row is done
    all lies in `<target>.unfinished`.

    Args:
        labelling: what is added.
        source: what is read.
        target: what is written.
        output_format: one of `formats.OUTPUT_FORMATS`.
        overwrite: replace the target, and what was begun of it.

    Raises:
        UserError: the source cannot be read, or not one of its first rows; the target is there, or cannot be written;
            or what was begun was begun with another model, rows or settings.
    """
    output, writer = Unfinished(target), WRITERS[output_format]
    for path in (output.target, output.bad):
        if source.path and path.exists() and source.path.exists() and path.samefile(source.path):
            raise UserError(f"{path}: is the input. Give another --output.")
    source = _written_as(output_format, source, labelling)
    job = _job(labelling, source, output_format)
    with output.open(overwrite=overwrite):
        journal = output.journal or {"job": job, "state": None, "counts": asdict(Counts())}
        _check_job(target, journal["job"], job)
        counts = before = Counts(**journal["counts"])
        if not journal.get("finished"):
            reader = open_reader(source, journal["state"])
            if journal["state"]:
                logger.info("%s: goes on after %s", target, counted(before.labelled + before.bad, "row"))
            for window, rows, counts in _label(labelling, reader, writer, source, before):
                bad = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in window.bad)
                journal |= {"state": window.state, "counts": asdict(counts)}
                output.append(rows, bad.encode(), journal)
            output.append(b"", b"", journal | {"finished": True})
        output.finish(writer.whole)
    if counts.bad:
        logger.warning("%s could not be read: %s says which, and why.", counted(counts.bad, "row"), output.bad)
    return counts


def label_stream(labelling: Labelling, source: Source, output_format: str) -> None:
    """Label a source's rows onto standard output, and tell those that cannot be read as warnings.

    Raises:
        UserError: the source cannot be read, or not one of its first rows.
    """
    if not sys.stdout:
        raise UserError("--output -: standard output is closed. Give a file.")
    source = _written_as(output_format, source, labelling)
    reader, writer = open_reader(source, None), WRITERS[output_format]
    for window, rows, _ in _label(labelling, reader, writer, source, Counts()):
        for each in window.bad:
            logger.warning("%s", _told(source, each))
        sys.stdout.buffer.write(rows)
        sys.stdout.buffer.flush()


def _written_as(output_format: str, source: Source, labelling: Labelling) -> Source:
    """The source, whose rows that format must be able to hold beside what is added."""
    fixed, as_text = output_format != "jsonl", output_format != "parquet"
    return replace(source, added=labelling.names, fixed=fixed, as_text=as_text)


def _label(
    labelling: Labelling, reader: Reader, writer: Writer, source: Source, before: Counts
) -> Iterator[tuple[Window, bytes, Counts]]:
    """Each window, its rows as they are written (the first behind the header), and the counts behind it."""
    counts, is_first = before, before == Counts()
    with track_source(str(source), reader.whole, reader.done, before.labelled + before.bad) as show:
        for window in reader.windows():
            if is_first and not window.texts:
                none = f"None of the first {len(window.bad):,} rows can be read"
                raise UserError(f"{_told(source, window.bad[0])}\n{none}: is it in this format, and in UTF-8?")
            advance = _within(window, show)
            added = labelling.columns(window.texts, advance)
            header = writer.header([*(reader.columns or []), *labelling.names]) if is_first else b""
            review = 0 if labelling.threshold is None else int(np.sum(added[labelling.names[2]]))
            counts = Counts(counts.labelled + len(window.texts), counts.review + review, counts.bad + len(window.bad))
            yield window, header + writer.rows(window.rows, added), counts
            advance(1.0)
            is_first = False
    if is_first:
        raise UserError(f"{source}: no rows.")


def _within(window: Window, show: Callable[[int, int], None]) -> Callable[[float], None]:
    """What takes the share of a window that is done, and shows the rows and their size that came since."""
    whole = (len(window.texts) + len(window.bad), window.size)
    shown = (0, 0)

    def advance(share: float) -> None:
        nonlocal shown
        done = round(share * whole[0]), round(share * whole[1])
        show(done[0] - shown[0], done[1] - shown[1])
        shown = done

    return advance


def _told(source: Source, bad: dict[str, Any]) -> str:
    unit = "line" if "line" in bad else "row"
    return f"{source}, {unit} {bad[unit]}: {bad['reason']}."


def _job(labelling: Labelling, source: Source, output_format: str) -> dict[str, Any]:
    """All that must be the same for two processes to write one file."""
    is_onnx = labelling.classifier.about["form"] in ONNX_FILES
    return {
        "model": labelling.classifier.fingerprint(),
        "threshold": labelling.threshold,
        "columns": [*source.columns.wanted().values(), *labelling.names],
        "formats": [source.format, output_format],
        "versions": {name: version(name) for name in VERSIONED + (() if is_onnx else THROUGH_TORCH)},
    }


def _check_job(target: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    if differing := [name for name in now if begun.get(name) != now[name]]:
        before, after = (json.dumps(job.get(differing[0]), ensure_ascii=False) for job in (begun, now))
        raise UserError(
            f"{target}: was begun with another {differing[0]}: {before}; now it is {after}.\n"
            "Put it back, or label all rows anew with --overwrite."
        )
