"""`lora-distill serve` of what answers through torch."""

import signal
from pathlib import Path

import httpx
import numpy as np
import pytest
from transformers import AutoTokenizer

from lora_distill import Classifier
from lora_distill.deployment.finished import open_role
from lora_distill.run_folder import RunFolder
from tests.serving.process import SERVE, process


@pytest.mark.parametrize("form", ["run", "merged"])
def test_a_run_and_a_merged_folder_are_served_as_they_answer_in_process(
    form: str, small_run: Path, tmp_path: Path
) -> None:
    folder, texts = small_run, ["orbit rocket planet", "oven", "tulip " * 40]
    if form == "merged":
        folder = tmp_path / "merged"
        open_role(RunFolder(small_run), "student").merged().save_pretrained(folder)
        AutoTokenizer.from_pretrained(small_run / "student").save_pretrained(folder)
    classifier = Classifier.load(folder)
    with process(*SERVE, folder, log=tmp_path / "log") as (server, url):
        results = httpx.post(f"{url}/v1/classify", json={"texts": texts}).json()["results"]
        model = httpx.get(f"{url}/v1/model").json()
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    assert (tuple(model["labels"]), model["about"]["form"]) == (classifier.labels, form)
    assert bool(model["card"]) is (form == "run")
    assert [each["label"] for each in results] == classifier.predict(texts).tolist()
    found = [
        [{each["label"]: each["probability"] for each in row["probabilities"]}[label] for label in classifier.classes_]
        for row in results
    ]
    np.testing.assert_allclose(found, classifier.predict_proba(texts), atol=1e-6)
