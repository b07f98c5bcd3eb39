from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lora_distill.data.batches import (
    LEAST_WINDOWS,
    WINDOW_BATCHES,
    Batch,
    TrainingOrder,
    equal_length_groups,
    evaluation_order,
)
from lora_distill.data.tokens import Tokens

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=300).map(lambda lengths: np.array(lengths, np.int64))


def training_order(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Where all rows have labels."""
    order = TrainingOrder(lengths, batch_size, len(lengths), 0)
    batches = order.epoch(seed, epoch)
    assert (order.steps, order.rows) == (len(batches), len(lengths))
    return batches


def tokens_of(lengths: NDArray[np.int64], pad_id: int = 0) -> Tokens:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tokens(np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets, 0, pad_id)


@given(lengths=LENGTHS, batch_size=st.integers(1, 33), seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_an_epoch_has_every_row_once_and_full_batches_but_for_one(
    lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> None:
    batches = training_order(lengths, batch_size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    assert max(map(len, batches)) <= batch_size


def test_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    lengths = np.random.default_rng(0).integers(5, 50, 500)

    def order(seed: int, epoch: int) -> list[int]:
        return [int(row) for batch in training_order(lengths, 32, seed, epoch) for row in batch]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_padding_nearly_vanishes() -> None:
    lengths = np.random.default_rng(0).integers(10, 128, LEAST_WINDOWS * WINDOW_BATCHES * 32)
    batches = training_order(lengths, 32, seed=0, epoch=0)
    padded = sum(len(rows) * int(lengths[rows].max()) for rows in batches)
    assert padded < 1.05 * lengths.sum()


def together(batches: list[NDArray[np.int64]]) -> set[tuple[int, int]]:
    """Pairs of rows in one batch."""
    return {pair for rows in batches for pair in combinations(sorted(rows.tolist()), 2)}


@pytest.mark.parametrize("labels", ["all", "some"])
@pytest.mark.parametrize("number", [36, 50, 100, 300, 1000])
def test_few_rows_are_in_other_batches_in_each_epoch(number: int, labels: str) -> None:
    lengths = np.random.default_rng(0).permutation(3 * number)[:number]  # no two alike, which would be drawn anyway
    order = TrainingOrder(lengths, 32, number if labels == "all" else number // 2, 8)
    pairs = [together(order.epoch(0, epoch)) for epoch in range(10)]
    again = np.mean([len(first & second) / len(first) for first, second in pairwise(pairs)])
    by_chance = len(pairs[0]) / (number * (number - 1) / 2)
    assert again < (1 + by_chance) / 2


@pytest.mark.parametrize("number", [36, 100, 1010])
def test_the_rows_of_the_batch_that_is_not_full_are_any(number: int) -> None:
    lengths = np.arange(number)
    rest = [min(training_order(lengths, 32, 0, epoch), key=len) for epoch in range(60)]
    assert np.concatenate(rest).mean() == pytest.approx((number - 1) / 2, rel=0.15)


@given(
    lengths=LENGTHS.filter(lambda lengths: len(lengths) > 1),
    data=st.data(),
    batch_size=st.integers(2, 33),
    seed=st.integers(0, 9),
)
def test_every_batch_has_its_share_of_labelled_rows(
    lengths: NDArray[np.int64], data: st.DataObject, batch_size: int, seed: int
) -> None:
    labelled = data.draw(st.integers(1, len(lengths) - 1))
    each = data.draw(st.integers(1, batch_size - 1))
    order = TrainingOrder(lengths, batch_size, labelled, each)
    batches = order.epoch(seed, 0)
    assert len(batches) == order.steps
    assert sum(map(len, batches)) == order.rows
    assert {int((rows < labelled).sum()) for rows in batches} == {each}
    counts = np.bincount(np.concatenate(batches), minlength=len(lengths))
    assert counts.min() >= 1
    for kind in (counts[:labelled], counts[labelled:]):  # none is read more often by chance
        assert kind.max() - kind.min() <= 1
    # As short as it can be.
    assert order.steps == max(-(-labelled // each), -(-(len(lengths) - labelled) // (batch_size - each)))


def test_labelled_rows_stand_beside_others_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(10, 128, 4000)
    batches = TrainingOrder(lengths, 32, 1000, 8).epoch(0, 0)
    padded = sum(len(rows) * int(lengths[rows].max()) for rows in batches)
    assert padded < 1.12 * sum(int(lengths[rows].sum()) for rows in batches)
    assert max(map(len, (np.unique(rows) for rows in batches))) == 32


@given(lengths=LENGTHS, most=st.integers(1, 200), padding=st.none() | st.integers(0, 30))
def test_evaluation_order_is_from_the_long_and_batches_are_as_full_as_they_may_be(
    lengths: NDArray[np.int64], most: int, padding: int | None
) -> None:
    def fits(rows: NDArray[np.int64]) -> bool:
        padded = len(rows) * lengths[rows].max()
        return bool(padded <= most and (padding is None or padded - lengths[rows].sum() <= padding))

    batches = evaluation_order(lengths, most, padding)[::-1]
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) >= 0).all()
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        assert len(batch) == 1 or fits(batch)
        if following is not None:
            assert not fits(np.append(batch, following[0]))


@given(lengths=LENGTHS, pad_id=st.integers(0, 5))
def test_a_batch_holds_its_rows_tokens_and_padding_up_to_its_own_longest(
    lengths: NDArray[np.int64], pad_id: int
) -> None:
    tokens = tokens_of(lengths, pad_id)
    rows = np.random.default_rng(0).permutation(len(lengths))[:7]
    batch = tokens.batch(rows)
    assert batch.input_ids.shape == (len(rows), int(lengths[rows].max()))
    for row, ids, mask in zip(rows, batch.input_ids.numpy(), batch.attention_mask.numpy(), strict=True):
        length = lengths[row]
        assert ids[:length].tolist() == tokens.flat[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
        assert set(ids[length:].tolist()) <= {pad_id}
        assert mask.tolist() == [1] * length + [0] * (len(mask) - length)


@given(lengths=LENGTHS, most=st.integers(1, 200))
def test_a_group_has_rows_of_one_length_and_every_row_is_in_one(lengths: NDArray[np.int64], most: int) -> None:
    groups = equal_length_groups(lengths, most)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    for group in groups:
        assert len(set(lengths[group].tolist())) == 1
        assert len(group) == 1 or lengths[group].sum() <= most
    assert [int(lengths[group[0]]) for group in groups] == sorted(int(lengths[group[0]]) for group in groups)


@given(
    # All chunks of a text but its last are as long as may be.
    chunks=st.lists(
        st.builds(lambda full, rest: [12] * full + [rest], st.integers(0, 4), st.integers(1, 12)), min_size=1
    ),
    most=st.integers(1, 100),
)
def test_rows_of_several_chunks_take_no_more_room_than_is_said(chunks: list[list[int]], most: int) -> None:
    starts = np.concatenate([[0], np.cumsum(list(map(len, chunks)))])
    tokens = replace(tokens_of(np.array([length for row in chunks for length in row])), starts=starts)
    assert len(tokens) == len(chunks)
    batches = evaluation_order(tokens.lengths, most)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(chunks)))
    for rows in batches:
        batch = tokens.batch(rows)
        assert batch.input_ids.numel() <= most or len(rows) == 1
        assert batch.rows.tolist() == rows.tolist()
        read = batch.input_ids[batch.attention_mask.bool()].tolist()
        assert read == [token for row in rows for token in range(*(tokens.offsets[starts[[row, row + 1]]] + 1))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_chunks_are_averaged_by_row(dtype: torch.dtype) -> None:
    shares = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    ids = torch.ones(3, 2, dtype=torch.int64)
    batch = Batch(np.arange(2), ids, ids, shares=shares)
    logits = torch.tensor([[1.0, 2.0], [3.0, 8.0], [5.0, -1.0]], dtype=dtype)
    assert batch.of_rows(logits).tolist() == [[2.0, 5.0], [5.0, -1.0]]
    alone = replace(batch, shares=None).of_rows(logits)
    assert (alone.dtype, alone.tolist()) == (torch.float32, logits.tolist())


def test_to_a_gpu_tensors_are_copied_from_pinned_memory_while_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        told.append("pinned")
        return tensor

    def to(tensor: torch.Tensor, device: torch.device, **how: object) -> torch.Tensor:
        told.append((device.type, how))
        return tensor

    batch = tokens_of(np.array([2, 3])).batch(np.arange(2))
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    batch.to(torch.device("cuda"))
    assert told == ["pinned", ("cuda", {"non_blocking": True})] * 2  # ids and mask
    told.clear()
    batch.to(torch.device("cpu"))
    assert told == [("cpu", {})] * 2
