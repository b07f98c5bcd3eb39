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


SINGLE, PAIRS = (create_app(FakeClassifier(pairs=pairs), ServeSettings()) for pairs in (False, True))
api, api_of_pairs = (schemathesis.openapi.from_dict(app.openapi()) for app in (SINGLE, PAIRS))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(SINGLE, ServeSettings()) as address:
        yield address


@pytest.fixture(scope="module")
def url_of_pairs() -> Iterator[str]:
    with served(PAIRS, ServeSettings()) as address:
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


@api_of_pairs.include(method="POST").parametrize()
@made(120)
def test_so_does_that_of_pairs(case: schemathesis.Case[Any], url_of_pairs: str) -> None:
    case.call_and_validate(base_url=url_of_pairs)


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
