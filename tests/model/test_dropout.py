"""Dropout from whole random words."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_distill.model.dropout import Dropout, Words, words_by_numpy, words_by_torch

CPU = torch.device("cpu")
Source = Callable[[int], Words]
SOURCES: list[Source] = [words_by_numpy, lambda seed: words_by_torch(seed, CPU)]


@given(st.floats(0.01, 0.99), st.integers(1, 5), st.integers(1, 7))
def test_what_is_kept_is_scaled_so_that_the_mean_stays(rate: float, rows: int, columns: int) -> None:
    x = torch.ones(rows, columns)
    out = Dropout.of(0, CPU)(x, rate)
    scale = 65536 / (65536 - round(rate * 65536))
    assert set(out.flatten().tolist()) <= {0.0, torch.tensor(scale).item()}
    assert out.shape == x.shape


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.001, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_that_is_dropped_and_its_independence(source: Source, rate: float, dtype: torch.dtype) -> None:
    count = 400_000
    dropped = Dropout(source(0))(torch.ones(count, dtype=dtype), rate) == 0
    error = (rate * (1 - rate) / count) ** 0.5
    assert dropped.float().mean().item() == pytest.approx(rate, abs=5 * error)
    for lag in (1, 2, 3, 4):  # four neighbours come from one word
        both = (dropped[lag:] & dropped[:-lag]).float().mean().item()
        assert both == pytest.approx(rate**2, abs=6 * error)
    for place in range(4):
        assert dropped[place::4].float().mean().item() == pytest.approx(rate, abs=10 * error)


def test_in_bfloat16_the_mean_stays_too() -> None:
    out = Dropout.of(0, CPU)(torch.full((400_000,), 3.0, dtype=torch.bfloat16), 0.1)
    kept = out[out != 0].float()
    assert set(kept.tolist()) == {torch.tensor(3 / 0.9).bfloat16().item()}


def test_a_rate_of_nearly_one() -> None:
    assert Dropout.of(0, CPU)(torch.ones(1000), 0.9999999).isfinite().all()


def test_off_it_gives_back_what_it_was_given() -> None:
    x = torch.ones(3)
    assert Dropout()(x, 0.5) is x
    assert not Dropout().is_on
    assert Dropout.of(0, CPU)(x, 0.0) is x
    assert Dropout.of(0, CPU).is_on


@pytest.mark.parametrize("source", SOURCES)
def test_the_seed_decides_and_no_draw_repeats(source: Source) -> None:
    x = torch.ones(1000)
    one = Dropout(source(1))
    first, second = one(x, 0.5), one(x, 0.5)
    again = Dropout(source(1))
    assert torch.equal(again(x, 0.5), first)
    assert torch.equal(again(x, 0.5), second)
    assert not torch.equal(first, second)
    assert not torch.equal(first, Dropout(source(2))(x, 0.5))


def test_beside_the_processor_bits_are_asked_for_as_every_device_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all numbers of a dtype, from the lowest to the highest, mps gives none: a range is named, and a small one."""
    draw, asked = torch.Tensor.random_, list[tuple[int, int]]()

    def random_(tensor: torch.Tensor, low: int, high: int, *, generator: torch.Generator) -> torch.Tensor:
        asked.append((low, high))
        return draw(tensor, low, high, generator=generator)

    monkeypatch.setattr(torch.Tensor, "random_", random_)
    words = words_by_torch(0, CPU)(100_000)
    assert asked == [(-32768, 32768)]
    assert (words.dtype, words.shape) == (torch.int16, (400_000,))
    assert (int(words.min()), int(words.max())) == (-32768, 32767)


def test_gradients_pass_through_what_is_kept() -> None:
    x = torch.ones(1000, requires_grad=True)
    out = Dropout.of(0, CPU)(x, 0.25)
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, out.detach())


def test_a_tensor_that_is_not_contiguous() -> None:
    x = torch.arange(1.0, 13).view(3, 4).t()
    out = Dropout.of(0, CPU)(x, 0.5)
    assert torch.equal(out[out != 0], 2 * x[out != 0])
