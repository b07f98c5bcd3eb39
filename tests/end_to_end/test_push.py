"""A finished run's model goes to a hub, and opens from there elsewhere as it was."""

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import metadata_load

from tests.end_to_end.conftest import Command, logits_of, metrics_of
from tests.end_to_end.refusal import assert_refused
from tests.end_to_end.test_hub import NAMES, Trained, in_process_of_its_own

TOKEN = "hf_" + "t" * 34
# What follows the lines that `push` prints, on another machine.
ASK = {
    "adapter": """
import torch
batch = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
with torch.inference_mode():
    logits = model(**batch).logits.tolist()
""",
    "merged": """
import torch
batch = classify.tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
with torch.inference_mode():
    logits = classify.model(**batch).logits.tolist()
""",
}
END = "import sys; assert 'lora_distill' not in sys.modules; print(json.dumps(logits))"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    world = Trained(tmp_path_factory.mktemp("push"))
    world.hub.tokens[TOKEN] = "me"
    done = world.train("--no_control", exp_name="first", num_epochs=1)
    assert done.returncode == 0, done.stderr
    yield world
    world.hub.close()


def push(world: Trained, *arguments: object) -> subprocess.CompletedProcess[str]:
    # The stand-in has the store for large files that every hub has, not the one that cuts them into chunks.
    env = world.env() | {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    return in_process_of_its_own("-m", "lora_distill", "push", world.run, *arguments, env=env, cwd=world.folder)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def texts_of(world: Trained) -> list[str]:
    with (world.data / "test.csv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    return [texts[row] for row in pq.read_table(world.run / "predictions.parquet")["row_id"].to_pylist()]


def assert_results_show(card: bytes, world: Trained, form: str, folder: Path) -> None:
    """The hub's own reader finds in the card what its page shows."""
    (folder / "README.md").write_bytes(card)
    assert metadata_load(folder / "README.md") is not None
    data = ModelCard.load(folder / "README.md").data
    assert isinstance(data, ModelCardData)
    assert data.eval_results is not None
    test = metrics_of(world.run)["student"]["test"]
    found = {each.metric_type: each for each in data.eval_results}
    assert {name: each.metric_value for name, each in found.items()} == {
        "accuracy": round(test["accuracy"], 6),
        "f1": round(test["macro_f1"], 6),
    }
    assert found["f1"].metric_args == {"average": "macro"}
    for each in data.eval_results:
        assert (each.task_type, each.dataset_type, each.dataset_split) == ("text-classification", "org/rows", "test")
    library = {"adapter": "peft", "merged": "transformers"}[form]
    assert (data.library_name, data.pipeline_tag) == (library, "text-classification")
    assert (data.base_model, data.datasets, data.license) == ("org/tiny", ["org/rows"], None)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_what_is_pushed_opens_elsewhere_and_answers_as_the_run_did(form: str, trained: Trained, tmp_path: Path) -> None:
    name, dry = f"me/my-{form}", tmp_path / "dry"
    done = push(trained, name, "--form", form, "--dry_run", "--output", dry)
    assert done.returncode == 0, done.stderr
    assert ("models", name) not in trained.hub.repositories
    done = push(trained, name, "--form", form)
    assert done.returncode == 0, done.stderr
    first, empty, *lines = done.stdout.splitlines()
    assert (first, empty) == (f"Pushed to {trained.hub.url}/{name}", "")
    assert [each for each in trained.hub.commits if each.startswith(name)] == [f"{name}: first: the student, {form}"]
    pushed = trained.hub.repositories["models", name].files
    assert pushed == files_of(dry) | {".gitattributes": b""}

    code = "\n".join(["import json", f"texts = {texts_of(trained)!r}", *lines, ASK[form], END])
    shown = in_process_of_its_own("-c", code, env=trained.env(f"machine-{form}"), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    answered = np.array(json.loads(shown.stdout.splitlines()[-1]))
    np.testing.assert_allclose(answered, logits_of(trained.run, "student"), atol=1e-4)

    assert_results_show(pushed["README.md"], trained, form, tmp_path)
    told = [*(text.encode() for text in texts_of(trained)), str(trained.folder).encode(), TOKEN.encode()]
    assert [(file, each) for file, data in pushed.items() for each in told if each in data] == []

    (code,) = re.findall(r"```python\n(.*?)```", pushed["README.md"].decode(), re.DOTALL)
    shown = in_process_of_its_own("-c", code, env=trained.env(f"machine-{form}"), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert set(re.findall(r"\w+", shown.stdout.splitlines()[-1])) <= set(NAMES)


def test_a_run_on_local_files_is_shared_merged_and_tells_nothing_of_them(
    call: Command, small_run: Path, rows_csv: Path, tmp_path: Path
) -> None:
    done = call("push", small_run, "me/mine", "--dry_run", "--output", "out")
    assert_refused(done, "--form adapter: its base model,", "--form merged")
    assert not (tmp_path / "out").exists()
    done = call("push", small_run, "me/mine", "--form", "merged", "--dry_run", "--output", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Nothing was pushed. What would be is in out\n"
    files = files_of(tmp_path / "out")
    assert {"README.md", "model.safetensors", "config.json", "classifier.json", "verification.json"} <= set(files)
    with rows_csv.open(encoding="utf-8") as file:
        texts = [row["text"].encode() for row in csv.DictReader(file)]
    places = [str(place.parent).encode() for place in (small_run, rows_csv, tmp_path)]
    assert [(file, each) for file, data in files.items() for each in (*texts, *places) if each in data] == []
    assert "texts_per_second" not in json.loads(files["verification.json"])


def test_a_dry_run_writes_into_the_run_s_folder_where_no_other_is_given(
    call: Command, small_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(small_run, tmp_path / "small")
    flags = ["--form", "merged", "--dry_run"]
    done = call("push", run, "me/mine", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Nothing was pushed. What would be is in {run / 'to-push' / 'student-merged'}\n"
    before = files_of(run)
    assert {"README.md", "model.safetensors"} <= set(files_of(run / "to-push" / "student-merged"))
    assert_refused(
        call("push", run, "me/mine", *flags), "exists, and is no empty folder. Move it away, or give another"
    )
    assert files_of(run) == before


def test_where_to_is_said_for_a_dry_run_only(call: Command, small_run: Path) -> None:
    assert_refused(call("push", small_run, "me/mine", "--output", "out"), "--output out: is where --dry_run writes.")


def test_without_a_hub_it_is_refused_in_words(call: Command, small_run: Path) -> None:
    done = call("push", small_run, "me/mine", "--form", "merged")
    assert_refused(done, "me/mine", "there is no token")
