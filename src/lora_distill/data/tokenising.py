"""Texts as a model of transformers reads them, by the folder that it lies in."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import numpy as np
import tokenizers
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from lora_distill.cache import Cache, Stream
from lora_distill.data.long_text import LongText
from lora_distill.data.reading import Reading, Tokeniser
from lora_distill.data.tokens import TYPES, Tokens
from lora_distill.data.types import Text, parts
from lora_distill.data.wording import counted
from lora_distill.store import fingerprint

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
    sources = [Path(__file__).with_name(name) for name in ("long_text.py", "reading.py", "tokenising.py", "tokens.py")]
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
    """Token ids of the texts, as `reading.Reading` says.

    Args:
        texts: N texts, or pairs of them.
        tokenizer_folder: of the model.
        max_length: of a chunk, special tokens included.
        long_text: what is read of a longer text.
    """
    are_pairs = len(texts) > 0 and len(parts(texts[0])) > 1
    return tokeniser_of(tokenizer_folder, max_length, long_text, pairs=are_pairs).read(texts)


def tokeniser_of(tokenizer_folder: Path, max_length: int, long_text: LongText, *, pairs: bool) -> Tokeniser:
    """What reads texts for a model.

    Args:
        tokenizer_folder: of the model.
        max_length: of a chunk, special tokens included.
        long_text: what is read of a longer text.
        pairs: whether texts are pairs.
    """
    tokenizer, config = AutoTokenizer.from_pretrained(tokenizer_folder), AutoConfig.from_pretrained(tokenizer_folder)
    reading = Reading(max_length, long_text, pairs, pairs and reads_segments(tokenizer, config))
    # The model's own first: RoBERTa counts positions by it, and decoders find a text's end.
    padding = (getattr(config, "pad_token_id", None), tokenizer.pad_token_id, 0)
    pad_id = next(token for token in padding if token is not None and token >= 0)
    return Tokeniser(tokenizer.backend_tokenizer, reading, int(pad_id))


def reads_segments(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> bool:
    """Whether a model is told which text of a pair a token is of: transformers does so by default, and it knows two."""
    return TYPES in tokenizer.model_input_names and (getattr(config, "type_vocab_size", 0) or 0) > 1
