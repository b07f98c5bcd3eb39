"""The machine's matrix peak: the best rate that torch reaches on products of the shapes at hand.

python -m benchmarks.peak --hidden 768 --intermediate 3072 --out peak.json
"""

import argparse
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional

from benchmarks.report import Report

SQUARES = (1024, 2048, 4096)
TOKENS = (512, 1024, 2048)  # of a batch of 32 rows, short and long
SECONDS = 0.3

Product = tuple[int, int, int]


def shapes(hidden: int, intermediate: int) -> list[Product]:
    """Rows, inputs and outputs of the products that are tried: square ones and the encoder's own."""
    own = [(hidden, hidden), (hidden, 3 * hidden), (hidden, intermediate), (intermediate, hidden)]
    return [(size, size, size) for size in SQUARES] + [(tokens, *sides) for tokens in TOKENS for sides in own]


def measure(hidden: int, intermediate: int, seconds: float = SECONDS) -> dict[str, float]:
    """FLOP/s of the best product, by `bf16` and `fp32`.

    Args:
        hidden: width of the encoder.
        intermediate: width of its feed-forward layers.
        seconds: to spend on each product.
    """
    tried = shapes(hidden, intermediate)
    return {
        name: max(_rate(product, dtype, seconds) for product in tried)
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))
    }


@cache
def faster_precision() -> str:
    """What a careful user trains in on this machine: bf16 where it multiplies matrices faster than fp32."""
    rates = measure(768, 3072, seconds=0.05)
    return max(rates, key=rates.__getitem__)


@torch.inference_mode()
def _rate(product: Product, dtype: torch.dtype, seconds: float) -> float:
    rows, inputs, outputs = product
    x, w = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
    ways: Iterable[Callable[[], torch.Tensor]] = (lambda: functional.linear(x, w), lambda: torch.mm(x, w.t()))
    return max(2 * rows * inputs * outputs / _fastest(way, seconds / 2) for way in ways)


def _fastest(run: Callable[[], torch.Tensor], seconds: float) -> float:
    run()
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--intermediate", type=int, default=3072)
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    arguments = parser.parse_args()
    peak = measure(arguments.hidden, arguments.intermediate)
    report = Report("Matrix peak", ["precision", "GFLOP/s"])
    for name, rate in peak.items():
        report.row(name, f"{rate / 1e9:,.0f}")
    report.finish(arguments.out, {"flops_per_second": peak})


if __name__ == "__main__":
    main()
