"""What every request passes: name, key, size, headers, log."""

import json
import logging

import httpx
import pytest

from lora_distill.serving.app import create_app
from lora_distill.serving.logs import JsonFormatter
from lora_distill.serving.settings import ServeSettings
from tests.serving.conftest import Client
from tests.serving.fake import POISON, FakeClassifier, served

KEY = "s3cret"


@pytest.mark.parametrize(
    "given", [None, "", KEY, f"Basic {KEY}", "Bearer", f"Bearer {KEY}x", f"Bearer  {KEY}", "Bearer é"]
)
def test_without_the_key_there_is_no_answer(client: Client, given: str | None) -> None:
    headers = {} if given is None else {b"Authorization": given.encode()}
    opened = client(key=KEY)
    for method, path in (
        ("POST", "/"),
        ("POST", "/v1/classify"),
        ("GET", "/v1/model"),
        ("GET", "/metrics"),
        ("GET", "/x"),
    ):
        answered = opened.request(method, path, headers=headers)
        assert answered.status_code == 401
        assert answered.headers["WWW-Authenticate"] == "Bearer"
        assert "Authorization: Bearer KEY" in answered.json()["error"]


OWN = ["localhost", "LOCALHOST:8000", "127.0.0.1:80", "127.9.9.9", "[::1]", "[::1]:8000"]
OTHERS = ["a.org", "a.org:8000", "localhost.a.org", "127.0.0.1.a.org", "10.0.0.1", "[::2]", "[", "a@b:c", ":80"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_server_of_its_machine_alone_is_asked_by_the_machine_s_own_names(client: Client, host: str) -> None:
    opened = client(host=host)
    for name in (*OWN, ""):
        assert opened.post("/v1/classify", json={"text": "a"}, headers={"Host": name}).status_code == 200
    for name in OTHERS:
        for method, path in (("GET", "/"), ("GET", "/v1/model"), ("POST", "/v1/classify")):
            answered = opened.request(method, path, headers={"Host": name})
            assert answered.status_code == 421
            assert answered.json()["error"].startswith("Ask this server as localhost or 127.0.0.1")


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0"}, {"host": "::"}, {"host": "10.0.0.1"}, {"key": KEY}])
def test_another_is_asked_by_any_name(client: Client, settings: dict[str, str]) -> None:
    opened = client(**settings)
    for name in (*OWN, *OTHERS):
        headers = {"Host": name, "Authorization": f"Bearer {KEY}"}
        assert opened.post("/v1/classify", json={"text": "a"}, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/page/page.js", "/swagger/swagger-ui.css", "/healthz", "/docs", "/openapi.json"])
def test_a_wrong_method_is_told_the_right_ones(client: Client, path: str) -> None:
    answered = client().put(path)
    assert (answered.status_code, answered.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])  # RFC 9110, section 11.1: in any case
def test_with_the_key_there_is(scheme: str, client: Client) -> None:
    opened = client(key=KEY)
    opened.headers["Authorization"] = f"{scheme} {KEY}"
    assert opened.post("/v1/classify", json={"text": "a"}).status_code == 200
    assert opened.post("/", json={"inputs": "a"}).status_code == 200
    assert opened.get("/metrics").status_code == 200


def test_pages_and_health_need_no_key_and_hold_nothing_of_the_model(client: Client) -> None:
    opened = client(key=KEY, card="a secret card")
    for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/page/page.js", "/colours.css"):
        answered = opened.get(path)
        assert answered.status_code == 200
        assert "Sports" not in answered.text
        assert "secret" not in answered.text
        answered = opened.head(path)
        assert (answered.status_code, answered.content) == (200, b"")
    assert opened.get("/page/../v1/model").status_code == 401
    assert opened.head("/v1/model").status_code == 401
    assert opened.post("/healthz").status_code == 401


def test_a_head_is_a_get_without_a_body(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    opened = client()
    with caplog.at_level(logging.INFO):
        assert opened.head("/v1/model").headers["Content-Type"] == "application/json"
    assert [record.__dict__["fields"]["method"] for record in caplog.records if record.msg == "request"] == ["HEAD"]
    assert opened.head("/nothing").status_code == 404
    assert (opened.head("/v1/classify").status_code, opened.put("/").headers["Allow"]) == (405, "GET, HEAD, POST")
    settings = ServeSettings()
    with served(create_app(FakeClassifier(), settings), settings) as url, httpx.Client() as one_connection:
        for path in ("/", "/healthz", "/readyz"):  # a body would be taken for the beginning of the next answer
            answered = one_connection.head(f"{url}{path}")
            assert answered.headers["Content-Length"] == one_connection.get(f"{url}{path}").headers["Content-Length"]


def test_the_description_says_what_needs_the_key(client: Client) -> None:
    paths = client(key=KEY).get("/openapi.json").json()["paths"]
    needing = {(method, path) for path, methods in paths.items() for method in methods if "security" in methods[method]}
    assert needing == {("post", "/"), ("post", "/v1/classify"), ("get", "/v1/model"), ("get", "/metrics")}
    assert "security" not in client().get("/openapi.json").text


def test_a_body_that_is_too_large_is_a_413_told_or_not(client: Client) -> None:
    opened = client(max_body=1000)
    body = json.dumps({"text": "a" * 1000}).encode()
    told = opened.post("/v1/classify", content=body, headers={"Content-Type": "application/json"})
    untold = opened.post(
        "/v1/classify", content=iter([body[:600], body[600:]]), headers={"Content-Type": "application/json"}
    )
    for answered in (told, untold):
        assert answered.status_code == 413
        assert answered.json()["error"].startswith("A request's body has at most 1,000 bytes here.")
    fits = json.dumps({"text": "a" * (1000 - len('{"text": ""}'))}).encode()
    assert len(fits) == 1000
    assert opened.post("/v1/classify", content=fits, headers={"Content-Type": "application/json"}).status_code == 200


def test_a_length_that_is_no_number_is_the_server_s_to_judge(client: Client) -> None:
    for length in ("-1", "1e9", "٣", "9" * 500):
        answered = client().post("/v1/classify", content=b"{}", headers={b"Content-Length": length.encode()})
        assert answered.status_code in {413, 422}


def test_every_answer_forbids_what_a_page_does_not_need(client: Client) -> None:
    opened = client(key=KEY)
    for path in ("/", "/v1/model", "/nothing"):
        headers = opened.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_other_sites_may_ask_only_where_that_was_said(client: Client) -> None:
    preflight = {"Origin": "https://a.org", "Access-Control-Request-Method": "POST"}
    closed = client().options("/v1/classify", headers=preflight)
    assert closed.status_code == 405
    assert "Access-Control-Allow-Origin" not in closed.headers
    opened = client(allow_origins="https://a.org,https://b.org", key=KEY)
    allowed = opened.options("/v1/classify", headers=preflight | {"Access-Control-Request-Headers": "authorization"})
    assert (allowed.status_code, allowed.headers["Access-Control-Allow-Origin"]) == (200, "https://a.org")
    assert "Access-Control-Allow-Origin" in opened.get("/v1/model", headers={"Origin": "https://b.org"}).headers
    assert opened.options("/v1/classify", headers=preflight | {"Origin": "https://c.org"}).status_code == 400


def test_the_log_has_each_request_in_json_and_no_text_that_was_sent(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    text = "whisper"
    opened = client(max_characters=20, key=KEY)
    opened.headers["Authorization"] = f"Bearer {KEY}"
    with caplog.at_level(logging.INFO):
        opened.post("/v1/classify", json={"texts": [text, text]})
        opened.post("/v1/classify", json={"texts": [text, POISON]})
        opened.post("/v1/classify", json={"text": text * 10})
        opened.post("/", json={"inputs": [text, 5]})
        opened.post("/v1/classify", content=f'{{"{text}'.encode(), headers={"Content-Type": "application/json"})
        opened.get(f"/{text}", params={"text": text})
    lines = [JsonFormatter().format(record) for record in caplog.records if record.name.startswith("lora_distill")]
    assert not any("\n" in line or text in line or KEY in line for line in lines)
    told = [json.loads(line) for line in lines]
    requests = [each for each in told if each["event"] == "request"]
    assert [(each["method"], each["path"], each["status"], each.get("texts")) for each in requests] == [
        ("POST", "/v1/classify", 200, 2),
        ("POST", "/v1/classify", 500, 2),
        ("POST", "/v1/classify", 422, None),
        ("POST", "/", 422, None),
        ("POST", "/v1/classify", 422, None),
        ("GET", "none", 404, None),
    ]
    assert all(each["ms"] >= 0 and each["level"] == "info" for each in requests)
    (failure,) = (each for each in told if each["event"] == "failed")
    assert (failure["level"], failure["error"]) == ("error", "ValueError")
    assert any("fake.py" in where for where in failure["where"])
