"""The server as a process: what it says, what it does with slow clients, how it ends."""

import json
import signal
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lora_distill.deployment.classifier import Classifier
from lora_distill.errors import UserError
from lora_distill.run_folder import ENVIRONMENT
from lora_distill.serving.app import create_app
from lora_distill.serving.server import KEY, MOST_HEAD, _Protocol, configure, listen, read_card, read_key
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
        expected = [(classifier.labels[column], row[column]) for column in np.argsort(-row, kind="stable")]
        assert [(each["label"], np.float32(each["probability"])) for each in result["probabilities"]] == expected
        assert [(each.label, np.float32(each.score)) for each in answer] == expected
    assert (best.label, best.score) == ("kitchen", 2.0)
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["path"] for each in told if each["event"] == "request"] == ["/v1/classify", "/v1/model", *["/"] * 4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
    with held as (server, url), ThreadPoolExecutor(8) as pool:
        labels = {text: pool.submit(ask, text) for text in map(str, range(8))}
        until(lambda: "waiting_texts 7.0" in httpx.get(f"{url}/metrics").text)  # the eighth is being computed
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


def connect(url: str, request: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    opened = socket.create_connection((host, int(port)), timeout=30)
    opened.sendall(request.encode())
    return opened


BODY = '{"text": "a"}'
HEAD = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_slow_clients_are_let_go_and_cost_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_distill.serving.server.IDLE_SECONDS", 1)
    settings = ServeSettings(timeout=1)
    with served(create_app(FakeClassifier(), settings), settings) as url:
        silent = [connect(url, sent) for sent in ("", "POST /v1", HEAD, f"{HEAD}Content-Length: 13")]
        halves = [
            connect(url, f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY[:5]}"),
            connect(url, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\n{BODY[:5]}\r\n"),
        ]
        kept = connect(url, f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY}")
        assert kept.recv(100).startswith(b"HTTP/1.1 200 ")
        kept.sendall(HEAD.encode())  # a second request, which never ends
        assert httpx.post(f"{url}/v1/classify", content=BODY, headers={"Content-Type": "application/json"}).is_success
        for each in silent:
            with closing(each):
                assert each.recv(100) == b""
        for each in halves:
            with closing(each):
                answered = b"".join(iter(lambda: each.recv(4096), b""))  # noqa: B023 - read at once
                assert answered.startswith(b"HTTP/1.1 408 ")
                assert answered.endswith(b"The request's body did not arrive within 1 seconds.\"}")
        with closing(kept):
            assert b"HTTP/1.1" not in b"".join(iter(lambda: kept.recv(4096), b""))


def test_a_body_that_goes_on_after_its_answer_keeps_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_distill.serving.server.IDLE_SECONDS", 1)
    settings = ServeSettings(max_body=100)
    given = "Authorization: Bearer s3cret\r\n"
    with served(create_app(FakeClassifier(), settings, key="s3cret"), settings) as url:
        requests = {
            "401": f"{HEAD}Content-Length: 50\r\n\r\n",
            "413": f"{HEAD}{given}Content-Length: 500\r\n\r\n",
            "200": "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n",
        }
        opened = {status: connect(url, request) for status, request in requests.items()}
        for status, each in opened.items():
            assert each.recv(12) == f"HTTP/1.1 {status}".encode()
            each.sendall(b"b")
        for each in opened.values():
            with closing(each):
                assert all(iter(lambda: each.recv(4096), b""))  # noqa: B023 - read at once


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system take little of an answer off the server's hands."""

    def listen_narrowly(host: str, port: int) -> socket.socket:
        listener = listen(host, port)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**12)
        return listener

    monkeypatch.setattr("tests.serving.fake.listen", listen_narrowly)
    monkeypatch.setattr("lora_distill.serving.server.IDLE_SECONDS", 1)


def connect_narrowly(url: str, request: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
    opened.settimeout(30)
    opened.connect((host, int(port)))
    opened.sendall(request.encode())
    return opened


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("size", [50_000, 5_000_000])  # less than what makes uvicorn wait, and more
def test_an_answer_that_nobody_reads_keeps_no_connection(size: int) -> None:
    settings = ServeSettings()
    with served(create_app(FakeClassifier(), settings, card="a" * size), settings) as url, ExitStack() as opened:
        waiting = []
        for path, most in (("/v1/model", size), ("/swagger/swagger-ui-bundle.js", 1_500_000)):
            for more in ("", "Connection: close\r\n"):
                client = connect_narrowly(url, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
                waiting.append((opened.enter_context(closing(client)), most))
        time.sleep(4)  # twice a second, and as much for a slow machine
        for each, most in waiting:
            found = 0
            with suppress(ConnectionResetError):
                while part := each.recv(2**20):
                    found += len(part)
            assert found < most


@pytest.mark.usefixtures("narrow")
def test_an_answer_that_is_read_slowly_is_read_to_its_end() -> None:
    settings, size, found = ServeSettings(), 1_000_000, 0
    asked = "GET /v1/model HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with (
        served(create_app(FakeClassifier(), settings, card="a" * size), settings) as url,
        closing(connect_narrowly(url, asked)) as opened,
    ):
        began = time.monotonic()
        while part := opened.recv(2**12):
            found += len(part)
            time.sleep(0.01)
        assert time.monotonic() - began > 2
    assert found > size


def test_a_connection_too_many_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_distill.serving.server.OTHER_CONNECTIONS", 1)
    settings = ServeSettings(max_queue=1, max_texts=1, max_batch=1)
    asked = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with served(create_app(FakeClassifier(), settings), settings) as url, ExitStack() as opened:
        first, *others = [opened.enter_context(closing(connect(url, asked))) for _ in range(3)]
        for each in (first, *others):
            assert each.recv(4096).startswith(b"HTTP/1.1 200 ")
        with closing(connect(url, "")) as late, suppress(ConnectionResetError):
            assert late.recv(4096) == b""
        first.sendall(asked.encode())
        assert first.recv(4096).startswith(b"HTTP/1.1 200 ")
        others[0].close()
        until(lambda: was_answered(url, asked))


def was_answered(url: str, asked: str) -> bool:
    with suppress(ConnectionError), closing(connect(url, asked)) as opened:
        return opened.recv(4096).startswith(b"HTTP/1.1 200 ")
    return False


@pytest.mark.parametrize("header", ["a", "a: b\r\n"])
def test_a_head_that_is_too_long_is_a_400(header: str) -> None:
    settings = ServeSettings()
    head = f"{HEAD}b: {header * MOST_HEAD}"[: MOST_HEAD + 1]
    with served(create_app(FakeClassifier(), settings), settings) as url, closing(connect(url, head)) as opened:
        answered = b"".join(iter(lambda: opened.recv(4096), b""))
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert answered.endswith(b"A request's head has at most 65,536 bytes here.")


def test_clients_that_leave_keep_nobody_from_an_answer() -> None:
    classifier, settings = FakeClassifier(), ServeSettings(max_batch=4)
    with served(create_app(classifier, settings), settings) as url:
        classifier.go.clear()
        leaving = [connect(url, f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY}") for _ in range(8)]
        classifier.begun.wait()
        begun = len(classifier.batches[0])
        with ThreadPoolExecutor() as pool:
            until(lambda: f"waiting_texts {8 - begun}.0" in httpx.get(f"{url}/metrics").text)
            staying = pool.submit(httpx.post, f"{url}/v1/classify", json={"text": "b"})
            until(lambda: f"waiting_texts {9 - begun}.0" in httpx.get(f"{url}/metrics").text)
            for each in leaving:
                each.close()
            until(lambda: "waiting_texts 1.0" in httpx.get(f"{url}/metrics").text)
            classifier.go.set()
            assert staying.result().json()["results"][0]["label"] == label_of("b")
        assert classifier.batches[1:] == [["b"]]  # nothing is computed for who has left
        assert 'status="499"' in httpx.get(f"{url}/metrics").text


@pytest.mark.parametrize("limits", [{}, {"max_queue": 5000}, {"max_batch": 2000}])
def test_a_queue_is_full_before_there_are_too_many_connections(limits: dict[str, int]) -> None:
    settings = ServeSettings(**limits)
    most = configure(create_app(FakeClassifier(), settings), settings).limit_concurrency
    assert most
    assert most > settings.max_queue + settings.max_batch


@pytest.mark.parametrize(
    "request_line", ["GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02", "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_what_is_no_http_is_a_400(request_line: str) -> None:
    settings = ServeSettings()
    with served(create_app(FakeClassifier(), settings), settings) as url, closing(connect(url, request_line)) as opened:
        assert opened.recv(100).startswith(b"HTTP/1.1 400 ")


UPGRADE = f"{HEAD}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


def test_a_request_that_asks_for_another_protocol_is_answered_in_its_own() -> None:
    settings = ServeSettings()
    whole = f"{UPGRADE}Content-Length: {len(BODY)}\r\n\r\n{BODY}"
    with served(create_app(FakeClassifier(), settings), settings) as url:
        for parts in ([whole], [whole[:30], whole[30:-5], whole[-5:]], [whole[: -len(BODY)], BODY]):
            with closing(connect(url, parts[0])) as opened:
                for part in parts[1:]:
                    time.sleep(0.05)
                    opened.sendall(part.encode())
                assert opened.recv(100).startswith(b"HTTP/1.1 200 ")
        with closing(connect(url, whole + whole.replace("h2c", "websocket"))) as opened:
            told = bytearray()
            while told.count(b"HTTP/1.1 200 ") < 2:
                told += opened.recv(4096)


def test_what_follows_such_a_request_s_head_is_its_body() -> None:
    settings, hidden = ServeSettings(), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with served(create_app(FakeClassifier(), settings), settings) as url:
        with closing(connect(url, f"{UPGRADE}Content-Length: {len(hidden)}\r\n\r\n")) as opened:
            time.sleep(0.05)
            opened.sendall(hidden.encode())
            assert opened.recv(4096).startswith(b"HTTP/1.1 422 ")
            opened.settimeout(0.3)
            with pytest.raises(TimeoutError):
                opened.recv(4096)
        with closing(connect(url, "CONNECT a.org:443 HTTP/1.1\r\nHost: localhost\r\n\r\n")) as opened:
            assert opened.recv(100).startswith(b"HTTP/1.1 400 ")


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


def test_uvicorn_has_the_methods_that_are_overridden_and_called() -> None:
    overridden = {name for name in vars(_Protocol) if not name.startswith("_")} - {"head"}
    assert {"data_received", "on_response_complete"} <= overridden
    assert overridden | {"send_400_response", "timeout_keep_alive_handler"} <= vars(HttpToolsProtocol).keys()


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
        ([".", "--allow_origins", "https://a.org/"], "error: --allow_origins: "),
        ([".", "--key", "s3cret"], "error: --key: no such flag"),
        ([".", "--key_file", "none"], "error: --key_file none: No such file or directory."),
    ],
)
def test_what_cannot_be_served(run: Run, flags: list[str], told: str) -> None:
    code, out, err = run("serve", *flags)
    assert (code, out) == (2, "")
    assert err.startswith(told)
    assert len(err.splitlines()) <= 3
