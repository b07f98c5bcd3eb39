"""What frozen layers give: kept or not, alone or beside others, the same bits."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_distill import cache as cache_module
from lora_distill.cache import Cache
from lora_distill.data.batches import Batch
from lora_distill.data.tokenising import tokenise
from lora_distill.data.tokens import Tokens
from lora_distill.model.adapter import AdapterSettings, attach_adapter, load_classifier
from lora_distill.model.base import resolve_base_model
from lora_distill.model.split import SplitClassifier
from lora_distill.training.activations import Activations, keep_activations
from tests.tiny import FAMILIES

Tiny = Callable[[str], Path]
WORDS = ["orbit", "rocket", "planet", "tulip", "compost", "hedge", "oven", "butter", "recipe"]
SPLITTING = [family for family in FAMILIES if family != "albert"]


def texts(count: int, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, size=draw.integers(1, 12))) for _ in range(count)]


def network_of(folder: Path, layers: int = 2, dtype: torch.dtype = torch.float32) -> SplitClassifier:
    classifier = load_classifier(resolve_base_model(str(folder)), ["a", "b"], seed=0)
    network = SplitClassifier(attach_adapter(classifier, AdapterSettings(4, 8, layers, (), 0.0, "last"), 0), dtype)
    network.eval()
    return network


def keep(network: SplitClassifier, tokens: Tokens, cache: Cache) -> Activations:
    return keep_activations(network, tokens, cache, {"dtype": str(network.dtype)}, "test")


def hidden_of(activations: Activations, rows: list[int]) -> torch.Tensor:
    batch = activations.batch(np.array(rows))
    assert batch.hidden is not None
    return batch.hidden


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10**9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", SPLITTING)
def test_kept_or_computed_in_any_company_the_bits_are_the_same(
    family: str, dtype: torch.dtype, tiny: Tiny, cache: Cache
) -> None:
    network = network_of(tiny(family), dtype=dtype)
    tokens = tokenise(texts(40), tiny(family), 32)
    kept, computed = keep(network, tokens, cache), keep(network, tokens, Cache(cache.folder, 0))
    nothing = replace(computed, kept=[], kept_in=np.full(40, -1))
    assert kept.at_hand
    assert not nothing.at_hand
    draw = np.random.default_rng(0)
    for size in (1, 2, 7, 33):
        rows = draw.permutation(40)[:size].tolist()
        assert torch.equal(hidden_of(kept, rows), hidden_of(nothing, rows))
        assert torch.equal(network.logits(kept.batch(np.array(rows))), network.logits(nothing.batch(np.array(rows))))
    expected = network.prefix(tokens.batch(np.arange(40))).float()
    is_token = tokens.batch(np.arange(40)).attention_mask.bool()
    found = hidden_of(kept, list(range(40))).float()
    assert (found - expected)[is_token].abs().max() < (1e-5 if dtype == torch.float32 else 0.1)
    assert not found[~is_token].any()


def test_only_what_is_missing_is_computed_and_rows_are_known_by_their_tokens(
    tiny: Tiny, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    network = network_of(tiny("bert"))
    first, more = texts(20, 1), texts(20, 2)
    keep(network, tokenise(first, tiny("bert"), 32), cache)
    with caplog.at_level(logging.INFO, "lora_distill"):
        mixed = keep(network, tokenise([*more, *reversed(first), *more], tiny("bert"), 32), cache)
    new = len({*more} - {*first})
    assert f"of {new} rows, computed once" in caplog.text
    assert mixed.at_hand
    assert len(mixed.kept) == 2
    caplog.clear()
    with caplog.at_level(logging.INFO, "lora_distill"):
        keep(network, tokenise(first + more, tiny("bert"), 32), cache)
    assert not caplog.text


def test_chunks_of_long_texts_are_kept_one_by_one_and_answered_together(tiny: Tiny, cache: Cache) -> None:
    network = network_of(tiny("roberta"))
    tokens = tokenise(texts(30), tiny("roberta"), 8, "chunk_mean")
    assert tokens.starts is not None
    counts = np.diff(tokens.starts)
    assert counts.max() > 3
    kept = keep(network, tokens, cache)
    nothing = replace(kept, kept=[], kept_in=np.full(len(kept.kept_in), -1))
    assert kept.at_hand
    assert not nothing.at_hand
    rows = np.random.default_rng(0).permutation(30)[:9]
    assert torch.equal(network.logits(kept.batch(rows)), network.logits(nothing.batch(rows)))
    for row, logits in zip(rows, network.logits(kept.batch(rows)), strict=True):
        alone = [network.logits(tokens.chunks(np.array([chunk])))[0] for chunk in range(*tokens.starts[[row, row + 1]])]
        assert len(alone) == counts[row]
        assert (logits - torch.stack(alone).mean(dim=0)).abs().max() < 1e-5


def test_which_text_of_a_pair_a_token_is_of_makes_another_row(tiny: Tiny, cache: Cache) -> None:
    """The same tokens, parted at another place."""
    network = network_of(tiny("bert"))
    pairs = tokenise([("orbit rocket", "planet"), ("tulip", "hedge")], tiny("bert"), 32)
    assert pairs.segments is not None
    moved, single = replace(pairs, segments=1 - pairs.segments), replace(pairs, segments=None)
    kept = [keep(network, tokens, cache) for tokens in (pairs, moved, single)]
    assert len(cache.entries()) == 3
    assert [len(each.kept) for each in kept] == [1, 1, 1]
    for each in kept:
        expected = network.prefix(each.tokens.batch(np.arange(2)))
        is_token = each.tokens.batch(np.arange(2)).attention_mask.bool()
        assert (hidden_of(each, [0, 1]) - expected)[is_token].abs().max() < 1e-5
    assert not torch.allclose(hidden_of(kept[0], [0]), hidden_of(kept[1], [0]), atol=1e-2)


def test_a_deeper_prefix_goes_on_from_a_shallower_one_to_the_same_bits(
    tiny: Tiny, cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = tokenise(texts(30), tiny("mpnet"), 32)
    shallow, deep = (network_of(tiny("mpnet"), layers, torch.bfloat16) for layers in (2, 1))
    afresh = keep(deep, tokens, Cache(tmp_path / "other", 10**9))
    begun = keep(shallow, tokens, cache)
    with caplog.at_level(logging.INFO, "lora_distill"):
        gone_on = keep(deep, tokens, cache)
    assert "frozen layers 2 to 2 of" in caplog.text
    assert torch.equal(hidden_of(gone_on, list(range(30))), hidden_of(afresh, list(range(30))))
    assert gone_on.seconds() > begun.seconds() > 0  # of all the layers below, whoever ran them


def test_what_a_deeper_prefix_has_no_room_for_goes_on_from_the_shallower_one_each_time(
    tiny: Tiny, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, rows = tokenise(texts(30), tiny("mpnet"), 32), list(range(30))
    shallow, deep = (network_of(tiny("mpnet"), layers, torch.bfloat16) for layers in (2, 1))
    afresh = hidden_of(keep(deep, tokens, Cache(tmp_path / "other", 10**9)), rows)
    keep(shallow, tokens, cache)
    part = keep(deep, tokens, Cache(cache.folder, cache.entries()[0].size * 3 // 2))
    assert 0 < part.share_kept < 1
    starts, run = set[int](), SplitClassifier.prefix

    def prefix(network: SplitClassifier, batch: Batch, start: int) -> torch.Tensor:
        starts.add(start)
        return run(network, batch, start)

    monkeypatch.setattr(SplitClassifier, "prefix", prefix)
    assert torch.equal(hidden_of(part, rows), afresh)
    assert starts == {1}


def test_without_room_for_all_the_shortest_rows_are_kept(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = network_of(tiny("roberta"))
    tokens = tokenise(texts(50), tiny("roberta"), 32)
    whole = keep(network, tokens, Cache(tmp_path / "whole", 10**9))
    (array,) = whole.kept
    part = keep(network, tokens, Cache(tmp_path / "part", array.nbytes // 2))
    kept = part.kept_in >= 0
    assert 0 < kept.sum() < 50
    assert tokens.lengths[kept].max() <= tokens.lengths[~kept].min()
    rows = list(range(50))
    assert torch.equal(hidden_of(part, rows), hidden_of(whole, rows))
    assert part.seconds() == pytest.approx(part.seconds(np.flatnonzero(kept)))
    assert (whole.share_kept, part.share_kept) == (1, kept.mean())
    none = keep(network, tokens, Cache(tmp_path / "none", 100))
    assert (none.seconds(), none.share_kept) == (0, 0)
    assert "has no room: the frozen layers run each time" in caplog.text
    assert torch.equal(hidden_of(none, rows), hidden_of(whole, rows))
    caplog.clear()
    keep(network, tokens, Cache(tmp_path / "unwanted", 0))
    assert caplog.text == ""


def test_other_texts_of_the_same_encoder_are_not_read_and_give_way(
    tiny: Tiny, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(tiny("bert"))
    others = [f"Other texts: {text}" for text in texts(30)]
    first, second = (tokenise(each, tiny("bert"), 32) for each in (texts(30), others))
    assert keep(network, first, cache).at_hand
    (entry,) = cache.entries()
    monkeypatch.setattr(cache_module, "_READ", set())
    monkeypatch.setattr(cache_module, "file_sha256", lambda path: pytest.fail(f"{path} read"))
    assert keep(network, second, Cache(cache.folder, entry.size * 3 // 2)).at_hand
    assert entry.folder not in [each.folder for each in cache.entries()]


@pytest.mark.parametrize("damaged", ["keys", "data"])
def test_an_entry_that_is_damaged_where_its_texts_are_named_is_made_again(
    damaged: str, tiny: Tiny, cache: Cache
) -> None:
    network = network_of(tiny("bert"))
    tokens = tokenise(texts(5), tiny("bert"), 32)
    before = hidden_of(keep(network, tokens, cache), [0, 1])
    (file,) = cache.folder.glob(f"*/{damaged}.npy")
    file.write_bytes(b"")
    assert torch.equal(hidden_of(keep(network, tokens, Cache(cache.folder, 10**9)), [0, 1]), before)


def test_a_damaged_entry_is_made_again(tiny: Tiny, cache: Cache) -> None:
    network = network_of(tiny("roberta"))
    tokens = tokenise(texts(10), tiny("roberta"), 32)
    before = hidden_of(keep(network, tokens, cache), [0, 1])
    (file,) = cache.folder.glob("*/data.npy")
    file.write_bytes(file.read_bytes()[:-8])
    after = keep(network, tokens, Cache(cache.folder, 10**9))
    assert after.at_hand
    assert torch.equal(hidden_of(after, [0, 1]), before)


def test_where_nothing_is_frozen_below_nothing_is_kept(tiny: Tiny, cache: Cache) -> None:
    for family, layers in (("albert", 1), ("bert", 3), ("longformer", 2)):
        network = network_of(tiny(family), layers)
        activations = keep(network, tokenise(texts(5), tiny(family), 32), cache)
        assert activations.at_hand
        assert activations.batch(np.arange(5)).hidden is None
    assert not list(cache.folder.glob("*"))
