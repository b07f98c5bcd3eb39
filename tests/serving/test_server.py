"""The server as a process: what it says, what it does with slow clients, how it ends."""

import json
import resource
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient

from lora_distill.deployment.classifier import Classifier
from lora_distill.errors import UserError
from lora_distill.run_folder import ENVIRONMENT
from lora_distill.serving.app import create_app
from lora_distill.serving.server import KEY, allow_files, configure, listen, read_card, read_key
from lora_distill.serving.service import AT_ONCE
from lora_distill.serving.settings import ServeSettings
from lora_distill.store import write_json
from tests.conftest import Run
from tests.deployment.exported import write_exported
from tests.reporting.test_report import finished_run
from tests.serving.fake import FakeClassifier, label_of, served, until
from tests.serving.process import SERVE, process


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_exported(tmp_path_factory.mktemp("exported") / "model")
    (folder / "README.md").write_text("# Its card\n")
    return folder


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client ask, which asks nobody but the server here."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def test_an_exported_model_of_pairs(tmp_path: Path) -> None:
    folder = write_exported(tmp_path / "model", pairs=True, segments=True)
    with process(*SERVE, folder, log=tmp_path / "log") as (server, url):
        assert "torch" not in Path(f"/proc/{server.pid}/maps").read_text()
        pairs = [{"text": "tulip", "text_pair": "tulip comet"}, {"text": "tulip hedge", "text_pair": "tulip"}]
        answers = httpx.post(f"{url}/", json={"inputs": pairs}).json()
    assert [answer[0]["label"] for answer in answers] == ["space", "garden"]


@pytest.mark.usefixtures("online")
def test_an_exported_model_from_start_to_end(exported: Path, tmp_path: Path) -> None:
    texts = ["the tulip", "of butter", "orbit of a comet"]
    log = tmp_path / "log"
    with process(*SERVE, exported, log=log) as (server, url):
        assert "torch" not in Path(f"/proc/{server.pid}/maps").read_text()
        results = httpx.post(f"{url}/v1/classify", json={"texts": texts}).json()["results"]
        assert httpx.get(f"{url}/v1/model").json()["card"] == "# Its card\n"

        # Hugging Face's own client, as it is.
        client = InferenceClient(url)
        answers = [client.text_classification(text) for text in texts]
        (best,) = InferenceClient(base_url=url).text_classification(texts[1], top_k=1, function_to_apply="none")

        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    classifier = Classifier.load(exported)
    for row, result, answer in zip(classifier.predict_proba(texts), results, answers, strict=True):
        expected = [(classifier.classes_[column], row[column]) for column in np.argsort(-row, kind="stable")]
        assert [(each["label"], np.float32(each["probability"])) for each in result["probabilities"]] == expected
        assert [(each.label, np.float32(each.score)) for each in answer] == expected
    assert (best.label, best.score) == ("kitchen", 2.0)
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["path"] for each in told if each["event"] == "request"] == ["/v1/classify", "/v1/model", *["/"] * 4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_server_that_is_stopped_answers_what_it_has_accepted(tmp_path: Path, number: signal.Signals) -> None:
    def ask(text: str) -> str:
        answered = httpx.post(f"{url}/v1/classify", json={"text": text}, timeout=60)
        assert answered.status_code == 200
        return str(answered.json()["results"][0]["label"])

    def is_closed() -> bool:
        try:
            httpx.get(f"{url}/healthz")
        except httpx.TransportError:
            return True
        return False

    go = tmp_path / "go"
    held = process("tests.serving.held_server", go, "--max_batch", 1, log=tmp_path / "log")
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup, which the server would inherit
    with held as (server, url), ThreadPoolExecutor(8) as pool:
        signal.signal(signal.SIGHUP, hang_up)
        labels = {text: pool.submit(ask, text) for text in map(str, range(8))}
        until(lambda: f"waiting_texts {8 - AT_ONCE}.0" in httpx.get(f"{url}/metrics").text)  # others are being computed
        server.send_signal(number)
        until(is_closed)
        go.touch()
        assert {text: label.result() for text, label in labels.items()} == {text: label_of(text) for text in labels}
        assert server.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


@pytest.mark.usefixtures("online")
def test_a_key_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    log = tmp_path / "log"
    with process("tests.serving.held_server", tmp_path, "--key_file", tmp_path / "key", log=log) as (_, url):
        assert httpx.get(f"{url}/v1/model").status_code == 401
        assert InferenceClient(url, token="s3cret").text_classification("a")[0].label == label_of("a")
    with process("tests.serving.held_server", tmp_path, "--host", "0.0.0.0", log=log) as (_, url):
        assert "Whoever can reach this server can use it" in json.loads(log.read_text().splitlines()[0])["event"]
    assert read_key(str(tmp_path / "key")) == "s3cret"


def test_where_keys_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert read_key(None) == ""
    monkeypatch.setenv(KEY, " from-the-environment ")
    assert read_key(None) == "from-the-environment"
    file = tmp_path / "key"
    for content in (b"", b"two words", "schlüssel".encode(), b"\xff", b"a\nb"):
        file.write_bytes(content)
        with pytest.raises(UserError, match="key_file"):
            read_key(str(file))
    with pytest.raises(UserError, match="No such file"):
        read_key(str(tmp_path / "none"))
    monkeypatch.setenv(KEY, "")
    with pytest.raises(UserError, match=f"{KEY}: holds no key"):  # and not a server that is open by mistake
        read_key(None)


def test_cards(tmp_path: Path) -> None:
    assert read_card(tmp_path) == ""
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "README.md").write_text("of the student")
    assert read_card(tmp_path) == "of the student"
    (tmp_path / "README.md").write_text("of the export")
    assert read_card(tmp_path) == "of the export"


