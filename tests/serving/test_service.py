"""What the endpoints answer."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter, ValidationError

from lora_distill.data.types import Text
from lora_distill.errors import UserError
from lora_distill.serving.app import create_app
from lora_distill.serving.schemas import Asked, AskedPairs, HubPairsRequest, HubRequest
from lora_distill.serving.service import AT_ONCE
from lora_distill.serving.settings import ServeSettings
from tests.serving.conftest import Client
from tests.serving.fake import LABELS, POISON, FakeClassifier, label_of, logits_of, until


def probabilities_of(text: Text) -> dict[str, float]:
    return dict(zip(LABELS, FakeClassifier().probabilities(logits_of([text]))[0].tolist(), strict=True))


def test_one_text(client: Client) -> None:
    answered = client().post("/v1/classify", json={"text": "a text"})
    assert answered.status_code == 200
    (result,) = answered.json()["results"]
    expected = probabilities_of("a text")
    assert result["label"] == label_of("a text") == max(expected, key=lambda label: expected[label])
    assert result["confidence"] == expected[result["label"]]
    ranked = [(each["label"], each["probability"]) for each in result["probabilities"]]
    assert ranked == sorted(expected.items(), key=lambda pair: -pair[1])


def test_texts_are_answered_in_their_order_and_top_k_says_how_fully(client: Client) -> None:
    texts = [f"text {number}" for number in range(50)]
    results = client().post("/v1/classify", json={"texts": texts, "top_k": 2}).json()["results"]
    assert [result["label"] for result in results] == [label_of(text) for text in texts]
    assert {len(result["probabilities"]) for result in results} == {2}
    assert (
        client().post("/v1/classify", json={"texts": texts[:1], "top_k": 99}).json()["results"][0]["probabilities"][2]
    )


def test_a_sigmoid_of_whatever_logits(client: Client, classifier: FakeClassifier) -> None:
    classifier.temperature = 0.01
    asked = {"inputs": "a", "parameters": {"function_to_apply": "sigmoid"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "logits", lambda _: np.array([[-9, 0, 9]], np.float32))
        with np.errstate(all="raise"):
            answers = client().post("/", json=asked).json()
    assert sorted(each["score"] for each in answers[0]) == [0, 0.5, 1]


def test_a_base_model_is_told_without_the_folder_that_it_lies_in(client: Client, classifier: FakeClassifier) -> None:
    for name, told in (("/home/someone/encoder", "encoder"), ("org/encoder", "org/encoder"), ("minilm", "minilm")):
        classifier.about["made_from"]["base_model"] = name
        assert client().get("/v1/model").json()["about"]["made_from"]["base_model"] == told
    assert classifier.about["made_from"]["base_model"] == "minilm"


def test_nothing_to_answer(client: Client) -> None:
    assert client().post("/v1/classify", json={"texts": []}).json() == {"results": []}
    assert client().post("/v1/classify", json={"text": ""}).json()["results"][0]["label"] == label_of("")


@pytest.mark.parametrize("of", [None, "softmax", "sigmoid", "none"])
def test_the_hub_s_protocol(client: Client, of: str | None) -> None:
    asked = {"inputs": ["a", "b"], "parameters": {"function_to_apply": of, "truncation": True}, "options": {}}
    answers = client().post("/", json=asked).json()
    logits = logits_of(["a", "b"])
    expected = {
        "none": logits,
        "sigmoid": 1 / (1 + np.exp(-logits / FakeClassifier.temperature)),
    }.get(of or "softmax", FakeClassifier().probabilities(logits))
    for answer, row in zip(answers, expected, strict=True):
        assert [each["label"] for each in answer] == [LABELS[column] for column in np.argsort(-row)]
        assert [each["score"] for each in answer] == pytest.approx(sorted(row.tolist(), reverse=True))


def test_the_hub_s_protocol_answers_one_text_as_it_does_many(client: Client) -> None:
    (answer,) = client().post("/", json={"inputs": "a", "parameters": {"top_k": 1}}).json()
    assert [each["label"] for each in answer] == [label_of("a")]


def test_the_model_tells_of_itself_and_of_what_it_takes(client: Client) -> None:
    told = client(card="# A card", max_texts=3, max_body="1kB").get("/v1/model").json()
    assert told["labels"] == list(LABELS)
    assert told["about"]["made_from"]["metrics"] == {"accuracy": 0.931}
    assert told["card"] == "# A card"
    assert told["limits"] == {"max_texts": 3, "max_characters": 20_000, "max_body": 1000}


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({}, "body.text: Field required"),
        ([], "body: Input should be a valid dictionary or object to extract fields from"),
        (None, "body: Field required"),
        ({"text": 1}, "body.text: Input should be a valid string"),
        ({"texts": "a"}, "body.texts: Input should be a valid list"),
        ({"texts": ["a", None]}, "body.texts.1: Input should be a valid string"),
        ({"text": "a", "top_k": 0}, "body.top_k: Input should be greater than or equal to 1"),
        ({"text": "a", "top_k": True}, "body.top_k: Input should be a valid integer"),
        ({"text": "a", "top_k": float("nan")}, "body.top_k: Input should be a valid integer"),
        ({"text": "a", "limit": 2}, "body.limit: Extra inputs are not permitted"),
        ({"text": "\ud800"}, "body.text: holds a surrogate without its other half, which is no character"),
        ({"texts": list("abcd")}, "4 texts in one request; it takes 3 at most."),
        ({"texts": ["a", "b" * 11]}, "Text 1 has 11 characters; a text has 10 at most."),
    ],
)
def test_what_is_wrong_with_a_request_is_said(client: Client, asked: object, reason: str) -> None:
    body = json.dumps(asked) if asked is not None else ""
    answered = client(max_texts=3, max_characters=10).post(
        "/v1/classify", content=body, headers={"Content-Type": "application/json"}
    )
    assert (answered.status_code, answered.json()) == (422, {"error": reason})


MANY = 10_000


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        (Asked, {"texts": [0] * MANY}),
        (Asked, {"text": "a"} | {str(number): 0 for number in range(MANY)}),
        (AskedPairs, {"texts": [0] * MANY}),
        (AskedPairs, {"texts": [{str(number): 0 for number in range(MANY)}]}),
        (AskedPairs, {"texts": [{}] * MANY}),
        (HubRequest, {"inputs": [0] * MANY}),
        (HubPairsRequest, {"inputs": [0] * MANY}),
        (HubPairsRequest, {"inputs": [{}] * MANY}),
    ],
)
def test_of_many_faults_few_are_looked_for(kind: Any, asked: object) -> None:  # noqa: ANN401 - what pydantic reads
    with pytest.raises(ValidationError) as error:
        TypeAdapter(kind).validate_python(asked)
    assert error.value.error_count() <= 3


def test_of_several_faults_three_are_said(client: Client) -> None:
    answered = client().post("/v1/classify", json={"text": 0, "top_k": "a", "b": 0, "c": 0})
    assert answered.json()["error"].split("; ") == [
        "body.text: Input should be a valid string",
        "body.top_k: Input should be a valid integer",
        "body.b: Extra inputs are not permitted",
    ]


def test_of_the_hub_s_requests_too(client: Client) -> None:
    answered = client().post("/", json={"inputs": 5})
    assert answered.status_code == 422
    assert set(answered.json()["error"].split("; ")) == {
        "body.inputs: Input should be a valid string",
        "body.inputs: Input should be a valid list",
    }
    half = b'{"inputs": ["a", "\\ud800"]}'
    assert client().post("/", content=half, headers={"Content-Type": "application/json"}).status_code == 422
    assert client().post("/", json={"inputs": "a", "parameters": {"function_to_apply": "tanh"}}).status_code == 422
    assert client(max_texts=1).post("/", json={"inputs": ["a", "b"]}).status_code == 422


PAIR = {"text": "a", "text_pair": "b"}
WANTED = 'should be a pair of texts, {"text": ..., "text_pair": ...}: this model reads pairs'


@pytest.mark.parametrize("classifier", [FakeClassifier(pairs=True)])
def test_pairs(client: Client, classifier: FakeClassifier) -> None:
    opened, other = client(max_texts=3, max_characters=10), {"text": "b", "text_pair": "a"}
    (result,) = opened.post("/v1/classify", json=PAIR | {"top_k": 1}).json()["results"]
    assert (result["label"], len(result["probabilities"])) == (label_of(("a", "b")), 1)
    assert result["confidence"] == max(probabilities_of(("a", "b")).values())
    results = opened.post("/v1/classify", json={"texts": [PAIR, other]}).json()["results"]
    assert [each["label"] for each in results] == [label_of(("a", "b")), label_of(("b", "a"))]
    for inputs, pairs in ((PAIR, [("a", "b")]), ([other, PAIR], [("b", "a"), ("a", "b")])):
        answers = opened.post("/", json={"inputs": inputs}).json()
        assert [answer[0]["label"] for answer in answers] == [label_of(pair) for pair in pairs]
    assert classifier.batches == [[("a", "b")], [("a", "b"), ("b", "a")], [("a", "b")], [("b", "a"), ("a", "b")]]
    assert opened.get("/v1/model").json()["pairs"] is True
    assert "OnePair" in opened.get("/openapi.json").json()["components"]["schemas"]


@pytest.mark.parametrize("classifier", [FakeClassifier(pairs=True)])
@pytest.mark.parametrize(
    ("path", "asked", "reason"),
    [
        ("/v1/classify", {"text": "a"}, "body.text_pair: Field required"),
        ("/v1/classify", {"texts": [PAIR, "a"]}, f"body.texts.1: {WANTED}"),
        ("/v1/classify", {"texts": [{"text": "a"}]}, "body.texts.0.text_pair: Field required"),
        ("/v1/classify", {"texts": [PAIR] * 4}, "4 texts in one request; it takes 3 at most."),
        ("/v1/classify", PAIR | {"text_pair": "b" * 11}, "Text 0 has 11 characters; a text has 10 at most."),
        ("/", {"inputs": "a"}, f"body.inputs: {WANTED}"),
        ("/", {"inputs": ["a"]}, f"body.inputs.0: {WANTED}"),
        ("/", {"inputs": {"text": "a"}}, "body.inputs.text_pair: Field required"),
    ],
)
def test_a_missing_pair_is_said(client: Client, path: str, asked: object, reason: str) -> None:
    answered = client(max_texts=3, max_characters=10).post(path, json=asked)
    assert (answered.status_code, answered.json()) == (422, {"error": reason})


def test_a_pair_that_is_not_wanted_is_refused(client: Client) -> None:
    opened = client()
    assert opened.get("/v1/model").json()["pairs"] is False
    answered = opened.post("/v1/classify", json=PAIR)
    assert (answered.status_code, answered.json()["error"]) == (422, "body.text_pair: Extra inputs are not permitted")
    assert opened.post("/v1/classify", json={"texts": [PAIR]}).status_code == 422
    assert opened.post("/", json={"inputs": PAIR}).status_code == 422
    assert opened.post("/", json={"inputs": [PAIR]}).status_code == 422


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason"),
    [
        (b'{"text"', "application/json", 422, "The body is not JSON: Expecting ':' delimiter, at character 7."),
        (b'{"text": "\xff"}', "application/json", 400, "The body is not JSON in UTF-8."),
        (b"[" * 100_000, "application/json", 400, "The body is not JSON in UTF-8."),
        (b'{"text": ' + b"9" * 10_000 + b"}", "application/json", 400, "The body is not JSON in UTF-8."),
        (b'{"text": "a"}', "text/plain", 422, "Send JSON, with the header 'Content-Type: application/json'."),
        (b"text=a", "application/x-www-form-urlencoded", 422, "Send JSON, with the header"),
        (b"\x00\x01", "", 422, "Send JSON, with the header"),
    ],
)
def test_broken_bodies(client: Client, body: bytes, kind: str, status: int, reason: str) -> None:
    for path in ("/v1/classify", "/"):
        answered = client().post(path, content=body, headers={"Content-Type": kind} if kind else {})
        assert answered.status_code == status
        assert answered.json()["error"].startswith(reason)


def ask(client: TestClient, *texts: str) -> tuple[int, str | None, str]:
    answered = client.post("/v1/classify", json={"texts": texts})
    return answered.status_code, answered.headers.get("Retry-After"), answered.json().get("error", "")


def test_a_full_queue_is_a_429_and_none_of_the_accepted_is_lost(client: Client, classifier: FakeClassifier) -> None:
    opened = client(max_queue=4, max_texts=4)
    classifier.go.clear()
    with ThreadPoolExecutor() as pool:
        first = []
        for number in range(AT_ONCE):
            first.append(pool.submit(ask, opened, f"first {number}"))
            until(lambda: len(classifier.batches) == len(first))
        others = [pool.submit(ask, opened, f"{number} a", f"{number} b") for number in range(2)]
        until(lambda: "waiting_texts 4.0" in opened.get("/metrics").text)
        assert ask(opened, "late") == (429, "1", "Too many texts wait already. Ask again in 1 second.")
        classifier.go.set()
        assert [each.result()[0] for each in (*first, *others)] == [200] * (AT_ONCE + 2)
    assert ask(opened, "later") == (200, None, "")


def test_a_queue_has_room_for_a_request() -> None:
    told = "--max_queue 8: a request may hold more texts than may wait, --max_texts 256.\nGive a --max_texts of 8 "
    with pytest.raises(UserError, match=told):
        ServeSettings(max_queue=8)
    assert ServeSettings(max_queue=8, max_texts=8)


def test_too_late_an_answer_is_a_503(client: Client, classifier: FakeClassifier) -> None:
    opened = client(timeout=0.05)
    classifier.go.clear()
    reason = "There was no answer within 0.05 seconds. Ask again, or for fewer texts."
    assert ask(opened, "a") == (503, "1", reason)
    classifier.go.set()


def test_a_classifier_that_fails_is_a_500_which_tells_nothing(client: Client) -> None:
    opened = client()
    assert ask(opened, POISON) == (500, None, "The server failed; its log says where.")
    assert ask(opened, "a")[0] == 200


def test_health_and_readiness(client: Client, classifier: FakeClassifier) -> None:
    opened = client()
    assert opened.get("/healthz").json() == {"status": "ok"}
    assert opened.get("/readyz").json() == {"status": "ready"}


def test_not_ready_before_the_worker_runs_and_after_it_ended(classifier: FakeClassifier) -> None:
    app = create_app(classifier, ServeSettings())
    idle = TestClient(app, "http://localhost")  # which does not start what the application starts
    assert idle.get("/readyz").status_code == 503
    with TestClient(app, "http://localhost") as opened:
        assert opened.get("/readyz").status_code == 200
    assert (idle.get("/readyz").status_code, idle.get("/readyz").json()) == (503, {"status": "not ready"})
    assert ask(idle, "a") == (503, "1", "The server is stopping.")


def test_what_prometheus_is_told(client: Client) -> None:
    opened = client()
    for texts in (["a"], ["b", "c"]):
        opened.post("/v1/classify", json={"texts": texts})
    opened.post("/v1/classify", json={})
    opened.get("/made/up/by/a/client")
    answered = opened.get("/metrics")
    assert answered.headers["Content-Type"].startswith("text/plain; version=")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answered.text)
        for sample in family.samples
    }
    assert samples["lora_distill_requests_total", "/v1/classify", "200"] == 2
    assert samples["lora_distill_requests_total", "/v1/classify", "422"] == 1
    assert samples["lora_distill_requests_total", "none", "404"] == 1
    assert samples["lora_distill_request_seconds_count", "/v1/classify"] == 3
    assert samples["lora_distill_batch_texts_sum",] == 3
    assert samples["lora_distill_waiting_texts",] == 0
    assert samples["process_resident_memory_bytes",] > 0
