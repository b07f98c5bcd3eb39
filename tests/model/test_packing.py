"""Tokens without their padding, and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_distill.model.packing import Packing, rounded

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def mask_of(lengths: list[int]) -> torch.Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


@given(LENGTHS)
def test_packed_and_padded_again_each_token_is_in_its_place(lengths: list[int]) -> None:
    mask = mask_of(lengths)
    packing = Packing(mask, CPU)
    x = torch.arange(mask.numel() * 2.0).view(-1, 2)
    packed = packing.pack(x)
    tokens = torch.cat([row[:n] for row, n in zip(x.view(*mask.shape, 2), lengths, strict=True)])
    assert torch.equal(packed[: len(tokens)], tokens)
    assert torch.equal(packed[len(tokens) :], tokens[-1:].expand(rounded(len(tokens)) - len(tokens), 2))
    assert torch.equal(packing.pad(packed)[mask.flatten() == 1], tokens)
    assert torch.equal(packed[packing.first], x.view(*mask.shape, 2)[:, 0])


@given(st.integers(1, 100_000))
def test_few_numbers_of_tokens_come(tokens: int) -> None:
    assert tokens <= rounded(tokens) <= tokens * 9 / 8
    assert rounded(rounded(tokens)) == rounded(tokens)
    assert len({rounded(each) for each in range(1024, 2048)}) == 9  # the last is the next power of two
    assert [rounded(each) for each in (1, 15, 16, 17, 1729)] == [1, 15, 16, 18, 1792]


def test_to_a_gpu_it_goes_without_being_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """From pinned memory, which only what lies in one piece is copied from at once."""
    pinned, sent = list[torch.Tensor](), list[bool]()

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        assert tensor.is_contiguous()
        pinned.append(tensor)
        return tensor

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool = False) -> torch.Tensor:
        sent.append(device.type == "cuda" and non_blocking and any(tensor is each for each in pinned))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", to)
    Packing(mask_of([3, 1, 2]), torch.device("cuda"))
    assert sent == [True] * 3


@given(LENGTHS)
def test_padding_takes_no_part_in_gradients(lengths: list[int]) -> None:
    mask = mask_of(lengths)
    packing = Packing(mask, CPU)
    is_token = mask.flatten()[:, None].double()
    packed = torch.randn(rounded(sum(lengths)), 3, dtype=torch.double, requires_grad=True)
    padded = torch.randn(mask.numel(), 3, dtype=torch.double, requires_grad=True)
    is_different = (torch.arange(len(packed)) < sum(lengths))[:, None].double()
    # What reads a padded tensor gives padding no gradient, as attention's weights of 0 do; and nothing reads a token
    # where it is repeated.
    assert torch.autograd.gradcheck(lambda x: packing.pad(x) * is_token, packed)
    assert torch.autograd.gradcheck(lambda x: packing.pack(x) * is_different, padded)
