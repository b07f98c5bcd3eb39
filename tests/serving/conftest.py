"""An application around a fake classifier, asked in this process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page

from lora_distill.serving.app import create_app
from lora_distill.serving.settings import ServeSettings
from tests.serving.fake import FakeClassifier, served
from tests.serving.page import CARD, LIMITS, Opened

Client = Callable[..., TestClient]


@pytest.fixture
def classifier() -> Iterator[FakeClassifier]:
    made = FakeClassifier()
    yield made
    made.go.set()


@pytest.fixture
def client(classifier: FakeClassifier) -> Iterator[Client]:
    """Make a client of a server with these settings; failures of the server are answers, as on a wire."""
    with ExitStack() as opened:

        def make(*, key: str = "", card: str = "", **settings: Any) -> TestClient:  # noqa: ANN401 - any setting
            app = create_app(classifier, ServeSettings(**settings), key=key, card=card)
            return opened.enter_context(TestClient(app, "http://localhost", raise_server_exceptions=False))

        yield make
        classifier.go.set()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    settings = ServeSettings(**LIMITS)
    with served(create_app(FakeClassifier(), settings, card=CARD), settings) as address:
        yield address


@pytest.fixture
def opened(browser: Browser, url: str) -> Iterator[Page]:
    shown = Opened(browser, url, 1440)
    shown.page.goto(f"{url}/")
    yield shown.page
    shown.page.close()
    assert shown.faults == []
