"""What is read of a text that is longer than a model reads at once."""

from collections.abc import Sequence
from typing import Literal, TypeVar

from lora_distill.data.wording import counted

LongText = Literal["truncate", "head_tail", "chunk_mean"]
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


def which_of_pair(sources: Sequence[int | None], max_length: int) -> list[bool]:
    """Which tokens of a pair are read: the longer text is cut first, as `longest_first` of tokenizers does.

    Args:
        sources: of each token which text it is of, 0 or 1; None: it is a special one, which is always read.
        max_length: of the pair, special tokens included.
    """
    if len(sources) <= max_length:
        return [True] * len(sources)
    first, second = sources.count(0), sources.count(1)
    room = max_length - sources.count(None)
    fewer = min(first, second, room // 2)
    left = [room - fewer, fewer] if first > second else [fewer, room - fewer]
    is_read = []
    for source in sources:
        is_read.append(source is None or left[source] > 0)
        if source is not None:
            left[source] -= 1
    return is_read


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
    return f"{cut:,} of {counted(total, 'text')} are longer than {limit} and {done}"
