"""Token ids of texts: one flat array and offsets, for any number of rows. Only batches need torch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_distill.data.batches import Batch

TYPES = "token_type_ids"  # transformers' name for which text of a pair a token is of


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
        places = ranges_of(self.offsets[chunks], self.chunk_lengths[chunks])
        return replace(
            self,
            flat=self.flat[places],
            offsets=offsets_of(self.chunk_lengths[chunks]),
            cut=0,
            segments=None if self.segments is None else self.segments[places],
            starts=None if self.starts is None else offsets_of(counts),
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
        import torch

        places, counts = self._chunks_of(rows)
        is_of = np.repeat(np.arange(len(rows)), counts) == np.arange(len(rows))[:, None]
        shares = torch.from_numpy((is_of / counts[:, None]).astype(np.float32))
        return replace(chunks(places), rows=rows, shares=shares)

    def _chunks_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The chunks of these rows, and how many each has."""
        if self.starts is None:
            return rows, np.ones_like(rows)
        counts = np.diff(self.starts)[rows]
        return ranges_of(self.starts[rows], counts), counts

    def chunks(self, places: NDArray[np.int64]) -> Batch:
        """The batch of these chunks, each as if it were a row, padded to the longest."""
        import torch

        read = {name: torch.from_numpy(each) for name, each in self.padded(places).items()}
        return Batch(places, read["input_ids"], read["attention_mask"], segments=read.get(TYPES))

    def padded(self, places: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """What a model reads of these chunks, int64 [chunks, L] by transformers' names, padded to the longest."""
        lengths = self.chunk_lengths[places]
        columns = np.arange(lengths.max())
        is_token = columns < lengths[:, None]
        at = np.where(is_token, self.offsets[places][:, None] + columns, 0)

        def padded(flat: NDArray[Any], padding: int) -> NDArray[np.int64]:
            return np.where(is_token, flat[at], padding).astype(np.int64)

        read = {"input_ids": padded(self.flat, self.pad_id), "attention_mask": is_token.astype(np.int64)}
        return read if self.segments is None else read | {TYPES: padded(self.segments, 0)}

    def of_texts(self, of_chunks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of texts, float32 [N, C], from those of chunks, [K, C]: the mean of a text's."""
        if self.starts is None:
            return of_chunks
        sums = np.add.reduceat(of_chunks, self.starts[:-1])
        return (sums / np.diff(self.starts)[:, None]).astype(np.float32)


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [K + 1], where each of K runs of these lengths begins, and where the last ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def ranges_of(begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """So many places from each beginning on, one after the other."""
    return np.repeat(begins - offsets_of(lengths)[:-1], lengths) + np.arange(lengths.sum())
