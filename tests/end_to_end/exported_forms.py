"""A run's student in all the forms that it can be had in, asked about the run's test rows."""

import ast
import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from lora_distill.data.types import PARTS, Text, from_columns, parts
from lora_distill.deployment.classifier import Classifier
from lora_distill.deployment.export import FORMS, export_role
from lora_distill.run_folder import RunFolder
from tests.end_to_end.conftest import logits_of


def texts_of(run: Path) -> list[Text]:
    """As the run read them."""
    table = pq.read_table(run / "predictions.parquet")
    return from_columns({name: table[name].to_pylist() for name in PARTS if name in table.column_names})


def assert_every_form_answers_as(run: Path, place: Path) -> None:
    """Exported, opened again, asked together and alone, and by the code of its card. By force: it hardly learnt."""
    texts, expected = texts_of(run), logits_of(run, "student")
    np.testing.assert_allclose(Classifier.load(run).logits(texts), expected, atol=1e-5)
    export_role(RunFolder(run), "student", {form: place / form for form in FORMS}, force=True)
    for form in FORMS:
        classifier = Classifier.load(place / form)
        found = classifier.logits(texts)
        np.testing.assert_allclose(found, expected, atol=0.05 if form == "onnx-int8" else 1e-4)
        alone = np.concatenate([classifier.logits([text]) for text in texts])
        np.testing.assert_allclose(found, alone, atol=1e-3 if form == "onnx-int8" else 1e-4)
        verification = json.loads((place / form / "verification.json").read_text())
        assert verification["rows"] == len(texts)
        assert form == "onnx-int8" or verification["faults"] == []
        assert _labels_by_its_card(place / form, texts) == classifier.predict(texts).tolist()


def _labels_by_its_card(folder: Path, texts: list[Text]) -> list[str]:
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    for name, values in zip(("texts", "others"), zip(*map(parts, texts), strict=True), strict=False):
        line = next(line for line in code.splitlines() if line.startswith(f"{name} = "))
        code = code.replace(line, f"{name} = {list(values)!r}")
    printed = io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(printed):
            exec(code, {})
    finally:
        os.chdir(before)
    labels: list[str] = ast.literal_eval(printed.getvalue())
    return labels
