"""Requests that are answered together get what is theirs."""

import asyncio
import random

import numpy as np
import pytest

from lora_distill.serving.batching import Batcher, ClosedError, FullError
from tests.serving.fake import POISON, FakeClassifier, logits_of


def batcher_of(classifier: FakeClassifier, *, at_once: int = 1, most: int = 8, room: int = 100) -> Batcher:
    batcher = Batcher(classifier.logits, at_once=at_once, most=most, room=room, observe=lambda _texts, _seconds: None)
    batcher.start()
    return batcher


async def held(classifier: FakeClassifier, batcher: Batcher) -> asyncio.Task[object]:
    """Keep the worker busy with one text until `go` is set."""
    classifier.go.clear()
    classifier.begun.clear()
    first = asyncio.create_task(batcher.answer(["first"]))
    await asyncio.to_thread(classifier.begun.wait)
    return first


async def waiting(batcher: Batcher, texts: int) -> None:
    while batcher.waiting != texts:
        await asyncio.sleep(0)


def test_every_request_gets_the_rows_of_its_own_texts() -> None:
    async def ask(batcher: Batcher, number: int, size: int) -> None:
        texts = [f"request {number}, text {index}" for index in range(size)]
        assert np.array_equal(await batcher.answer(texts), logits_of(texts))

    async def many() -> None:
        batcher = batcher_of(classifier, at_once=2, most=16, room=10_000)
        draw = random.Random(0)
        await asyncio.gather(*(ask(batcher, number, draw.choice([0, 1, 1, 2, 7, 40])) for number in range(500)))
        await batcher.close()

    classifier = FakeClassifier()
    asyncio.run(many())
    assert len(classifier.batches) < 400


def test_what_comes_while_one_batch_is_computed_is_the_next() -> None:
    async def ask() -> None:
        batcher = batcher_of(classifier, most=4)
        first = await held(classifier, batcher)
        sizes = [1, 2, 2, 9, 1, 1]
        others = [asyncio.create_task(batcher.answer([f"{n}"] * size)) for n, size in enumerate(sizes)]
        await waiting(batcher, sum(sizes))
        classifier.go.set()
        await asyncio.gather(first, *others)
        await batcher.close()

    classifier = FakeClassifier()
    asyncio.run(ask())
    assert classifier.batches == [["first"], ["0", "1", "1"], ["2", "2"], ["3"] * 9, ["4", "5"]]


def test_batches_are_computed_side_by_side() -> None:
    async def ask() -> None:
        batcher = batcher_of(classifier, at_once=2, most=2)
        asked = [asyncio.create_task(batcher.answer([f"{number}"] * 2)) for number in range(3)]
        while len(classifier.batches) < 2:
            await asyncio.sleep(0)
        assert sorted(classifier.batches) == [["0", "0"], ["1", "1"]]
        closing = asyncio.create_task(batcher.close())
        classifier.go.set()
        await closing
        answers = [(await each).tolist() for each in asked]
        assert answers == [logits_of([f"{number}"] * 2).tolist() for number in range(3)]

    classifier = FakeClassifier()
    classifier.go.clear()
    asyncio.run(ask())
    assert classifier.batches[2] == ["2", "2"]


def test_a_full_queue_says_when_to_ask_again_and_takes_others_later() -> None:
    async def ask() -> None:
        batcher = batcher_of(classifier, room=3)
        first = await held(classifier, batcher)
        second = asyncio.create_task(batcher.answer(["a", "b"]))
        await waiting(batcher, 2)
        with pytest.raises(FullError) as full:
            await batcher.answer(["c", "d"])
        assert full.value.seconds == 1
        third = asyncio.create_task(batcher.answer(["c"]))
        await waiting(batcher, 3)
        classifier.go.set()
        await asyncio.gather(first, second, third)
        assert len(await batcher.answer(["a", "b", "c"])) == 3
        await batcher.close()

    classifier = FakeClassifier()
    asyncio.run(ask())


