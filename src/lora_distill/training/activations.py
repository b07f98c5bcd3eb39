"""What the frozen layers give for a chunk: computed once, kept, and found again by the chunk's tokens."""

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lora_distill.cache import Cache, Entry, Stream
from lora_distill.data.batches import Batch, equal_length_groups
from lora_distill.data.tokens import Tokens
from lora_distill.data.wording import byte_size, counted
from lora_distill.model.split import SplitClassifier
from lora_distill.progress import ONCE, track

logger = logging.getLogger(__name__)

KIND = "activations"
GROUP_TOKENS = 4096
# Matrix products of very few rows take other kernels, which add up in another order.
LEAST_TOKENS_A_THREAD = 16


@dataclass(frozen=True)
class Activations:
    """What the frozen layers of a network give for the rows of one split, chunk by chunk: mostly a row is one chunk.

    A chunk's are computed without padding and beside chunks of its own length only, so that they are the same whatever
    it is batched with, now or in another run: kept or not makes no difference.

    Attributes:
        network: whose frozen layers.
        tokens: N rows in K chunks.
        kept: mapped arrays of the cache, [tokens, H] each; bfloat16 as uint16.
        kept_in: int64 [K], which of them holds a chunk; -1: none.
        place: int64 [K], where in it the chunk's tokens begin.
        token_seconds: for each of the arrays, what a token of it took to compute.
        source: where chunks that are not kept are continued from, if that is less than the whole: what `start` of the
            layers give for all of them.
        start: 0 without a source.
    """

    network: SplitClassifier
    tokens: Tokens
    kept: list[NDArray[Any]]
    kept_in: NDArray[np.int64]
    place: NDArray[np.int64]
    token_seconds: list[float]
    source: "Activations | None" = None
    start: int = 0

    @property
    def at_hand(self) -> bool:
        """Whether all is kept, so that nothing has to be computed any more."""
        return self.network.depth == 0 or bool((self.kept_in >= 0).all())

    @property
    def share_kept(self) -> float:
        """Of the chunks, those for which the frozen layers run no more; 0 to 1."""
        return float((self.kept_in >= 0).mean()) if self.network.depth else 1.0

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [N], tokens that each row takes in a batch."""
        return self.tokens.lengths

    def seconds(self, chunks: NDArray[np.int64] | None = None) -> float:
        """What it took to compute that which is kept, of these chunks or of all: what each reading of it spares."""
        chosen = slice(None) if chunks is None else chunks
        kept_in, lengths = self.kept_in[chosen], self.tokens.chunk_lengths[chosen]
        return float(sum(each * lengths[kept_in == number].sum() for number, each in enumerate(self.token_seconds)))

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """The batch of these rows, with what the frozen layers give for each: kept, or computed now."""
        return self.tokens.arranged(rows, self.chunks)

    def chunks(self, places: NDArray[np.int64]) -> Batch:
        """The same of these chunks, each as if it were a row."""
        batch = self.tokens.chunks(places)
        if not self.network.depth:
            return batch
        width = self.network.classifier.config.hidden_size
        hidden = torch.zeros(*batch.input_ids.shape, width, dtype=self.network.dtype)
        raw = _raw(hidden)
        is_token = batch.attention_mask.numpy().astype(bool)
        for number, array in enumerate(self.kept):
            here = is_token & (self.kept_in[places] == number)[:, None]
            at = self.place[places][:, None] + np.arange(raw.shape[1])
            raw[here] = array[at[here]]
        missing = np.flatnonzero(self.kept_in[places] < 0)
        for group in equal_length_groups(self.tokens.chunk_lengths[places[missing]], GROUP_TOKENS):
            chosen = missing[group]
            below = (self.source or self.tokens).chunks(places[chosen])
            computed = compute(self.network, below, self.start)
            raw[chosen, : computed.shape[1]] = _raw(computed)
        return replace(batch, hidden=hidden)


def _raw(hidden: torch.Tensor) -> NDArray[Any]:
    """The same memory as numpy sees it, which has no bfloat16."""
    return (hidden.view(torch.uint16) if hidden.dtype == torch.bfloat16 else hidden).numpy()


def compute(network: SplitClassifier, batch: Batch, start: int = 0) -> torch.Tensor:
    """The prefix's outputs, [B, L, H] on the CPU, for B rows of one length L; see `SplitClassifier.prefix`."""
    rows, length = batch.input_ids.shape
    repeats = -(-LEAST_TOKENS_A_THREAD * torch.get_num_threads() // (rows * length))
    return network.prefix(batch.repeated(repeats) if repeats > 1 else batch, start)[:rows].cpu()


def keep_activations(
    network: SplitClassifier, tokens: Tokens, cache: Cache, recipe: Mapping[str, Any], stage: str
) -> Activations:
    """Let the cache hold what the frozen layers give for these rows, as far as it has room.

    Args:
        network: whose frozen layers.
        tokens: N rows.
        cache: where it is kept.
        recipe: all that makes the network's layers and decides how they compute.
        stage: named in the progress line.
    """
    if not network.depth:
        return _locate(network, tokens, np.array([], "S32"), [])
    keys = chunk_keys(tokens)
    recipes = [dict(recipe) | {"depth": depth} for depth in range(network.depth + 1)]
    with cache.lock(KIND, recipes[network.depth]):
        entries = cache.find(KIND, recipes[network.depth], _holds(keys))
        kept = _locate(network, tokens, keys, entries)
        _, first = np.unique(keys, return_index=True)
        missing = first[kept.kept_in[first] < 0]
        if missing.size:
            for depth in range(network.depth - 1, 0, -1):
                shallower = _locate(network, tokens, keys, cache.find(KIND, recipes[depth], _holds(keys[missing])))
                if (shallower.kept_in[missing] >= 0).all():
                    kept = replace(kept, source=shallower, start=depth)
                    break
            entry = _build(kept, keys, missing, cache, recipes[network.depth], stage)
            if entry:
                found = _locate(network, tokens, keys, [*entries, entry])
                kept = found if found.at_hand else replace(found, source=kept.source, start=kept.start)
    return kept


def chunk_keys(tokens: Tokens) -> NDArray[np.bytes_]:
    """Hashes of each chunk's tokens and of which text of a pair they are of, 16 bytes in hex, [K]."""
    keys = []
    for start, end in itertools.pairwise(tokens.offsets):
        key = hashlib.blake2b(tokens.flat[start:end].tobytes(), digest_size=16)
        if tokens.segments is not None:
            key = hashlib.blake2b(key.digest() + tokens.segments[start:end].tobytes(), digest_size=16)
        keys.append(key.hexdigest())
    return np.array(keys, dtype="S32")


def _holds(keys: NDArray[np.bytes_]) -> Callable[[Entry], bool]:
    """Whether an entry holds any of these chunks: those of other texts may take gigabytes, and need not be read."""
    wanted = frozenset(keys.tolist())

    def holds(entry: Entry) -> bool:
        try:
            return not wanted.isdisjoint(entry.array("keys").tolist())
        except (OSError, ValueError, EOFError):  # damaged, which the cache finds out when it reads it whole
            return True

    return holds


def _locate(network: SplitClassifier, tokens: Tokens, keys: NDArray[np.bytes_], entries: list[Entry]) -> Activations:
    kept: list[NDArray[Any]] = []
    token_seconds: list[float] = []
    found: dict[bytes, tuple[int, int]] = {}
    for entry in entries:
        try:
            entry_keys, lengths, data = (entry.array(name) for name in ("keys", "lengths", "data"))
        except OSError:  # another process has just made room; what is mapped already stays
            continue
        places = np.concatenate([[0], np.cumsum(lengths)[:-1]]).tolist()
        found |= {key: (len(kept), place) for key, place in zip(entry_keys.tolist(), places, strict=True)}
        kept.append(data)
        token_seconds.append(entry.about["seconds"] / len(data))
    located = np.array([found.get(key, (-1, 0)) for key in keys.tolist()], dtype=np.int64).reshape(-1, 2)
    return Activations(network, tokens, kept, located[:, 0], located[:, 1], token_seconds)


def _build(
    before: Activations,
    keys: NDArray[np.bytes_],
    chunks: NDArray[np.int64],
    cache: Cache,
    recipe: dict[str, Any],
    stage: str,
) -> Entry | None:
    """Compute what is missing, the shortest chunks first, for most of them fit where not all do."""
    network, tokens, start = before.network, before.tokens, before.start
    lengths = tokens.chunk_lengths[chunks]
    width, dtype = network.classifier.config.hidden_size, _raw(torch.empty(0, dtype=network.dtype)).dtype
    chunk_bytes = keys.itemsize + lengths.itemsize
    wanted = int(lengths.sum()) * width * dtype.itemsize + len(chunks) * chunk_bytes
    room = (cache.make_room(min(wanted, cache.limit)) - len(chunks) * chunk_bytes) // (width * dtype.itemsize)
    groups = [chunks[group] for group in equal_length_groups(lengths, GROUP_TOKENS)]
    sizes = np.cumsum([int(tokens.chunk_lengths[group].sum()) for group in groups])
    groups = groups[: int(np.searchsorted(sizes, room, side="right"))]
    if not groups:
        level = logging.WARNING if cache.limit else logging.DEBUG  # none was asked for
        logger.log(level, "the cache %s has no room: the frozen layers run each time", cache.folder, extra=ONCE)
        return None
    order = np.concatenate(groups)
    noun = "row" if tokens.starts is None else "chunk"
    if len(order) < len(chunks):
        left = counted(len(chunks) - len(order), noun)
        logger.warning("%s: the cache %s has no room for %s: those run each time", stage, cache.folder, left)
    total = int(tokens.chunk_lengths[order].sum())
    logger.info(
        "%s: frozen layers %d to %d of %s, computed once and kept in %s (%s)",
        *(stage, start + 1, network.depth, counted(len(order), noun), cache.folder),
        byte_size(total * width * dtype.itemsize),
    )

    def pieces() -> Iterator[NDArray[Any]]:
        with track(f"{stage}: frozen layers", len(order)) as advance:
            for group in groups:
                batch = (before.source or tokens).chunks(group)
                yield _raw(compute(network, batch, start)).reshape(-1, width)
                advance(len(group))

    arrays = {
        "keys": Stream.of(keys[order]),
        "lengths": Stream.of(tokens.chunk_lengths[order]),
        "data": Stream((total, width), dtype, pieces()),
    }
    part = hashlib.blake2b(keys[order].tobytes(), digest_size=8).hexdigest()
    title = f"{network.classifier.config.model_type} {network.depth} layers deep, {counted(len(order), noun)}"
    return cache.add(KIND, recipe, part, title, arrays, before.source.seconds(order) if before.source else 0.0)
