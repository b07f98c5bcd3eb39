"""A classifier that can be held, and a server of it in a thread."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from lora_distill.data.types import Text, parts
from lora_distill.serving.server import Server, configure, listen
from lora_distill.serving.settings import ServeSettings

LABELS = ("Sports", "World", "<b>Science</b>")
POISON = "poison"


class FakeClassifier:
    """Logits that the text alone decides.

    Attributes:
        pairs: whether its texts are pairs.
        batches: the texts that came together.
        go: cleared, it holds whoever asks.
        begun: set when a batch was begun.
    """

    labels: tuple[str, ...] = LABELS
    temperature = 2.0

    def __init__(self, *, pairs: bool = False) -> None:
        self.pairs = pairs
        self.about: dict[str, Any] = {"made_from": {"run": "mine", "metrics": {"accuracy": 0.931}}}
        self.batches: list[list[Text]] = []
        self.go, self.begun = threading.Event(), threading.Event()
        self.go.set()

    def logits(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        self.batches.append(list(texts))
        self.begun.set()
        assert self.go.wait(60)
        if POISON in texts:
            raise ValueError(f"cannot read {texts}")
        return logits_of(texts)

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        powers = np.exp(logits.astype(np.float64) / self.temperature)
        shares: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return shares


def logits_of(texts: Sequence[Text]) -> NDArray[np.float32]:
    """What the fake says of texts."""
    digests = [hashlib.sha256("\n".join(parts(text)).encode()).digest() for text in texts]
    rows = [[digest[column] / 64 for column in range(len(LABELS))] for digest in digests]
    return np.array(rows, np.float32).reshape(-1, len(LABELS))


def label_of(text: Text) -> str:
    """The label that the fake gives."""
    return LABELS[int(logits_of([text])[0].argmax())]


def until(reached: Callable[[], object]) -> None:
    """Wait for it, a minute at most."""
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def served(app: FastAPI, settings: ServeSettings) -> Iterator[str]:
    """The URL of a server that runs in a thread."""
    listener, up = listen("127.0.0.1", 0), threading.Event()
    server = Server(configure(app, settings), up.set)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    assert up.wait(60)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()
