"""How many floating-point operations a student's training step needs."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What the count depends on, beside the rows' lengths.

    Attributes:
        hidden: width of the encoder.
        intermediate: width of its feed-forward layers.
        layers: the last ones, adapted; what lies below them is constant and not counted.
        rank: of LoRA on query, key and value.
        classes: of the head.
    """

    hidden: int
    intermediate: int
    layers: int
    rank: int
    classes: int


def step_flops(lengths: Iterable[int], shape: Shape) -> int:
    """Operations, two to a multiply-add, that forward and backward need for rows of these lengths.

    Counted: matrix products of the forward, of the gradients with respect to inputs, and of the weight gradients of
    LoRA and head. Not counted: weight gradients of frozen weights, the gradient with respect to the first adapted
    layer's input (nothing below is trained), padding, what is recomputed, norms, softmax and the like. The head reads
    the first token alone, so the last layer needs key and value of all tokens and everything else of one.

    Args:
        lengths: tokens of each row, special tokens included, padding not.
        shape: of encoder, adapter and head.
    """
    lengths = list(lengths)
    head = len(lengths) * 6 * shape.hidden * (shape.hidden + shape.classes)
    total = head
    for layer in range(shape.layers):
        is_first, is_last = layer == 0, layer == shape.layers - 1
        total += sum(_layer_flops(n, 1 if is_last else n, shape, needs_input_gradient=not is_first) for n in lengths)
    return total


def _layer_flops(tokens: int, queries: int, shape: Shape, *, needs_input_gradient: bool) -> int:
    """Of one row in one layer: keys and values of `tokens`, everything else of `queries` tokens."""
    h = shape.hidden
    projected = queries + 2 * tokens  # rows that pass through query, key and value
    projections = projected * 2 * h * h * (2 if needs_input_gradient else 1)
    # LoRA: two products forward; backward two for the weights, one for the gradient between them, one for the input's.
    lora = projected * 2 * h * shape.rank * (6 if needs_input_gradient else 5)
    attention = 2 * queries * tokens * h * (2 + 4)
    rest = queries * 2 * (h * h + 2 * h * shape.intermediate) * 2  # output and feed-forward, forward and backward
    return projections + lora + attention + rest
