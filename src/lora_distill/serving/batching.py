"""Dynamic batching: the texts that came in while others were computed are the next."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from lora_distill.data.types import Text

Answer = Callable[[list[Text]], NDArray[np.float32]]  # N texts to [N, C]


class FullError(Exception):
    """Too many texts wait already.

    Attributes:
        seconds: until there should be room again, at least 1.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__("the queue is full")
        self.seconds = seconds


class ClosedError(Exception):
    """Nothing more is taken."""


class _Request:
    def __init__(self, texts: Sequence[Text]) -> None:
        self.texts = texts
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[NDArray[np.float32]] = self.loop.create_future()

    def settle(self, outcome: NDArray[np.float32] | Exception) -> None:
        """Called from the worker. Who gave up waiting is past telling, and so is a loop that was closed."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: NDArray[np.float32] | Exception) -> None:
        if self.answer.done():
            return
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


class Batcher:
    """Threads that compute, and the requests that wait for them, first come first served.

    Nothing is held back in the hope of more: an idle worker takes a lone text at once.

    Args:
        answer: N texts to [N, C], each row by its text alone; several threads may call it at once.
        at_once: batches that are computed side by side.
        most: texts of a batch, unless one request has more.
        room: texts that may wait, those in computation not counted.
        observe: is told of each batch its texts and the seconds it took.
    """

    def __init__(
        self, answer: Answer, *, at_once: int, most: int, room: int, observe: Callable[[int, float], None]
    ) -> None:
        self._answer, self._most, self._room, self._observe = answer, most, room, observe
        self._waiting: deque[_Request] = deque()
        self._texts = 0  # of those that wait
        self._closing = False
        self._seconds = 0.0  # that a text takes one thread, on average over the last batches
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._work, name="batches", daemon=True) for _ in range(at_once)]

    def start(self) -> None:
        """Begin to answer."""
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Texts that wait."""
        return self._texts

    @property
    def alive(self) -> bool:
        """Whether texts are taken and answered."""
        return all(thread.is_alive() for thread in self._threads) and not self._closing

    async def answer(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """[N, C] of these texts. Who is cancelled while it waits leaves the queue, and its room to others.

        Raises:
            FullError: there is no room for so many.
            ClosedError: `close` was called.
        """
        request = _Request(texts)
        with self._changed:
            if self._closing:
                raise ClosedError
            if self._texts + len(texts) > self._room:
                seconds = self._texts * self._seconds / len(self._threads)  # all are busy, or there were room
                raise FullError(max(1, math.ceil(seconds)))
            self._waiting.append(request)
            self._texts += len(texts)
            self._changed.notify()
        try:
            return await request.answer
        except asyncio.CancelledError:
            with self._changed:
                if request in self._waiting:
                    self._waiting.remove(request)
                    self._texts -= len(texts)
            raise

    async def close(self) -> None:
        """Take nothing more, and return when all that was taken is answered."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _work(self) -> None:
        while batch := self._next():
            started = time.perf_counter()
            self._compute(batch)
            texts, seconds = sum(len(request.texts) for request in batch), time.perf_counter() - started
            each = seconds / max(texts, 1)
            with self._changed:
                self._seconds += 0.2 * (each - self._seconds) if self._seconds else each
            self._observe(texts, seconds)

    def _next(self) -> list[_Request]:
        """Requests to answer together; none once all is closed and answered."""
        with self._changed:
            while True:
                batch: list[_Request] = []
                texts = 0
                while self._waiting and (not batch or texts + len(self._waiting[0].texts) <= self._most):
                    request = self._waiting.popleft()
                    self._texts -= len(request.texts)
                    if not request.answer.done():  # else it was cancelled
                        batch.append(request)
                        texts += len(request.texts)
                if batch or self._closing:
                    return batch
                self._changed.wait()

    def _compute(self, batch: list[_Request]) -> None:
        try:
            rows = self._answer([text for request in batch for text in request.texts])
        except Exception as error:
            if len(batch) > 1:  # one request's texts must not cost the others their answer
                for request in batch:
                    self._compute([request])
            else:
                batch[0].settle(error)
            return
        start = 0
        for request in batch:
            request.settle(rows[start : start + len(request.texts)])
            start += len(request.texts)