def test_a_queue_that_moves_slowly_asks_for_more_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> int:
        batcher = batcher_of(classifier, most=1, room=30)
        first = await held(classifier, batcher)
        clock.append(100.0)  # what the first batch will have taken
        classifier.go.set()
        await first
        second = await held(classifier, batcher)
        others = asyncio.create_task(batcher.answer(["a"] * 30))
        await waiting(batcher, 30)
        with pytest.raises(FullError) as full:
            await batcher.answer(["b"])
        classifier.go.set()
        await asyncio.gather(second, others)
        await batcher.close()
        return full.value.seconds

    clock = [0.0]
    monkeypatch.setattr("lora_distill.serving.batching.time.perf_counter", lambda: clock[-1])
    classifier = FakeClassifier()
    assert asyncio.run(ask()) == 30 * 100


def test_who_gave_up_waiting_is_not_answered_and_costs_nothing() -> None:
    async def ask() -> None:
        batcher = batcher_of(classifier, room=2)
        first = await held(classifier, batcher)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await batcher.answer(["nobody waits", "for these"])
        others = asyncio.create_task(batcher.answer(["x", "y"]))  # for which there is room at once
        await waiting(batcher, 2)
        classifier.go.set()
        await first
        assert np.array_equal(await others, logits_of(["x", "y"]))
        await batcher.close()

    classifier = FakeClassifier()
    asyncio.run(ask())
    assert classifier.batches == [["first"], ["x", "y"]]


def test_texts_that_break_the_classifier_cost_their_own_request_only() -> None:
    async def ask() -> list[object]:
        batcher = batcher_of(classifier)
        first = await held(classifier, batcher)
        others = [asyncio.create_task(batcher.answer([text])) for text in ("a", POISON, "b")]
        await waiting(batcher, 3)
        classifier.go.set()
        outcomes: list[object] = list(await asyncio.gather(first, *others, return_exceptions=True))
        assert batcher.alive
        await batcher.close()
        return outcomes

    classifier = FakeClassifier()
    _, a, poisoned, b = asyncio.run(ask())
    assert np.array_equal(np.concatenate([a, b]), logits_of(["a", "b"]))
    assert isinstance(poisoned, ValueError)


def test_closing_answers_what_was_taken_and_takes_nothing_more() -> None:
    async def ask() -> None:
        batcher = batcher_of(classifier, most=1)
        taken = [await held(classifier, batcher)]
        taken += [asyncio.create_task(batcher.answer([f"{number}"])) for number in range(5)]
        await waiting(batcher, 5)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        assert not batcher.alive
        with pytest.raises(ClosedError):
            await batcher.answer(["late"])
        classifier.go.set()
        await closing
        assert len(await asyncio.gather(*taken)) == 6

    classifier = FakeClassifier()
    asyncio.run(ask())
    assert len(classifier.batches) == 6


def test_the_worker_outlives_a_loop_that_was_closed() -> None:
    async def leave(batcher: Batcher) -> None:
        await held(classifier, batcher)

    async def ask(batcher: Batcher) -> None:
        assert len(await batcher.answer(["still there"])) == 1
        await batcher.close()

    classifier = FakeClassifier()
    batcher = batcher_of(classifier)
    asyncio.run(leave(batcher))
    classifier.go.set()
    asyncio.run(ask(batcher))


def test_each_batch_is_counted() -> None:
    async def ask() -> None:
        batcher = Batcher(
            classifier.logits, at_once=1, most=4, room=9, observe=lambda texts, seconds: told.append((texts, seconds))
        )
        batcher.start()
        await batcher.answer(["a", "b", "c"])
        await batcher.close()

    told: list[tuple[int, float]] = []
    classifier = FakeClassifier()
    asyncio.run(ask())
    assert [texts for texts, _ in told] == [3]
    assert told[0][1] >= 0
