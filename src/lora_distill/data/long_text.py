"""What is read of a text that is longer than a model reads at once."""

from typing import TypeVar

from lora_distill.config import LongText
from lora_distill.data.wording import counted

T = TypeVar("T")

# Of chunk_mean: more would take a batch's memory so many times over.
MOST_CHUNKS = 8


def head_and_tail(max_length: int) -> tuple[int, int]:
    """How many tokens head_tail reads of a long text's beginning and of its end, special tokens included.

    Of the tokens between the special ones 128 of 510 are of the beginning, as in Sun, Qiu, Xu and Huang, How to
    Fine-Tune BERT for Text Classification?, 2019.
    """
    head = 1 + (max_length - 2) * 128 // 510
    return head, max_length - head


def without_middle(row: list[T], max_length: int) -> list[T]:
    """The tokens of a text, special ones included, that head_tail reads."""
    head, tail = head_and_tail(max_length)
    return row if len(row) <= max_length else row[:head] + row[-tail:]


def cut_note(cut: int, total: int, max_length: int, long_text: LongText) -> str:
    """A sentence on texts of which a part is not read.

    Args:
        cut: how many.
        total: of how many.
        max_length: tokens that a model reads at once.
        long_text: what is read of longer ones.
    """
    limit = f"{MOST_CHUNKS} chunks of {max_length} tokens" if long_text == "chunk_mean" else f"{max_length} tokens"
    done = "lost their middle" if long_text == "head_tail" else "were cut"
    return f"{cut} of {counted(total, 'text')} are longer than {limit} and {done}"
