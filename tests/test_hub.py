"""The hub's models and data sets, fetched by the real libraries from a hub on this machine."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from lora_distill.errors import UserError
from lora_distill.hub import fetch_dataset
from tests.hub_data import FEATURES, ROWS, fetch, write_csv_dataset, write_dataset_of_two
from tests.hub_server import HubServer, hub_env


def assert_refused(result: dict[str, Any], *words: str, unavailable: bool = True) -> None:
    assert "error" in result, result
    assert result["unavailable"] == unavailable
    assert len(result["error"].splitlines()) <= 3
    for word in words:
        assert word in result["error"]


MODEL_WAYS = ("HF_HOME", "HF_ENDPOINT", "a folder", "minilm")
DATA_WAYS = ("HF_HOME", "HF_ENDPOINT", "folder", "bbc_news")


def test_a_model_is_fetched_once_in_safetensors_and_then_needs_no_hub(
    hub: HubServer, tmp_path: Path, tiny: Callable[[str], Path]
) -> None:
    source = shutil.copytree(tiny("roberta"), tmp_path / "source")
    for unwanted in ("pytorch_model.bin", "tf_model.h5", "rust_model.ot", "onnx/model.onnx", "README.md"):
        (source / unwanted).parent.mkdir(exist_ok=True)
        (source / unwanted).write_bytes(b"unwanted")
    commit = hub.add_model("roberta-base", source)
    home = tmp_path / "home"

    [fetched] = fetch(hub.env(home), "model=roberta-base")

    folder = Path(fetched["folder"])
    assert fetched["revision"] == commit
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        file.name: file.read_bytes() for file in tiny("roberta").iterdir()
    }
    assert not [request for request in hub.requests if "unwanted" in request or request.endswith((".bin", ".onnx"))]
    assert [path.name for path in home.iterdir()] == ["huggingface"]

    hub.requests.clear()
    assert fetch(hub.env(home) | {"HF_HUB_OFFLINE": "1"}, "model=roberta-base") == [fetched]
    assert hub.requests == []
    hub.close()
    assert fetch(hub.env(home), "model=roberta-base", f"model=roberta-base={commit}") == [fetched, fetched]


def test_a_model_that_has_moved(hub: HubServer, tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    commit = hub.add_model("FacebookAI/roberta-base", tiny("roberta"))
    hub.moved["roberta-base"] = "FacebookAI/roberta-base"
    online, offline = (
        fetch(hub.env(tmp_path) | setting, "model=roberta-base") for setting in ({}, {"HF_HUB_OFFLINE": "1"})
    )
    assert online == offline
    assert online[0]["revision"] == commit


def test_a_revision_is_pinned_and_an_unknown_one_refused(
    hub: HubServer, tmp_path: Path, tiny: Callable[[str], Path]
) -> None:
    commit = hub.add_model("org/tiny", tiny("bert"))
    pinned, unknown = fetch(hub.env(tmp_path), f"model=org/tiny={commit}", "model=org/tiny=v9")
    assert pinned["revision"] == commit
    assert_refused(unknown, "not this revision")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_data_set_keeps_splits_and_label_names_and_then_needs_no_hub(
    hub: HubServer, tmp_path: Path, form: str
) -> None:
    source = write_csv_dataset(tmp_path / "source")
    if form == "parquet":
        (source / "README.md").unlink()  # the label names then lie in the tables themselves
        for split in ("train", "test"):
            file = source / f"{split}.csv"
            table = csv.read_csv(file).replace_schema_metadata({"huggingface": FEATURES})
            pq.write_table(table, source / f"{split}-00000-of-00001.parquet")
            file.unlink()
    commit = hub.add_dataset("fancyzhx/ag_news", source)
    home, decoy = tmp_path / "home", tmp_path / "fancyzhx" / "ag_news"
    decoy.mkdir(parents=True)
    (decoy / "train.csv").write_text("text,label\na folder of the same name,0\n")

    [fetched] = fetch(hub.env(home), "dataset=fancyzhx/ag_news", cwd=tmp_path)

    rows = {"text": ["the vote was counted", "the match was won"], "label": [0, 1]}
    assert fetched == {
        "splits": {"train": rows, "test": rows},
        "names": [["World", "Sports"]] * 2,
        "revision": commit,
    }
    assert [path.name for path in home.iterdir()] == ["huggingface"]
    hub.requests.clear()
    assert fetch(hub.env(home) | {"HF_HUB_OFFLINE": "1"}, "dataset=fancyzhx/ag_news") == [fetched]
    assert hub.requests == []
    hub.close()
    assert fetch(hub.env(home), "dataset=fancyzhx/ag_news") == [fetched]


def test_one_of_several_configurations_must_be_named(hub: HubServer, tmp_path: Path) -> None:
    hub.add_dataset("org/two", write_dataset_of_two(tmp_path / "source"))
    env = hub.env(tmp_path / "home")
    unnamed, unknown, marked = fetch(env, "dataset=org/two", "dataset=org/two:odd", "dataset=org/two:marked")
    assert_refused(unnamed, "2 configurations", "plain, marked", "org/two:plain", unavailable=False)
    assert_refused(unknown, "no configuration 'odd'", "plain, marked", unavailable=False)
    assert marked["splits"] == {"train": {"text": ["marked text"], "label": [0]}}

    # What the cache happens to hold is not what was asked for.
    offline = env | {"HF_HUB_OFFLINE": "1"}
    unnamed, plain, again = fetch(offline, "dataset=org/two", "dataset=org/two:plain", "dataset=org/two:marked")
    assert_refused(unnamed, "org/two:marked", unavailable=False)
    assert_refused(plain, "HF_HUB_OFFLINE", *DATA_WAYS)
    assert again == marked
    fetch(env, "dataset=org/two:plain")
    [unnamed] = fetch(offline, "dataset=org/two")
    assert_refused(unnamed, "plain", "marked", "org/two:CONFIGURATION", unavailable=False)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "no connection to http://127.0.0.1:9"),
        ({"HF_ENDPOINT": "http://nowhere.invalid"}, "no connection to http://nowhere.invalid"),
        ({"HF_ENDPOINT": "nonsense"}, "no connection to nonsense"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_no_hub_in_reach(no_hub: dict[str, str], setting: dict[str, str], words: str) -> None:
    model, data = fetch(no_hub | setting, "model=roberta-base", "dataset=fancyzhx/ag_news")
    assert_refused(model, "model roberta-base", words, *MODEL_WAYS)
    assert_refused(data, "dataset fancyzhx/ag_news", words, *DATA_WAYS)


def test_a_hub_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = hub_env(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        model, data = fetch(env, "model=roberta-base", "dataset=fancyzhx/ag_news", answer_seconds=0.5)
    assert_refused(model, "did not answer within", *MODEL_WAYS)
    assert_refused(data, "did not answer within", *DATA_WAYS)


def test_what_the_hub_does_not_have(hub: HubServer, tmp_path: Path) -> None:
    model, data, *unnameable = fetch(
        hub.env(tmp_path), "model=no/such", "dataset=no/such", "model=a/b/c", "dataset=two words"
    )
    assert_refused(model, "no/such", "no such model", "HF_TOKEN", *MODEL_WAYS)
    assert_refused(data, "no/such", "no such dataset", "HF_TOKEN", *DATA_WAYS)
    for result in unnameable:
        assert_refused(result, "no name of the hub's", unavailable=False)


def test_a_gated_repository(hub: HubServer, tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    hub.add_model("org/gated", tiny("bert"), gated=True)
    hub.add_dataset("org/gated", write_csv_dataset(tmp_path / "source"), gated=True)
    model, data = fetch(hub.env(tmp_path / "home"), "model=org/gated", "dataset=org/gated")
    assert_refused(model, "org/gated", "it is gated", "HF_TOKEN", *MODEL_WAYS)
    assert_refused(data, "org/gated", "is a gated dataset", *DATA_WAYS)


def test_a_hub_in_trouble_is_bridged_by_the_cache(hub: HubServer, tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    hub.add_model("org/tiny", tiny("bert"))
    [fetched] = fetch(hub.env(tmp_path), "model=org/tiny")
    hub.status = 500
    cached, model, data = fetch(hub.env(tmp_path), "model=org/tiny", "model=org/other", "dataset=org/other")
    assert cached == fetched
    assert_refused(model, "HTTP status 500", *MODEL_WAYS)
    assert_refused(data, "HTTP status 500", *DATA_WAYS)
    hub.status = 408
    assert fetch(hub.env(tmp_path), "model=org/tiny") == [fetched]


def test_a_page_that_is_no_hub(hub: HubServer, tmp_path: Path) -> None:
    hub.status = 200
    [model] = fetch(hub.env(tmp_path), "model=roberta-base")
    assert_refused(model, "does not answer as a hub does", *MODEL_WAYS)


def test_pickled_weights_are_refused_with_the_way_to_convert_them(
    hub: HubServer, tmp_path: Path, tiny: Callable[[str], Path]
) -> None:
    source = shutil.copytree(tiny("bert"), tmp_path / "source")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    hub.add_model("org/pickled", source)
    [result] = fetch(hub.env(tmp_path / "home"), "model=org/pickled")
    assert_refused(result, "no weights in safetensors", "save_pretrained", unavailable=False)
    assert not [request for request in hub.requests if request.endswith(".bin")]


def test_a_download_cut_short_is_not_taken_for_whole(
    hub: HubServer, tmp_path: Path, tiny: Callable[[str], Path]
) -> None:
    commit = hub.add_model("org/tiny", tiny("bert"))
    env = hub.env(tmp_path)
    hub.cut_to = 2000
    assert_refused(fetch(env, "model=org/tiny")[0], "should be of size", *MODEL_WAYS)
    assert_refused(fetch(env | {"HF_HUB_OFFLINE": "1"}, "model=org/tiny")[0], "no whole copy")
    hub.cut_to = None
    [fetched] = fetch(env, "model=org/tiny")
    assert fetched["revision"] == commit
    whole = (tiny("bert") / "model.safetensors").read_bytes()
    assert (Path(fetched["folder"]) / "model.safetensors").read_bytes() == whole


def test_a_cache_that_holds_a_part_only_is_no_copy(hub: HubServer, tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    hub.add_model("org/tiny", tiny("bert"))
    env = hub.env(tmp_path)
    only_config = "import transformers; transformers.AutoConfig.from_pretrained('org/tiny')"
    subprocess.run([sys.executable, "-c", only_config], env=env, check=True)
    assert_refused(fetch(env | {"HF_HUB_OFFLINE": "1"}, "model=org/tiny")[0], "no whole copy", *MODEL_WAYS)


def test_data_that_cannot_be_read(hub: HubServer, tmp_path: Path) -> None:
    scripted, broken = write_csv_dataset(tmp_path / "scripted"), write_csv_dataset(tmp_path / "broken")
    (scripted / "scripted.py").write_text("raise SystemExit('this code must not run')")
    (broken / "train.csv").unlink()
    (broken / "train.parquet").write_bytes(b"no table")
    (broken / "test.csv").unlink()
    hub.add_dataset("org/scripted", scripted)
    hub.add_dataset("org/broken", broken)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("No rows.")
    hub.add_dataset("org/empty", tmp_path / "empty")
    names = ("dataset=org/scripted", "dataset=org/broken", "dataset=org/empty")
    script, table, empty = fetch(hub.env(tmp_path / "home"), *names)
    assert_refused(empty, "org/empty", "data files", *DATA_WAYS)
    assert_refused(script, "scripts are no longer supported", "folder", unavailable=False)
    assert_refused(table, "org/broken", "cannot be read", "folder", unavailable=False)


def test_a_fault_of_the_data_is_not_taken_for_a_missing_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("the splits have different columns")

    monkeypatch.setattr("lora_distill.hub._ask_commit", lambda *_: "0" * 40)
    monkeypatch.setattr("datasets.load_dataset_builder", refuse)
    monkeypatch.setattr("datasets.get_dataset_config_names", lambda *_, **__: ["default"])
    for name in ("org/name", "org/name:default"):
        with pytest.raises(UserError, match="cannot be read: the splits have different columns"):
            fetch_dataset(name)


def test_an_unwritable_cache(hub: HubServer, tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    hub.add_model("org/tiny", tiny("bert"))
    (tmp_path / "huggingface").write_text("a file where the cache should be")
    [result] = fetch(hub.env(tmp_path), "model=org/tiny")
    assert_refused(result, "org/tiny", str(tmp_path / "huggingface"))


def test_what_the_user_set_is_kept_and_nothing_heavy_is_imported() -> None:
    code = (
        "import os, sys; os.environ['TRANSFORMERS_VERBOSITY'] = 'info'; from lora_distill import hub; hub.quiet();"
        "assert os.environ['TRANSFORMERS_VERBOSITY'] == 'info';"
        "assert not {'torch', 'transformers', 'datasets', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_stand_in_serves_ranges(hub: HubServer, tmp_path: Path) -> None:
    source = write_csv_dataset(tmp_path / "source")
    commit = hub.add_dataset("org/ranged", source)
    url = f"{hub.url}/datasets/org/ranged/resolve/main/train.csv"
    with urlopen(Request(url, headers={"Range": "bytes=5-9"})) as answer:
        assert (answer.status, answer.read()) == (206, ROWS[5:10].encode())
        assert answer.headers["Content-Range"] == f"bytes 5-9/{len(ROWS)}"
        assert answer.headers["X-Repo-Commit"] == commit
