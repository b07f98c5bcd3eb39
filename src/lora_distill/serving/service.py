"""The API's endpoints."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np
from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST

from lora_distill.data.types import Text, parts
from lora_distill.data.wording import counted
from lora_distill.serving.batching import Batcher, ClosedError, FullError
from lora_distill.serving.gate import CLIENT_GONE
from lora_distill.serving.metrics import Metrics
from lora_distill.serving.schemas import (
    Asked,
    AskedPairs,
    HubPair,
    HubPairsRequest,
    HubParameters,
    HubRequest,
    Limits,
    ModelInfo,
    OnePair,
    OneText,
    Pair,
)
from lora_distill.serving.settings import ServeSettings

# Where one batch ends some of its threads have nothing to do; another batch has.
AT_ONCE = 2


class Answering(Protocol):
    """What is served: `lora_distill.Classifier`, or what stands in for one in a test."""

    labels: tuple[str, ...]
    pairs: bool
    about: dict[str, Any]
    temperature: float

    def logits(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """[N, C], each row by its text, or its pair, alone. Several threads may ask at once."""

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The softmax of logits / temperature."""


class Service:
    """A classifier, the requests that wait for it, and what is counted.

    Args:
        classifier: that answers.
        settings: its limits.
        card: the model card, in Markdown.
    """

    def __init__(self, classifier: Answering, settings: ServeSettings, card: str) -> None:
        self._classifier, self._settings, self._card = classifier, settings, card
        self.pairs = classifier.pairs
        self.metrics = Metrics()
        self.batcher = Batcher(
            classifier.logits,
            at_once=AT_ONCE,
            most=settings.max_batch,
            room=settings.max_queue,
            observe=self.metrics.batch,
        )
        self.metrics.watch(lambda: self.batcher.waiting)

    async def classify(self, asked: Asked, request: Request) -> Response:
        """The label of each text, its probability, and those of the other labels."""
        texts = [asked.text] if isinstance(asked, OneText) else asked.texts
        return await self._classify(texts, asked.top_k, request)

    async def classify_pairs(self, asked: AskedPairs, request: Request) -> Response:
        """The label of each pair of texts, its probability, and those of the other labels."""
        pairs: list[Pair] = [asked] if isinstance(asked, OnePair) else asked.texts
        return await self._classify([(pair.text, pair.text_pair) for pair in pairs], asked.top_k, request)

    async def _classify(self, texts: Sequence[Text], top_k: int | None, request: Request) -> Response:
        probabilities = self._classifier.probabilities(await self._logits(texts, request))
        results = []
        for row in self._ranked(probabilities, top_k):
            label, confidence = row[0]
            ranked = [{"label": each, "probability": score} for each, score in row]
            results.append({"label": label, "confidence": confidence, "probabilities": ranked})
        return JSONResponse({"results": results})

    async def classify_as_hub(self, asked: HubRequest, request: Request) -> Response:
        """Hugging Face's text-classification task: for each text its labels, the likeliest first."""
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        return await self._classify_as_hub(texts, asked.parameters, request)

    async def classify_pairs_as_hub(self, asked: HubPairsRequest, request: Request) -> Response:
        """Hugging Face's text-classification task: for each pair of texts its labels, the likeliest first."""
        pairs = [asked.inputs] if isinstance(asked.inputs, HubPair) else asked.inputs
        texts = [(pair.text, pair.text_pair) for pair in pairs]
        return await self._classify_as_hub(texts, asked.parameters, request)

    async def _classify_as_hub(self, texts: Sequence[Text], given: HubParameters | None, request: Request) -> Response:
        parameters = given or HubParameters()
        logits = await self._logits(texts, request)
        match parameters.function_to_apply:
            case "none":
                scores = logits
            case "sigmoid":
                halves = logits / np.float32(2 * self._classifier.temperature)
                scores = (1 + np.tanh(halves)) / 2  # the sigmoid, which exp would not reach from far below
            case _:
                scores = self._classifier.probabilities(logits)
        rows = self._ranked(scores, parameters.top_k)
        return JSONResponse([[{"label": label, "score": score} for label, score in row] for row in rows])

    async def model(self) -> ModelInfo:
        """Its labels, what it was made from and how good it is, and what a request may hold."""
        limits, about = self._settings, self._classifier.about
        made_from = dict(about.get("made_from", {}))
        if PurePath(made_from.get("base_model", "")).is_absolute():  # where that lies is nobody's to know
            made_from["base_model"] = PurePath(made_from["base_model"]).name
        return ModelInfo(
            labels=list(self._classifier.labels),
            pairs=self.pairs,
            about=about | {"made_from": made_from},
            card=self._card,
            limits=Limits(
                max_texts=limits.max_texts, max_characters=limits.max_characters, max_body=int(limits.max_body)
            ),
        )

    async def health(self) -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "ok"}

    async def readiness(self) -> JSONResponse:
        """Whether texts are classified."""
        if self.batcher.alive:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, 503)

    async def prometheus(self) -> Response:
        """What was counted, in Prometheus' text format."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def _logits(self, texts: Sequence[Text], request: Request) -> NDArray[np.float32]:
        self._check(texts)
        request.state.texts = len(texts)
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await self._answer(texts, request)
        except FullError as full:
            reason = f"Too many texts wait already. Ask again in {counted(full.seconds, 'second')}."
            raise HTTPException(429, reason, {"Retry-After": str(full.seconds)}) from None
        except ClosedError:
            raise HTTPException(503, "The server is stopping.", {"Retry-After": "1"}) from None
        except TimeoutError:
            reason = f"There was no answer within {self._settings.timeout:g} seconds. Ask again, or for fewer texts."
            raise HTTPException(503, reason, {"Retry-After": "1"}) from None

    async def _answer(self, texts: Sequence[Text], request: Request) -> NDArray[np.float32]:
        """What the batcher says, for as long as the client is there: of one that has left, no text waits."""
        answer = asyncio.create_task(self.batcher.answer(texts))
        gone = asyncio.create_task(_leave(request))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise HTTPException(CLIENT_GONE, "The client has gone.")
            return answer.result()
        finally:
            answer.cancel()
            gone.cancel()

    def _check(self, texts: Sequence[Text]) -> None:
        limits = self._settings
        if len(texts) > limits.max_texts:
            raise HTTPException(
                422, f"{counted(len(texts), 'text')} in one request; it takes {limits.max_texts:,} at most."
            )
        for number, text in enumerate(texts):
            longest = max(map(len, parts(text)))
            if longest > limits.max_characters:
                raise HTTPException(
                    422, f"Text {number} has {longest:,} characters; a text has {limits.max_characters:,} at most."
                )

    def _ranked(self, scores: NDArray[np.float32], top_k: int | None) -> list[list[tuple[str, float]]]:
        """Labels with their scores, the highest first; of equal ones the first label."""
        labels = self._classifier.labels
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        found: list[list[tuple[str, float]]] = []
        for row, columns in zip(scores, order, strict=True):
            found.append([(labels[column], float(row[column])) for column in columns])
        return found


async def _leave(request: Request) -> None:
    """Returns when the client of a request whose body has come is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def describe_fault(fault: Mapping[str, Any]) -> str:
    """Where a request is wrong and how, without what it holds."""
    if fault["type"] == "json_invalid":
        return f"The body is not JSON: {fault['ctx']['error']}, at character {fault['loc'][1]}."
    where = [str(part) for part in fault["loc"] if "[" not in str(part)]  # pydantic's names of what might stand there
    if where[:2] in (["body", "text"], ["body", "texts"]):
        del where[1]  # which of the two kinds of request it was taken for
    return f"{'.'.join(where)}: {fault['msg'].removeprefix('Value error, ')}"
