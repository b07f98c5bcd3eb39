"""A finished run's model opens elsewhere and answers there as it did."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import yaml
from markdown_it import MarkdownIt
from transformers import pipeline

from lora_distill.deployment import export
from lora_distill.deployment.classifier import Classifier
from lora_distill.deployment.verification import BARS
from lora_distill.evidence import Predictions, read_predictions
from lora_distill.run_folder import RunFolder
from tests.end_to_end.conftest import Command, metrics_of
from tests.end_to_end.refusal import assert_refused

FILES = {"README.md", "classifier.json", "config.json", "tokenizer.json", "tokenizer_config.json", "verification.json"}
WEIGHTS = {
    "merged": "model.safetensors",
    "onnx": "onnx/model.onnx",
    "onnx-int8": "onnx/model_quantized.onnx",
}
LABELS = ["garden", "kitchen", "space"]


@pytest.fixture(scope="module")
def exported(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each form; by force, for almost untrained logits are close to each other."""
    folder = tmp_path_factory.mktemp("exported")
    folders = {form: folder / form for form in export.FORMS}
    export.export_role(RunFolder(small_run), "student", folders, force=True)
    return folder


@pytest.fixture(scope="module")
def predictions(small_run: Path) -> Predictions:
    return read_predictions(RunFolder(small_run))


def read(path: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads(path.read_text())
    return contents


@pytest.mark.parametrize("form", export.FORMS)
def test_a_folder_holds_all_that_it_takes(form: export.Form, exported: Path, small_run: Path) -> None:
    folder = exported / form
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == FILES | {WEIGHTS[form]}
    about, config, student = (
        read(folder / "classifier.json"),
        read(folder / "config.json"),
        metrics_of(small_run)["student"],
    )
    assert (about["form"], about["labels"], about["max_length"]) == (form, LABELS, 32)
    assert about["temperature"] == student["temperature_scaling"]["temperature"]
    assert about["made_from"]["metrics"]["accuracy"] == student["test"]["accuracy"]
    assert (about["made_from"]["run"], about["made_from"]["role"]) == ("small", "student")
    assert {"lora-distill", "onnx", "onnxruntime", "tokenizers"} <= about["made_with"]["versions"].keys()
    assert config["id2label"] == {str(index): name for index, name in enumerate(LABELS)}
    assert config["label2id"] == {name: index for index, name in enumerate(LABELS)}
    assert config["architectures"] == ["RobertaForSequenceClassification"]
    assert oct((folder / WEIGHTS[form]).stat().st_mode) == oct((folder / "config.json").stat().st_mode)


@pytest.mark.parametrize("form", export.FORMS)
def test_it_answers_as_the_run_did(form: export.Form, exported: Path, predictions: Predictions) -> None:
    expected, found = (
        predictions.logits["student"],
        Classifier.load(exported / form).logits(map(str, predictions.texts)),
    )
    np.testing.assert_allclose(found, expected, atol=0.05 if form == "onnx-int8" else 1e-5)
    verification = read(exported / form / "verification.json")
    assert verification["rows"] == len(predictions.texts)
    assert verification["largest_difference"] == pytest.approx(np.abs(found - expected).max(), abs=1e-6)
    assert verification["other_class"] == (found.argmax(axis=1) != expected.argmax(axis=1)).sum()
    assert verification["files"] == sorted(FILES | {WEIGHTS[form]})
    assert verification["bytes"] == (exported / form / WEIGHTS[form]).stat().st_size
    if form != "onnx-int8":
        assert verification["faults"] == []


def test_plain_transformers_opens_the_merged_folder(exported: Path, predictions: Predictions) -> None:
    classify = pipeline("text-classification", str(exported / "merged"))
    long = "orbit " * 600  # truncated where the run truncates
    answers = classify([*predictions.texts, long], truncation=True, top_k=None)
    logits = predictions.logits["student"]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    for answer, expected in zip(answers, powers / powers.sum(axis=1, keepdims=True), strict=False):
        scores = {each["label"]: each["score"] for each in answer}
        assert scores == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)
    assert len(answers) == len(predictions.texts) + 1


@pytest.mark.parametrize("form", export.FORMS)
def test_the_code_of_its_card_runs_as_it_stands(form: export.Form, exported: Path) -> None:
    text = (exported / form / "README.md").read_text()
    (code,) = [each.content for each in MarkdownIt().parse(text) if each.type == "fence" and each.info == "python"]
    if form != "merged":
        assert "lora_distill" not in code
        assert "transformers" not in code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=exported / form, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    expected = Classifier.load(exported / form).predict(["A first text.", "A second one."]).tolist()
    assert done.stdout.splitlines()[-1] == str(expected)
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["library_name"] == ("transformers" if form == "merged" else "onnx")
    assert "test rows; the logits differ by" in text


