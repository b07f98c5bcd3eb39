"""`lora-distill train` with a hub, after the hub has gone, and without one."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.conftest import (
    WORDS,
    Command,
    evaluation_of,
    flags_of,
    metrics_of,
    small_values,
    untaught_values,
    write_rows,
)
from tests.hub_server import HubServer
from tests.teachers import train_whole
from tests.tiny import tiny_model

ROLES = ("teacher", "student", "control")
NAMES = ["space", "kitchen", "garden"]  # the hub's own order
README = """---
dataset_info:
  features:
  - {name: text, dtype: string}
  - name: label
    dtype:
      class_label:
        names: {'0': space, '1': kitchen, '2': garden}
---
"""
# Another machine, which knows plain transformers and PEFT only.
STRANGER = """
import json, sys
import torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
batch = AutoTokenizer.from_pretrained(folder)(texts, truncation=True, max_length=32, padding=True, return_tensors="pt")
with torch.inference_mode():
    print(json.dumps(model(**batch).logits.tolist()))
assert "lora_distill" not in sys.modules
"""


def in_process_of_its_own(*arguments: object, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


class Trained:
    """A folder in which a run was trained from a hub, and the hub.

    Attributes:
        run: the finished run's folder.
        commits: of the repositories, by name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.hub = folder, HubServer()
        self.data = write_hub_rows(folder / "data")
        base = tiny_model("roberta", folder / "tiny")
        whole = train_whole(tiny_model("bert", folder / "bert", layers=2), folder / "whole", NAMES, names=NAMES)
        self.commits = {
            "org/tiny": self.hub.add_model("org/tiny", base),
            "org/whole": self.hub.add_model("org/whole", whole),
            "org/rows": self.hub.add_dataset("org/rows", self.data),
        }
        shutil.rmtree(base)
        shutil.rmtree(whole)
        self.run = self.runs / "first"

    @property
    def runs(self) -> Path:
        return self.folder / "outputs" / "lora_distillation"

    def train(self, *more: object, **changes: object) -> subprocess.CompletedProcess[str]:
        values_of = untaught_values if "teacher_checkpoint" in changes else small_values
        values = values_of(Path("org/tiny"), Path("org/rows")) | changes
        return self.command("train", *flags_of(values), *more)

    def command(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return in_process_of_its_own("-m", "lora_distill", *arguments, env=self.env(), cwd=self.folder)

    def env(self, machine: str = "home") -> dict[str, str]:
        return self.hub.env(self.folder / machine)


def write_hub_rows(folder: Path) -> Path:
    """Splits train and test with numbers for labels, whose names stand in the README."""
    for seed, (name, rows) in enumerate({"train": 120, "test": 45}.items()):
        file = write_rows(folder / f"{name}.csv", rows, seed)
        with file.open(encoding="utf-8") as opened:
            lines = [[row["text"], NAMES.index(row["label"])] for row in csv.DictReader(opened)]
        with file.open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows([["text", "label"], *lines])
    (folder / "README.md").write_text(README)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    world = Trained(tmp_path_factory.mktemp("hub"))
    done = world.train(exp_name="first")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    yield world
    world.hub.close()


@pytest.mark.slow
def test_a_run_says_where_its_base_model_and_its_data_came_from(trained: Trained) -> None:
    run, commits = trained.run, trained.commits
    for role in ROLES:
        config = json.loads((run / role / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == ("org/tiny", commits["org/tiny"])
        labels = json.loads((run / role / "labels.json").read_text())
        assert labels["base_model"] == {"name": "org/tiny", "kind": "hub", "revision": commits["org/tiny"]}
        assert list(labels["id2label"].values()) == NAMES
    environment = json.loads((run / "environment.json").read_text())
    assert environment["base_model"]["revision"] == commits["org/tiny"]
    source = {"kind": "hub", "location": "org/rows", "revision": commits["org/rows"]}
    assert environment["data"]["source"] == metrics_of(run)["data"]["source"] == source
    assert (metrics_of(run)["data"]["test_rows"], metrics_of(run)["fallbacks"]) == (45, [])
    card = yaml.safe_load((run / "student" / "README.md").read_text().split("---\n")[1])
    assert (card["base_model"], card["datasets"]) == ("org/tiny", ["org/rows"])
    assert card["model-index"][0]["results"][0]["dataset"]["revision"] == commits["org/rows"]


@pytest.mark.slow
def test_weights_are_fetched_once(trained: Trained) -> None:
    fetched = [request for request in trained.hub.requests if "GET" in request and "model.safetensors" in request]
    assert [request for request in fetched if "org/tiny" in request] == fetched[:1]


@pytest.mark.slow
def test_a_stranger_on_another_machine_gets_the_logits_of_the_predictions(trained: Trained, tmp_path: Path) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(trained.run / "predictions.parquet")
    with (trained.data / "test.csv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    chosen = [texts[row] for row in table["row_id"].to_pylist()]
    student = shutil.copytree(trained.run / "student", tmp_path / "student")
    env = trained.env("another")
    done = in_process_of_its_own("-c", STRANGER, student, json.dumps(chosen), env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    difference = np.array(json.loads(done.stdout)) - np.array(table["student_logits"].to_pylist())
    assert np.abs(difference).max() < 1e-4

    (code,) = re.findall(r"```python\n(.*?)```", (student / "README.md").read_text(), re.DOTALL)
    shown = in_process_of_its_own("-c", code, env=env, cwd=student)
    assert shown.returncode == 0, shown.stderr
    assert set(re.findall(r"\w+", shown.stdout)) <= set(WORDS)


@pytest.mark.slow
def test_a_teacher_on_the_hub_whole_or_an_adapter(trained: Trained) -> None:
    commit = trained.hub.add_model("org/adapter", trained.run / "student")
    for name, revision in (("org/whole", trained.commits["org/whole"]), ("org/adapter", commit)):
        exp_name = name.replace("/", "-")
        done = trained.train("--no_control", teacher_checkpoint=name, exp_name=exp_name, num_epochs=1)
        assert done.returncode == 0, done.stderr
        run = trained.runs / exp_name
        recorded = json.loads((run / "environment.json").read_text())["given_teacher"]
        assert (recorded["reference"], recorded["revision"]) == (name, revision)
        assert metrics_of(run)["teacher"]["checkpoint"] == name
    assert metrics_of(trained.runs / "org-whole")["teacher"]["test"]["accuracy"] > 0.7


@pytest.mark.slow
def test_when_the_hub_has_gone_all_of_it_goes_on_from_the_cache(trained: Trained) -> None:
    """The last test of the hub's, for it ends it."""
    trained.hub.close()
    finished = trained.train(exp_name="first")
    assert finished.returncode == 0, finished.stderr
    assert "already finished" in finished.stderr

    predictions = (trained.run / "predictions.parquet").read_bytes()
    (trained.run / "metrics.json").unlink()
    resumed = trained.command("train", "--exp_name", "first", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert (trained.run / "predictions.parquet").read_bytes() == predictions

    other = trained.train(exp_name="other", alpha=0.9)
    assert other.returncode == 0, other.stderr
    assert metrics_of(trained.runs / "other")["fallbacks"] == []
    assert [metrics_of(trained.runs / "other")[role]["reused"] for role in ROLES] == [True, False, True]

    judged = trained.command("evaluate", trained.runs / "org-whole", "--dataset", "org/rows")
    assert judged.returncode == 0, judged.stderr
    evaluation = evaluation_of(trained.runs / "org-whole")
    own = metrics_of(trained.runs / "org-whole")
    assert evaluation["teacher"]["test"]["accuracy"] == own["teacher"]["test"]["accuracy"]


# No hub


@pytest.mark.slow
def test_without_a_hub_the_defaults_fall_back_loudly_and_the_results_say_so(
    no_hub: dict[str, str], tmp_path: Path
) -> None:
    few = {"max_train_rows": 40, "num_epochs": 1, "max_length": 16, "exp_name": "small"}
    layers = {"teacher_target_layers": 1, "student_target_layers": 1}
    arguments = ["train", *flags_of(few | layers), "--no_control"]
    done = in_process_of_its_own("-m", "lora_distill", *arguments, env=no_hub, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    warned = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert len(warned) == 2
    assert "the default base_model roberta-base could not be had; minilm was used instead" in warned[0]
    assert "the default dataset ag_news could not be had; bbc_news was used instead" in warned[1]
    assert len([line for line in done.stdout.splitlines() if line.startswith("SUBSTITUTED")]) == 2

    run = tmp_path / "outputs" / "lora_distillation" / "small"
    lines = [line.removeprefix("WARNING: ") for line in warned]
    assert metrics_of(run)["fallbacks"] == lines
    assert json.loads((run / "environment.json").read_text())["fallbacks"] == lines
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["base_model"], config["dataset"]) == ("minilm", "bbc_news")
    assert (run / "student" / "README.md").read_text().count("**Substituted**") == 2

    again = in_process_of_its_own("-m", "lora_distill", *arguments, env=no_hub, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "already finished" in again.stderr
    assert len([line for line in again.stdout.splitlines() if line.startswith("SUBSTITUTED")]) == 2


def assert_refused(done: subprocess.CompletedProcess[str], folder: Path, *words: str) -> None:
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) <= 3
    for word in words:
        assert word in done.stderr
    assert not (folder / "outputs").exists()


@pytest.mark.parametrize("name", ["roberta-base", "org/other"])
def test_a_base_model_that_was_named_is_not_substituted(
    name: str, call: Command, tmp_path: Path, rows_csv: Path
) -> None:
    done = call("train", "--base_model", name, "--dataset", rows_csv, "--quiet")
    ways = ("HF_HOME", "HF_ENDPOINT", "a folder", "minilm")
    assert_refused(done, tmp_path, f"model {name} cannot be had: HF_HUB_OFFLINE is set", *ways)


def test_data_that_were_named_are_not_substituted(call: Command, tmp_path: Path, tiny_base: Path) -> None:
    layers = ("--teacher_target_layers", 1, "--student_target_layers", 1, "--quiet")
    done = call("train", "--base_model", tiny_base, "--dataset", "ag_news", *layers)
    assert_refused(done, tmp_path, "dataset fancyzhx/ag_news cannot be had", "HF_HOME", "HF_ENDPOINT", "bbc_news")


def test_the_default_named_in_a_file_is_named(call: Command, tmp_path: Path, rows_csv: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"base_model: roberta-base\ndataset: {rows_csv}\n")
    done = call("train", "--config", "mine.yaml", "--quiet")
    assert_refused(done, tmp_path, "model roberta-base cannot be had")
