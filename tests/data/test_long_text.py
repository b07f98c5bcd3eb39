from itertools import compress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lora_distill.data.long_text import cut_note, head_and_tail, which_of_pair, without_middle


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [
        (512, (1 + 128, 382 + 1)),  # the paper's, with [CLS] and [SEP]
        (128, (32, 96)),
        (4, (1, 3)),
    ],
)
def test_a_quarter_is_of_the_beginning(max_length: int, expected: tuple[int, int]) -> None:
    assert head_and_tail(max_length) == expected


@given(length=st.integers(0, 50), max_length=st.integers(4, 60))
def test_only_the_middle_of_long_texts_is_left_out(length: int, max_length: int) -> None:
    row = list(range(length))
    read = without_middle(row, max_length)
    assert len(read) == min(length, max_length)
    head, _ = head_and_tail(max_length)
    assert read == (row if length <= max_length else row[:head] + row[length - max_length + head :])


def word_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"[": 0, "]": 1, "a": 2, "b": 3, "?": 4}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[ $A ]", pair="[ $A ] $B ]", special_tokens=[("[", 0), ("]", 1)]
    )
    return tokenizer


@given(first=st.integers(0, 30), second=st.integers(0, 30), max_length=st.integers(4, 40))
def test_pairs_are_cut_as_the_library_cuts_them(first: int, second: int, max_length: int) -> None:
    tokenizer, pair = word_tokenizer(), ("a " * first, "b " * second)
    whole = tokenizer.encode(*pair)
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    is_read = which_of_pair(whole.sequence_ids, max_length)
    assert list(compress(whole.ids, is_read)) == tokenizer.encode(*pair).ids


@pytest.mark.parametrize(
    ("long_text", "note"),
    [
        ("truncate", "1,001 of 1,200 texts are longer than 32 tokens and were cut"),
        ("head_tail", "1,001 of 1,200 texts are longer than 32 tokens and lost their middle"),
        ("chunk_mean", "1,001 of 1,200 texts are longer than 8 chunks of 32 tokens and were cut"),
    ],
)
def test_what_is_left_out_is_said(long_text: str, note: str) -> None:
    assert cut_note(1001, 1200, 32, long_text) == note  # type: ignore[arg-type]  # a parameter is no literal
