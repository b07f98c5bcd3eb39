"""Dropout from whole random words."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_distill.model.dropout import Dropout


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.floats(0.01, 0.99), st.integers(1, 5), st.integers(1, 7))
def test_what_is_kept_is_scaled_so_that_the_mean_stays(rate: float, rows: int, columns: int) -> None:
    x = torch.ones(rows, columns)
    out = Dropout(generator())(x, rate)
    scale = 65536 / (65536 - round(rate * 65536))
    assert set(out.flatten().tolist()) <= {0.0, torch.tensor(scale).item()}
    assert out.shape == x.shape


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.001, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_that_is_dropped_and_its_independence(rate: float, dtype: torch.dtype) -> None:
    count = 400_000
    dropped = Dropout(generator())(torch.ones(count, dtype=dtype), rate) == 0
    error = (rate * (1 - rate) / count) ** 0.5
    assert dropped.float().mean().item() == pytest.approx(rate, abs=5 * error)
    for lag in (1, 2, 3, 4):  # four neighbours come from one word
        both = (dropped[lag:] & dropped[:-lag]).float().mean().item()
        assert both == pytest.approx(rate**2, abs=6 * error)
    for place in range(4):
        assert dropped[place::4].float().mean().item() == pytest.approx(rate, abs=10 * error)


def test_off_it_gives_back_what_it_was_given() -> None:
    x = torch.ones(3)
    assert Dropout()(x, 0.5) is x
    assert Dropout(generator())(x, 0.0) is x


def test_the_seed_decides_and_no_draw_repeats() -> None:
    x = torch.ones(1000)
    one = Dropout(generator(1))
    first, second = one(x, 0.5), one(x, 0.5)
    again = Dropout(generator(1))
    assert torch.equal(again(x, 0.5), first)
    assert torch.equal(again(x, 0.5), second)
    assert not torch.equal(first, second)


def test_gradients_pass_through_what_is_kept() -> None:
    x = torch.ones(1000, requires_grad=True)
    out = Dropout(generator())(x, 0.25)
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, out.detach())
