"""Texts as token ids: one flat array and offsets, for any number of rows."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer, BatchEncoding, PreTrainedConfig, PreTrainedTokenizerBase

from lora_distill.cache import Cache, Stream
from lora_distill.config import LongText
from lora_distill.data.batches import Batch
from lora_distill.data.long_text import MOST_CHUNKS, without_middle
from lora_distill.data.types import Text, parts
from lora_distill.data.wording import counted
from lora_distill.store import fingerprint

TOKENIZER_BATCH = 4096
TYPES = "token_type_ids"  # transformers' name for which text of a pair a token is of
# RoBERTa and its kin number positions from the padding id upwards, so they have fewer than their table is long.
OFFSET_POSITIONS = (
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)


@dataclass(frozen=True)
class Tokens:
    """The token ids of N texts, special tokens included, in K chunks. Mostly a text is one chunk, and K is N.

    Attributes:
        flat: int32 [total tokens], chunk after chunk.
        offsets: int64 [K + 1]; chunk i is flat[offsets[i] : offsets[i + 1]].
        cut: of how many texts a part was left out.
        pad_id: token id that padding uses.
        segments: int8 [total tokens], 0 or 1: which text of a pair a token is of; None where the model is not told.
        starts: int64 [N + 1]; text i is the chunks from starts[i] up to starts[i + 1]; None: each text is one chunk.
    """

    flat: NDArray[np.int32]
    offsets: NDArray[np.int64]
    cut: int
    pad_id: int
    segments: NDArray[np.int8] | None = None
    starts: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.offsets if self.starts is None else self.starts) - 1

    def followed_by(self, others: "Tokens") -> "Tokens":
        """These texts, and then those, as the same tokenizer reads them."""
        offsets = np.concatenate([self.offsets, len(self.flat) + others.offsets[1:]])
        segments = None
        if self.segments is not None and others.segments is not None:
            segments = np.concatenate([self.segments, others.segments])
        starts = None
        if self.starts is not None and others.starts is not None:
            starts = np.concatenate([self.starts, self.starts[-1] + others.starts[1:]])
        flat = np.concatenate([self.flat, others.flat])
        return replace(self, flat=flat, offsets=offsets, cut=self.cut + others.cut, segments=segments, starts=starts)

    def take(self, rows: NDArray[np.int64]) -> "Tokens":
        """Those of these rows, as if none had been cut."""
        chunks, counts = self._chunks_of(rows)
        places = _ranges(self.offsets[chunks], self.chunk_lengths[chunks])
        return replace(
            self,
            flat=self.flat[places],
            offsets=_offsets(self.chunk_lengths[chunks]),
            cut=0,
            segments=None if self.segments is None else self.segments[places],
            starts=None if self.starts is None else _offsets(counts),
        )

    @cached_property
    def chunk_lengths(self) -> NDArray[np.int64]:
        """int64 [K], tokens of each chunk."""
        return np.diff(self.offsets)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [N], tokens that each row takes in a batch: for each of its chunks those of the longest."""
        if self.starts is None:
            return self.chunk_lengths
        return np.maximum.reduceat(self.chunk_lengths, self.starts[:-1]) * np.diff(self.starts)

    @property
    def at_hand(self) -> bool:
        """Always."""
        return True

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """The batch of these rows, padded to the longest chunk."""
        return self.arranged(rows, self.chunks)

    def arranged(self, rows: NDArray[np.int64], chunks: Callable[[NDArray[np.int64]], Batch]) -> Batch:
        """The batch of these rows, by what gives one of chunks."""
        if self.starts is None:
            return chunks(rows)
        places, counts = self._chunks_of(rows)
        is_of = np.repeat(np.arange(len(rows)), counts) == np.arange(len(rows))[:, None]
        shares = torch.from_numpy((is_of / counts[:, None]).astype(np.float32))
        return replace(chunks(places), rows=rows, shares=shares)

    def _chunks_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The chunks of these rows, and how many each has."""
        if self.starts is None:
            return rows, np.ones_like(rows)
        counts = np.diff(self.starts)[rows]
        return _ranges(self.starts[rows], counts), counts

    def chunks(self, places: NDArray[np.int64]) -> Batch:
        """The batch of these chunks, each as if it were a row, padded to the longest."""
        lengths = self.chunk_lengths[places]
        columns = np.arange(lengths.max())
        is_token = columns < lengths[:, None]
        at = np.where(is_token, self.offsets[places][:, None] + columns, 0)

        def padded(flat: NDArray[Any], padding: int) -> torch.Tensor:
            return torch.from_numpy(np.where(is_token, flat[at], padding).astype(np.int64))

        mask = torch.from_numpy(is_token.astype(np.int64))
        segments = None if self.segments is None else padded(self.segments, 0)
        return Batch(places, padded(self.flat, self.pad_id), mask, segments=segments)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _ranges(begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """So many places from each beginning on, one after the other."""
    return np.repeat(begins - _offsets(lengths)[:-1], lengths) + np.arange(lengths.sum())


def most_tokens(folder: Path) -> int:
    """How many tokens a model can read, special tokens included.

    Args:
        folder: with its config.json and tokenizer.
    """
    config = AutoConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    limit = int(tokenizer.model_max_length)
    positions = int(getattr(config, "max_position_embeddings", limit))
    if positions < 0:  # XLNet's way of saying that it has no limit
        return limit
    if config.model_type in OFFSET_POSITIONS:
        positions -= int(config.pad_token_id) + 1
    return min(positions, limit)


def keep_tokens(
    texts: Sequence[Text],
    tokenizer_folder: Path,
    max_length: int,
    model: str,
    cache: Cache,
    long_text: LongText = "truncate",
) -> Tokens:
    """As `tokenise`; what was tokenised before is found in the cache.

    Args:
        texts: N texts, or pairs of them.
        tokenizer_folder: of the model.
        max_length: in tokens.
        model: fingerprint of the files in that folder.
        cache: where tokens are kept.
        long_text: what is read of a longer text.
    """
    versions = {module.__name__: module.__version__ for module in (tokenizers, transformers)}
    sources = [Path(__file__), Path(__file__).with_name("long_text.py")]
    source = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()
    recipe = {
        "model": model,
        "max_length": max_length,
        "long_text": long_text,
        "texts": fingerprint(texts),
        "versions": versions | {"source": source},
    }
    with cache.lock("tokens", recipe):
        for entry in cache.find("tokens", recipe):
            with suppress(OSError):  # another process has just made room
                cut, pad_id = entry.array("cut_and_pad_id").tolist()
                found = {name: entry.array(name) for name in entry.about["files"] if name != "cut_and_pad_id"}
                return Tokens(cut=cut, pad_id=pad_id, **found)
        tokens = tokenise(texts, tokenizer_folder, max_length, long_text)
        own = {field.name: getattr(tokens, field.name) for field in fields(Tokens)}
        arrays = {name: each for name, each in own.items() if isinstance(each, np.ndarray)}
        arrays["cut_and_pad_id"] = np.array([tokens.cut, tokens.pad_id])
        size = sum(each.nbytes for each in arrays.values()) + 1024
        if cache.make_room(size) >= size:
            title = f"tokens, {counted(len(tokens), 'text')}"
            cache.add("tokens", recipe, "all", title, {name: Stream.of(each) for name, each in arrays.items()})
    return tokens


def tokenise(
    texts: Sequence[Text], tokenizer_folder: Path, max_length: int, long_text: LongText = "truncate"
) -> Tokens:
    """Token ids of the texts, in chunks of max_length tokens at most; of a pair, the text that is longer is cut first.

    Args:
        texts: N texts, or pairs of them, which are only truncated.
        tokenizer_folder: of the model.
        max_length: of a chunk, special tokens included.
        long_text: truncate reads the beginning of a longer text, head_tail its beginning and its end, as
            `long_text.without_middle` has them, chunk_mean up to MOST_CHUNKS chunks, without overlap.
    """
    tokenizer, config = AutoTokenizer.from_pretrained(tokenizer_folder), AutoConfig.from_pretrained(tokenizer_folder)
    are_pairs = len(texts) > 0 and len(parts(texts[0])) > 1
    is_told = are_pairs and reads_segments(tokenizer, config)
    how: dict[str, Any] = {"return_attention_mask": False, "return_token_type_ids": is_told, "verbose": False}
    if long_text != "head_tail":
        how |= {"truncation": True, "max_length": max_length, "return_overflowing_tokens": long_text == "chunk_mean"}
    chunks: list[list[int]] = []
    segments: list[list[int]] = []
    counts: list[int] = []
    cut = 0
    for start in range(0, len(texts), TOKENIZER_BATCH):
        encoded = tokenizer(list(texts[start : start + TOKENIZER_BATCH]), **how)
        read, of_each, cut_here = _read(encoded, max_length, long_text)
        chunks += read
        counts += of_each
        cut += cut_here
        segments += encoded[TYPES] if is_told else []
    offsets = _offsets(np.fromiter(map(len, chunks), dtype=np.int64, count=len(chunks)))
    flat = np.fromiter(chain.from_iterable(chunks), dtype=np.int32, count=int(offsets[-1]))
    told = np.fromiter(chain.from_iterable(segments), dtype=np.int8) if is_told else None
    starts = _offsets(np.array(counts, dtype=np.int64)) if long_text == "chunk_mean" else None
    # The model's own first: RoBERTa counts positions by it, and decoders find a text's end.
    padding = (getattr(config, "pad_token_id", None), tokenizer.pad_token_id, 0)
    pad_id = next(token for token in padding if token is not None and token >= 0)
    return Tokens(flat, offsets, cut, int(pad_id), told, starts)


def reads_segments(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> bool:
    """Whether a model is told which text of a pair a token is of: transformers does so by default, and it knows two."""
    return TYPES in tokenizer.model_input_names and (getattr(config, "type_vocab_size", 0) or 0) > 1


def _read(encoded: BatchEncoding, max_length: int, long_text: LongText) -> tuple[list[list[int]], list[int], int]:
    """Of texts that were encoded: their chunks, how many each has, and of how many texts a part is left out."""
    rows = encoded["input_ids"]
    if long_text == "truncate":
        return rows, [1] * len(rows), sum(bool(encoding.overflowing) for encoding in encoded.encodings or [])
    if long_text == "head_tail":
        cut = sum(len(row) > max_length for row in rows)
        return [without_middle(row, max_length) for row in rows], [1] * len(rows), cut
    counts = np.bincount(encoded["overflow_to_sample_mapping"])
    places = _ranges(np.zeros_like(counts), counts)  # of each chunk in its text
    is_read = places < MOST_CHUNKS
    return list(compress(rows, is_read)), np.minimum(counts, MOST_CHUNKS).tolist(), int((counts > MOST_CHUNKS).sum())
