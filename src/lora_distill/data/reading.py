"""From texts to the token ids that a model reads of them: in training, and wherever a trained model answers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from typing import TYPE_CHECKING

import numpy as np

from lora_distill.data.long_text import MOST_CHUNKS, LongText, which_of_pair, without_middle
from lora_distill.data.tokens import Tokens, offsets_of
from lora_distill.data.types import Text, parts

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# Whichever comes first: the tokenizer's own objects take some 10 kB a text, more where those are long.
AT_ONCE, MOST_CHARACTERS = 1024, 2**20


@dataclass(frozen=True)
class Reading:
    """How a model reads texts.

    Attributes:
        max_length: tokens of a chunk, special tokens included.
        long_text: what is read of a longer text: truncate its beginning, head_tail its beginning and its end, as
            `long_text.without_middle` has them, chunk_mean up to MOST_CHUNKS chunks, without overlap.
        pairs: whether each text is a pair. Those are only truncated, the longer text first.
        segments: whether the model is told which text of a pair a token is of.
    """

    max_length: int
    long_text: LongText
    pairs: bool
    segments: bool


class Tokeniser:
    """A model's tokenizer, which reads as the model does. Several threads may ask at once.

    Args:
        tokenizer: it is this one's from now on; whether it padded or cut by itself is forgotten.
        reading: how the model reads.
        pad_id: token id that padding uses.
    """

    def __init__(self, tokenizer: "Tokenizer", reading: Reading, pad_id: int) -> None:
        self._tokenizer, self.reading, self.pad_id = tokenizer, reading, pad_id
        tokenizer.no_padding()
        # Of a pair the library would keep every part of one text beside every part of the other, which takes seconds.
        if reading.pairs or reading.long_text == "head_tail":
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(reading.max_length)

    def read(self, texts: Sequence[Text]) -> Tokens:
        """Token ids of N texts, or pairs of them."""
        flat, types = [np.empty(0, np.int32)], [np.empty(0, np.int8)]
        lengths: list[int] = []
        counts: list[int] = []
        cut = 0
        for some in _slices(texts):
            chunks: list[list[int]] = []
            for encoding in self._tokenizer.encode_batch_fast(some):
                if self.reading.pairs:
                    is_read = which_of_pair(encoding.sequence_ids, self.reading.max_length)
                    own, is_cut = [list(compress(encoding.ids, is_read))], not all(is_read)
                    types.append(np.fromiter(compress(encoding.type_ids, is_read), np.int8))
                else:
                    own, is_cut = self._chunks(encoding)
                chunks += own
                counts.append(len(own))
                cut += is_cut
            flat.append(np.fromiter(chain.from_iterable(chunks), np.int32))
            lengths += map(len, chunks)
        return Tokens(
            np.concatenate(flat),
            offsets_of(np.array(lengths, np.int64)),
            cut,
            self.pad_id,
            np.concatenate(types) if self.reading.segments else None,
            offsets_of(np.array(counts, np.int64)) if self.reading.long_text == "chunk_mean" else None,
        )

    def _chunks(self, encoding: "Encoding") -> tuple[list[list[int]], bool]:
        """The chunks of a single text, and whether a part is left out."""
        ids = encoding.ids
        match self.reading.long_text:
            case "head_tail":
                read = without_middle(ids, self.reading.max_length)
                return [read], len(read) < len(ids)
            case "chunk_mean":
                every = [encoding, *encoding.overflowing]
                return [each.ids for each in every[:MOST_CHUNKS]], len(every) > MOST_CHUNKS
            case _:
                return [ids], bool(encoding.overflowing)


def _slices(texts: Iterable[Text]) -> Iterator[list[Text]]:
    """The texts in their order, so many at once that they end with the one that reaches a bound."""
    some: list[Text] = []
    characters = 0
    for text in texts:
        some.append(text)
        characters += sum(map(len, parts(text)))
        if len(some) >= AT_ONCE or characters >= MOST_CHARACTERS:
            yield some
            some, characters = [], 0
    if some:
        yield some
