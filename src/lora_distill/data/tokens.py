"""Texts as token ids: one flat array and offsets, for any number of rows."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer

from lora_distill.cache import Cache, Stream
from lora_distill.data.batches import Batch
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
    """The token ids of N texts, special tokens included.

    Attributes:
        flat: int32 [total tokens], row after row.
        offsets: int64 [N + 1]; row i is flat[offsets[i] : offsets[i + 1]].
        cut: how many texts were longer than max_length.
        pad_id: token id that padding uses.
        segments: int8 [total tokens], 0 or 1: which text of a pair a token is of; None where the model is not told.
    """

    flat: NDArray[np.int32]
    offsets: NDArray[np.int64]
    cut: int
    pad_id: int
    segments: NDArray[np.int8] | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.offsets) - 1

    def followed_by(self, others: "Tokens") -> "Tokens":
        """These texts, and then those, as the same tokenizer reads them."""
        offsets = np.concatenate([self.offsets, len(self.flat) + others.offsets[1:]])
        segments = None
        if self.segments is not None and others.segments is not None:
            segments = np.concatenate([self.segments, others.segments])
        flat = np.concatenate([self.flat, others.flat])
        return replace(self, flat=flat, offsets=offsets, cut=self.cut + others.cut, segments=segments)

    def take(self, rows: NDArray[np.int64]) -> "Tokens":
        """Those of these rows, as if none had been cut."""
        places = np.concatenate([np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows])
        offsets = np.concatenate([[0], np.cumsum(self.lengths[rows])])
        segments = None if self.segments is None else self.segments[places]
        return replace(self, flat=self.flat[places], offsets=offsets, cut=0, segments=segments)

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

        def padded(flat: NDArray[Any], padding: int) -> torch.Tensor:
            return torch.from_numpy(np.where(is_token, flat[places], padding).astype(np.int64))

        mask = torch.from_numpy(is_token.astype(np.int64))
        segments = None if self.segments is None else padded(self.segments, 0)
        return Batch(rows, padded(self.flat, self.pad_id), mask, segments=segments)


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


def keep_tokens(texts: Sequence[Text], tokenizer_folder: Path, max_length: int, model: str, cache: Cache) -> Tokens:
    """As `tokenise`; what was tokenised before is found in the cache.

    Args:
        texts: N texts, or pairs of them.
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
                segments = entry.array("segments") if "segments" in entry.about["files"] else None
                return Tokens(entry.array("flat"), entry.array("offsets"), cut, pad_id, segments)
        tokens = tokenise(texts, tokenizer_folder, max_length)
        arrays = {
            "flat": Stream.of(tokens.flat),
            "offsets": Stream.of(tokens.offsets),
            "cut_and_pad_id": Stream.of(np.array([tokens.cut, tokens.pad_id])),
        }
        if tokens.segments is not None:
            arrays["segments"] = Stream.of(tokens.segments)
        size = len(tokens.flat) * (tokens.flat.itemsize + 1) + tokens.offsets.nbytes + 1024
        if cache.make_room(size) >= size:
            title = f"tokens, {counted(len(tokens), 'text')}"
            cache.add("tokens", recipe, "all", title, arrays)
    return tokens


def tokenise(texts: Sequence[Text], tokenizer_folder: Path, max_length: int) -> Tokens:
    """Token ids of the texts, each cut to max_length tokens; of a pair, the text that is longer is cut first.

    Which text of a pair a token is of is told to models that tell the two apart, as far as their tokenizers say it:
    what transformers gives a model by default.
    """
    tokenizer, config = AutoTokenizer.from_pretrained(tokenizer_folder), AutoConfig.from_pretrained(tokenizer_folder)
    are_pairs = len(texts) > 0 and len(parts(texts[0])) > 1
    is_told = are_pairs and getattr(config, "type_vocab_size", 0) > 1 and TYPES in tokenizer.model_input_names
    rows: list[list[int]] = []
    segments: list[list[int]] = []
    cut = 0
    for start in range(0, len(texts), TOKENIZER_BATCH):
        encoded = tokenizer(
            list(texts[start : start + TOKENIZER_BATCH]),
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=is_told,
        )
        rows += encoded["input_ids"]
        segments += encoded[TYPES] if is_told else []
        cut += sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    flat = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(offsets[-1]))
    told = np.fromiter(chain.from_iterable(segments), dtype=np.int8) if is_told else None
    # The model's own first: RoBERTa counts positions by it, and decoders find a text's end.
    padding = (getattr(config, "pad_token_id", None), tokenizer.pad_token_id, 0)
    pad_id = next(token for token in padding if token is not None and token >= 0)
    return Tokens(flat, offsets, cut, int(pad_id), told)
