"""What is told of a run to everybody says nothing of the machine that it was made on."""

from pathlib import Path
from typing import Any

import pytest

from lora_distill.config import Role, make_config
from lora_distill.reporting.model_card import model_card
from lora_distill.reporting.public import local_places, public_facts
from lora_distill.run_folder import ENVIRONMENT, METRICS, RunFolder
from lora_distill.store import write_json
from tests.reporting.sample import sample_results

FOLDER = {
    "name": "../secret place/my-base",
    "kind": "folder",
    "revision": "0123",
    "reference": "/srv/secret place/my-base",
}
HUB = {"name": "org/base", "kind": "hub", "revision": "c0ffee", "reference": "org/base"}
FELL_BACK = (
    "model roberta-base cannot be had: no connection, and HF_HOME (/home/secret/.cache/huggingface) holds no copy"
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Made from files and folders of this machine, and of a model of the hub's."""
    values = {
        "output_dir": str(tmp_path / "secret-runs"),
        "exp_name": "mine",
        "dataset": "/data/secret/rows.csv",
        "unlabelled": "secret/more.csv",
        "base_model": FOLDER["name"],
        "student_base_model": "org/base",
        "teacher_predictions": "~/secret/answers.csv",
    }
    config = make_config(values, {})
    run, results = RunFolder.of(config), sample_results(["/r/space", "and/or"])
    source = {"kind": "file", "location": "/data/secret/rows.csv", "revision": "abc"}
    results["data"] |= {
        "name": "/data/secret/rows.csv",
        "source": source,
        "unlabelled_source": {"kind": "file", "location": "secret/more.csv", "revision": "def"},
        "notes": ["unlabelled: 3 texts of secret/more.csv", "answers: ~/secret/answers.csv holds labels", "and/or"],
    }
    results["fallbacks"] = [FELL_BACK]
    results["teacher"]["base_model"] = f"the first 2 layers of {FOLDER['name']}"
    results["teacher"]["trainable_parameters"] = None
    request: dict[str, Any] = {"config": config.model_dump(mode="json"), "named": []}
    run.begin(config, {"requested": request, "base_model": FOLDER, "student_base_model": HUB, "given_teacher": None})
    assert (run.path / ENVIRONMENT).is_file()
    write_json(run.path / METRICS, results)
    return run


@pytest.mark.parametrize("role", ["teacher", "student", "control"])
def test_a_card_of_public_facts_names_no_folder(role: Role, run: RunFolder) -> None:
    facts = public_facts(run, role)
    card = model_card(role=role, **facts._asdict())
    assert "secret" not in card
    assert "secret" not in str(facts.base)
    for told in ("rows.csv (file: rows.csv, revision abc)", "3 texts of more.csv", "HF\\_HOME (huggingface) holds"):
        assert told in card
    assert facts.results["data"]["label_names"] == ["/r/space", "and/or"]
    assert "answers.csv holds labels" in facts.results["data"]["notes"][1]
    assert facts.results["teacher"]["base_model"] == "the first 2 layers of my-base"


def test_what_is_of_the_hub_keeps_its_name(run: RunFolder) -> None:
    assert public_facts(run, "student").base == HUB
    assert public_facts(run, "teacher").base["name"] == "my-base"
    places = local_places(run)
    assert "org/base" not in places
    assert places == sorted(places, key=len, reverse=True)
    assert {"/data/secret/rows.csv", "secret/more.csv", "~/secret/answers.csv", FOLDER["reference"]} <= set(places)
