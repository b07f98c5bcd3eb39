"""Matrix products with weights that are never trained, as the processor likes them."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# The packed form of a weight depends on the rows that are expected: 32 texts of 54 tokens. Others cost a little speed.
EXPECTED_ROWS = 1728


class Frozen:
    """The weight [out, in] and bias [out] of one or more linear modules, converted once.

    Attributes:
        bias: float32 or bfloat16 [out].
    """

    def __init__(self, modules: Sequence[nn.Linear], dtype: torch.dtype) -> None:
        if any(parameter.requires_grad for module in modules for parameter in module.parameters(recurse=False)):
            raise AssertionError("a weight that is trained must not be taken for a frozen one")
        self._modules, self._dtype = modules, dtype
        self._packs = modules[0].weight.device.type == "cpu" and _can_pack(dtype)
        # Packed, each direction has a copy of its own, made when it is first needed; the plain one is then of no use.
        self._weight = None if self._packs else self._joined("weight")
        self.bias = self._joined("bias")
        self._packed: dict[bool, torch.Tensor] = {}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in] to [T, out]; backwards there is the input's gradient only."""
        y: torch.Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in] to [T, out]."""
        if self._weight is None:
            return _packed_product(x, self._pack(transposed=False), self.bias)
        return functional.linear(x, self._weight, self.bias)

    def backward(self, gradient: torch.Tensor) -> torch.Tensor:
        """[T, out] to [T, in]."""
        if self._weight is None:
            return _packed_product(gradient, self._pack(transposed=True), None)
        return gradient @ self._weight

    def _joined(self, name: str) -> torch.Tensor:
        """The modules' one after the other; a single one of this dtype is not copied."""
        tensors = [getattr(module, name).detach() for module in self._modules]
        joined: torch.Tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        return joined.to(self._dtype)

    def _pack(self, *, transposed: bool) -> torch.Tensor:
        if transposed not in self._packed:
            weight = self._joined("weight").t() if transposed else self._joined("weight")
            self._packed[transposed] = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), EXPECTED_ROWS)
        return self._packed[transposed]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, frozen: Frozen) -> torch.Tensor:  # noqa: ANN401
        ctx.frozen = frozen
        return frozen.forward(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401
        return ctx.frozen.backward(gradient), None


@cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor have what inductor compiles linear layers to. It has no public name."""
    try:
        weight = torch.ops.mkldnn._reorder_linear_weight(torch.ones(32, 32, dtype=dtype), EXPECTED_ROWS)
        _packed_product(torch.ones(32, 32, dtype=dtype), weight, None)
    except (AttributeError, RuntimeError):
        return False
    return bool(torch.backends.mkldnn.enabled)


def _packed_product(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product
