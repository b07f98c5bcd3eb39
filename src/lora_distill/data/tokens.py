"""Texts as token ids: one flat array and offsets, for any number of rows."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer

from lora_distill.cache import Cache, Stream
from lora_distill.data.batches import Batch
from lora_distill.data.wording import counted
from lora_distill.store import fingerprint

TOKENIZER_BATCH = 4096
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
    """The token ids of N texts, special tokens included.

    Attributes:
        flat: int32 [total tokens], row after row.
        offsets: int64 [N + 1]; row i is flat[offsets[i] : offsets[i + 1]].
        cut: how many texts were longer than max_length.
        pad_id: token id that padding uses.
    """

    flat: NDArray[np.int32]
    offsets: NDArray[np.int64]
    cut: int
    pad_id: int

    def __len__(self) -> int:
        """N."""
        return len(self.offsets) - 1

    def followed_by(self, others: "Tokens") -> "Tokens":
        """These texts, and then those, as the same tokenizer reads them."""
        offsets = np.concatenate([self.offsets, len(self.flat) + others.offsets[1:]])
        return replace(self, flat=np.concatenate([self.flat, others.flat]), offsets=offsets, cut=self.cut + others.cut)

    def take(self, rows: NDArray[np.int64]) -> "Tokens":
        """Those of these rows, in this order."""
        flat = [self.flat[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        offsets = np.concatenate([[0], np.cumsum(self.lengths[rows])])
        return replace(self, flat=np.concatenate(flat), offsets=offsets, cut=0)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [N], tokens of each row."""
        return np.diff(self.offsets)

    @property
    def at_hand(self) -> bool:
        """Always."""
        return True

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """The batch of these rows, padded to the longest."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max())
        is_token = columns < lengths[:, None]
        places = np.where(is_token, self.offsets[rows][:, None] + columns, 0)
        ids = np.where(is_token, self.flat[places], self.pad_id)
        return Batch(rows, torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(is_token.astype(np.int64)))


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


def keep_tokens(texts: list[str], tokenizer_folder: Path, max_length: int, model: str, cache: Cache) -> Tokens:
    """As `tokenise`; what was tokenised before is found in the cache.

    Args:
        texts: N texts.
        tokenizer_folder: of the model.
        max_length: in tokens.
        model: fingerprint of the files in that folder.
        cache: where tokens are kept.
    """
    versions = {module.__name__: module.__version__ for module in (tokenizers, transformers)}
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    recipe = {
        "model": model,
        "max_length": max_length,
        "texts": fingerprint(texts),
        "versions": versions | {"source": source},
    }
    with cache.lock("tokens", recipe):
        for entry in cache.find("tokens", recipe):
            with suppress(OSError):  # another process has just made room
                cut, pad_id = entry.array("cut_and_pad_id").tolist()
                return Tokens(entry.array("flat"), entry.array("offsets"), cut, pad_id)
        tokens = tokenise(texts, tokenizer_folder, max_length)
        arrays = {
            "flat": Stream.of(tokens.flat),
            "offsets": Stream.of(tokens.offsets),
            "cut_and_pad_id": Stream.of(np.array([tokens.cut, tokens.pad_id])),
        }
        size = tokens.flat.nbytes + tokens.offsets.nbytes + 1024
        if cache.make_room(size) >= size:
            title = f"tokens, {counted(len(tokens), 'text')}"
            cache.add("tokens", recipe, "all", title, arrays)
    return tokens


def tokenise(texts: list[str], tokenizer_folder: Path, max_length: int) -> Tokens:
    """Token ids of the texts, each cut to max_length tokens."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    rows: list[list[int]] = []
    cut = 0
    for start in range(0, len(texts), TOKENIZER_BATCH):
        encoded = tokenizer(
            texts[start : start + TOKENIZER_BATCH],
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        rows += encoded["input_ids"]
        cut += sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    flat = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(offsets[-1]))
    # The model's own first: RoBERTa counts positions by it, and decoders find a text's end.
    padding = (getattr(AutoConfig.from_pretrained(tokenizer_folder), "pad_token_id", None), tokenizer.pad_token_id, 0)
    pad_id = next(token for token in padding if token is not None and token >= 0)
    return Tokens(flat, offsets, cut, int(pad_id))