def test_the_graphs_say_nothing_of_this_machine(exported: Path) -> None:
    for form in ("onnx", "onnx-int8"):
        contents = (exported / form / WEIGHTS[form]).read_bytes()
        assert b"site-packages" not in contents
        graph = onnx.load_from_string(contents).graph
        shapes = [
            [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in graph.input
        ]
        assert shapes == [["batch", "length"], ["batch", "length"]]


def test_what_is_not_faithful_is_not_kept_but_by_force(
    call: Command, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, place = shutil.copytree(small_run, tmp_path / "small"), tmp_path / "out"
    monkeypatch.setitem(BARS, "merged", replace(BARS["merged"], same_class=1.1))
    done = call("export", run, "--to", "merged", "--output", place)
    assert done.returncode == 1
    assert done.stderr == (
        "error: merged: 0 rows of 48 get another class; all must keep theirs.\n"
        "Nothing of it was kept. --force keeps it all the same.\n"
    )
    assert not place.exists()
    assert not list(tmp_path.glob(".out*"))
    done = call("export", run, "--to", "merged", "--output", place, "--force")
    assert done.returncode == 0
    assert "merged: kept by force: 0 rows of 48 get another class; all must keep theirs." in done.stderr
    assert "exported by force" in (place / "README.md").read_text()


def test_one_row_too_many_of_a_small_test_split_is_told_as_that(
    call: Command, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(small_run, tmp_path / "small")
    predictions = pq.read_table(run / "predictions.parquet")
    logits = predictions.column("student_logits").to_pylist()
    logits[0] = [-each for each in logits[0]]
    at = predictions.column_names.index("student_logits")
    pq.write_table(predictions.set_column(at, "student_logits", [logits]), run / "predictions.parquet")
    monkeypatch.setitem(BARS, "merged", BARS["onnx-int8"])  # whose graph takes longer to make
    done = call("export", run, "--to", "merged")
    assert (done.returncode, done.stderr) == (
        1,
        "error: merged: 1 row of 48 gets another class; 99% must keep theirs, and of fewer than 100 rows that is all."
        " Train on data with 100 test rows or more (--test_fraction), of which one may.\n"
        "Nothing of it was kept. --force keeps it all the same.\n",
    )


def test_an_earlier_export_is_replaced_and_nothing_else(call: Command, small_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(small_run, tmp_path / "small")
    for role in ("student", "teacher"):
        done = call("export", run, "--to", "merged", "--role", role)
        assert done.returncode == 0, done.stderr
        place = run / "exported" / f"{role}-merged"
        assert f"Written to {place}" in done.stdout
        assert read(place / "classifier.json")["made_from"]["role"] == role


@pytest.mark.parametrize("strange", ["notes/thesis.txt", "verification.json", "classifier.json", "a file"])
def test_what_no_export_wrote_is_not_replaced(
    strange: str, exported: Path, call: Command, small_run: Path, tmp_path: Path
) -> None:
    place, told = tmp_path / "out", "holds what no export wrote: "
    if strange == "a file":
        place.write_text("mine")
        told = "is a file."
    elif strange == "notes/thesis.txt":  # in an earlier export
        shutil.copytree(exported / "merged", place)
        (place / "notes").mkdir()
        (place / strange).write_text("mine")
        told += f"'{strange}'. Move it away, or choose another --output."
    else:  # a file of one's own that is called as one of an export is
        place.mkdir()
        (place / strange).write_text('{"form": "merged"}')
        told += f"'{strange}'"
    before = files_of(tmp_path)
    done = call("export", small_run, "--to", "merged", "--output", place)
    assert_refused(done, f"{place}: {told}")
    assert files_of(tmp_path) == before


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--to", "merged", "--role", "self-trained"],
            "--role self-trained: this run has none. It has: teacher, student, control.",
        ),
        (["--to", "pickle"], "invalid choice: 'pickle'"),
        ([], "the following arguments are required: --to"),
    ],
)
def test_what_cannot_be_is_refused(flags: list[str], said: str, call: Command, small_run: Path) -> None:
    done = call("export", small_run, *flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


SCRIPT = """
import { env, pipeline } from "@huggingface/transformers";
env.allowRemoteModels = false;
const [folder, dtype, texts] = process.argv.slice(2);
env.localModelPath = folder.slice(0, folder.lastIndexOf("/"));
const name = folder.slice(folder.lastIndexOf("/") + 1);
const classify = await pipeline("text-classification", name, { dtype });
console.log(JSON.stringify(await classify(JSON.parse(texts), { top_k: null })));
"""


@pytest.fixture(scope="session")
def transformers_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with transformers.js and the runtime for Node that it brings."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no Node with npm here")
    folder = tmp_path_factory.mktemp("node")
    # The runtime's script would fetch a GPU's libraries; what the processor needs is in the package.
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "@huggingface/transformers@4.3.1"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer")
    if done.returncode:
        pytest.skip(f"npm cannot install transformers.js: {done.stderr[-200:]}")
    (folder / "classify.mjs").write_text(SCRIPT)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("form", "dtype"), [("onnx", "fp32"), ("onnx-int8", "q8")])
def test_transformers_js_opens_it_in_node(
    form: str, dtype: str, transformers_js: Path, exported: Path, predictions: Predictions
) -> None:
    texts = [str(text) for text in predictions.texts[:8]]
    command = ["node", "classify.mjs", str(exported / form), dtype, json.dumps(texts)]
    done = subprocess.run(command, cwd=transformers_js, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    logits = Classifier.load(exported / form).logits(texts)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    for answer, expected in zip(json.loads(done.stdout), powers / powers.sum(axis=1, keepdims=True), strict=True):
        scores = {each["label"]: each["score"] for each in answer}
        assert scores == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-3)