def test_the_card_of_a_run_names_no_place_of_this_machine(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "mine", 0, dataset="/home/someone/rows.csv")
    model = {"kind": "folder", "name": "/home/someone/encoder", "reference": "/home/someone/encoder"}
    write_json(run.path / ENVIRONMENT, run.environment() | {"base_model": model, "student_base_model": model})
    (run.path / "student").mkdir(exist_ok=True)
    (run.path / "student" / "README.md").write_text("made of /home/someone/rows.csv and /home/someone/encoder")
    assert read_card(run.path) == read_card(run.path / "student") == "made of rows.csv and encoder"


def test_a_model_at_home_has_its_card(exported: Path, tmp_path: Path) -> None:
    home = {"HOME": str(exported.parent)}
    with process(*SERVE, f"~/{exported.name}", log=tmp_path / "log", **home) as (_, url):
        assert httpx.get(f"{url}/v1/model").json()["card"] == "# Its card\n"


@pytest.mark.parametrize("limits", [{}, {"max_queue": 5000}, {"max_batch": 2000}])
def test_a_queue_is_full_before_there_are_too_many_connections(limits: dict[str, int]) -> None:
    settings = ServeSettings(**limits)
    most = configure(create_app(FakeClassifier(), settings), settings).limit_concurrency
    assert most
    assert most > settings.max_queue + settings.max_batch


def test_there_may_be_as_many_open_files_as_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = list[tuple[int, int]]()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: allowed.append(limits))
    allow_files(ServeSettings())
    assert allowed == [(1024, 4096)]
    with pytest.raises(UserError, match=r"that takes 5,512 open files, and this process may have 4,096\."):
        allow_files(ServeSettings(max_queue=5000))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    allow_files(ServeSettings(max_queue=5000))
    assert allowed[1:] == [(5512, resource.RLIM_INFINITY)]


def answers_are_not_crossed(url: str, numbers: Sequence[int]) -> int:
    with httpx.Client(timeout=60) as client:
        for number in numbers:
            texts = [f"{number} {index}" for index in range(number % 5)]
            results = client.post(f"{url}/v1/classify", json={"texts": texts}).json()["results"]
            assert [result["label"] for result in results] == [label_of(text) for text in texts]
    return len(numbers)


def test_no_answer_is_lost_or_crossed_between_clients() -> None:
    settings = ServeSettings(max_batch=8)
    with served(create_app(FakeClassifier(), settings), settings) as url, ThreadPoolExecutor(16) as pool:
        counts = pool.map(lambda start: answers_are_not_crossed(url, range(start, 800, 16)), range(16))
        assert sum(counts) == 800


def test_a_port_that_is_taken(run: Run, exported: Path) -> None:
    with closing(listen("127.0.0.1", 0)) as taken:
        code, out, err = run("serve", exported, "--port", taken.getsockname()[1])
    assert (code, out) == (2, "")
    assert "Address already in use. Give another; --port 0 takes one that is free.\n" in err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["none"], "error: model none: no such folder."),
        ([".", "--port", "http"], "error: --port: 'http' is no whole number; it must be at least 0 and at most 65535."),
        ([".", "--max_body", "much"], "error: --max_body: 'much' "),
        (
            [".", "--max_queue", "8"],
            "error: --max_queue 8: a request may hold more texts than may wait, --max_texts 256.",
        ),
        ([".", "--timeout", "0"], "error: --timeout: '0' "),
        ([".", "--host", "no.such.host.invalid"], "error: --host no.such.host.invalid --port 8000: "),
        ([".", "--host", "ü.."], "error: --host ü.. --port 8000: no such host. Give another"),
        ([".", "--timeout", "1e308"], "error: --timeout: '1e308' "),
        ([".", "--threads", "100000000"], "error: --threads: '100000000' "),
        ([".", "--allow_origins", "https://a.org,b.org"], "error: --allow_origins: "),
        *(
            ([".", "--allow_origins", origin], "error: --allow_origins: ")
            for origin in ("https://a.org/", "https://A.org", "https://a.org:443", "http://a.org:80")
        ),
        (
            [".", "--max_queue", "100000000"],
            "error: --max_queue 100000000, --max_batch 64: that takes 100,000,512",
        ),
        ([".", "--key", "s3cret"], "error: --key: no such flag"),
        ([".", "--key_file", "none"], "error: --key_file none: No such file or directory."),
    ],
)
def test_what_cannot_be_served(run: Run, flags: list[str], told: str) -> None:
    code, out, err = run("serve", *flags)
    assert (code, out) == (2, "")
    assert err.startswith(told)
    assert len(err.splitlines()) <= 3
