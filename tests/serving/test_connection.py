"""Connections of a server: slow clients, clients that leave, heads that are none."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress

import httpx
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lora_distill.serving.app import create_app
from lora_distill.serving.connection import MOST_HEAD, Protocol
from lora_distill.serving.server import listen
from lora_distill.serving.service import AT_ONCE
from lora_distill.serving.settings import ServeSettings
from tests.serving.fake import FakeClassifier, label_of, served, until


def connect(url: str, request: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    opened = socket.create_connection((host, int(port)), timeout=30)
    opened.sendall(request.encode())
    return opened


BODY = '{"text": "a"}'
HEAD = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_slow_clients_are_let_go_and_cost_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_distill.serving.connection.IDLE_SECONDS", 1)
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
    monkeypatch.setattr("lora_distill.serving.connection.IDLE_SECONDS", 1)
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
    monkeypatch.setattr("lora_distill.serving.connection.IDLE_SECONDS", 1)


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
    classifier, settings = FakeClassifier(), ServeSettings(max_batch=1)
    with served(create_app(classifier, settings), settings) as url:
        classifier.go.clear()
        leaving = [connect(url, f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY}") for _ in range(8)]
        with ThreadPoolExecutor() as pool:
            until(lambda: f"waiting_texts {8 - AT_ONCE}.0" in httpx.get(f"{url}/metrics").text)
            staying = pool.submit(httpx.post, f"{url}/v1/classify", json={"text": "b"})
            until(lambda: f"waiting_texts {9 - AT_ONCE}.0" in httpx.get(f"{url}/metrics").text)
            for each in leaving:
                each.close()
            until(lambda: "waiting_texts 1.0" in httpx.get(f"{url}/metrics").text)
            classifier.go.set()
            assert staying.result().json()["results"][0]["label"] == label_of("b")
        assert classifier.batches[AT_ONCE:] == [["b"]]  # nothing is computed for who has left
        assert 'status="499"' in httpx.get(f"{url}/metrics").text


def test_a_client_that_leaves_within_its_body_is_counted_as_gone() -> None:
    settings = ServeSettings()
    with served(create_app(FakeClassifier(), settings), settings) as url:
        connect(url, f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY[:5]}").close()
        until(lambda: 'status="499"' in httpx.get(f"{url}/metrics").text)
        assert 'status="400"' not in httpx.get(f"{url}/metrics").text


def test_all_bodies_together_are_held_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_distill.serving.gate.MOST_HELD", 3000)
    settings = ServeSettings(max_body=1000)
    large, reason = {"text": "a" * 400}, "Too much is sent here at once. Ask again."
    with served(create_app(FakeClassifier(), settings), settings) as url:
        halves = [connect(url, f"{HEAD}Content-Length: 1000\r\n\r\n{900 * ' '}") for _ in range(3)]
        until(lambda: httpx.post(f"{url}/v1/classify", json=large).status_code == 503)
        refused = httpx.post(f"{url}/v1/classify", json=large)
        assert (refused.json()["error"], refused.headers["Retry-After"]) == (reason, "1")
        assert httpx.post(f"{url}/v1/classify", json={"text": "a"}).is_success  # there is room for it
        for each in halves:
            each.close()
        until(lambda: httpx.post(f"{url}/v1/classify", json=large).is_success)


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


def test_uvicorn_has_the_methods_that_are_overridden_and_called() -> None:
    overridden = {name for name in vars(Protocol) if not name.startswith("_")} - {"head"}
    assert {"data_received", "on_response_complete"} <= overridden
    assert overridden | {"send_400_response", "timeout_keep_alive_handler"} <= vars(HttpToolsProtocol).keys()
