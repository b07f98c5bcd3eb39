"""The API against its own description: requests that are made from it, good ones and bad."""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck

from lora_distill.serving.app import create_app
from lora_distill.serving.settings import ServeSettings
from tests.serving.conftest import Client
from tests.serving.fake import FakeClassifier, served

OPERATIONS = 7


api = schemathesis.openapi.from_dict(create_app(FakeClassifier(), ServeSettings()).openapi())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    settings = ServeSettings()
    with served(create_app(FakeClassifier(), settings), settings) as address:
        yield address


def made(number: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=number // OPERATIONS + 1,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@api.parametrize()
@made(120)
def test_the_api_keeps_its_description(case: schemathesis.Case[Any], url: str) -> None:
    case.call_and_validate(base_url=url)


@pytest.mark.benchmark
@api.parametrize()
@made(10_000)
def test_the_api_keeps_its_description_for_long(case: schemathesis.Case[Any], url: str) -> None:
    case.call_and_validate(base_url=url)


def test_all_of_it_is_described(client: Client) -> None:
    described = client().get("/openapi.json").json()
    operations = {(method, path) for path, methods in described["paths"].items() for method in methods}
    assert len(operations) == OPERATIONS
    assert operations == {
        ("post", "/"),
        ("post", "/v1/classify"),
        *(("get", path) for path in ("/", "/v1/model", "/healthz", "/readyz", "/metrics")),
    }
