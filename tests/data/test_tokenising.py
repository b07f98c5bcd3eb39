import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, AutoTokenizer

from lora_distill.cache import Cache
from lora_distill.data import reading, tokenising
from lora_distill.data.long_text import MOST_CHUNKS
from lora_distill.data.tokenising import OFFSET_POSITIONS, keep_tokens, most_tokens, tokenise
from lora_distill.data.tokens import Tokens
from tests.tiny import FAMILIES, POSITIONS

Tiny = Callable[[str], Path]

SCRIPTS = [
    "Plain English.",
    "Ünïcödé, naïve café",
    "Русский текст",
    "中文文本没有空格",
    "日本語のテキスト",
    "한국어 텍스트",
    "نص عربي من اليمين",
    "טקסט בעברית",
    "हिन्दी पाठ",
    "ข้อความภาษาไทย",
    "👩‍👩‍👧‍👦 🏳️‍🌈 emoji",
    "e\u0301 combining, \u200b zero width, \x00 control, \ufeff mark",
    "a\tb\r\nc\u2028d",
    "",
    "   ",
]


def rows_of(tokens: Tokens) -> list[list[int]]:
    return [row.tolist() for row in np.split(tokens.flat, tokens.offsets[1:-1])]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_script_gives_the_tokenizer_s_own_ids(family: str, tiny: Tiny) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny(family))
    tokens = tokenise(SCRIPTS, tiny(family), 64)
    assert rows_of(tokens) == [tokenizer(text, truncation=True, max_length=64)["input_ids"] for text in SCRIPTS]
    assert (tokens.flat.dtype.name, tokens.offsets.dtype.name) == ("int32", "int64")
    assert len(tokens) == len(SCRIPTS)
    assert tokens.lengths.min() == 2  # an empty text is its special tokens
    assert tokens.pad_id == tokenizer.pad_token_id


@settings(max_examples=25)
@given(st.lists(st.text(max_size=40), max_size=20), st.integers(4, 40))
def test_rows_keep_their_order_over_any_batches(tiny: Tiny, texts: list[str], max_length: int) -> None:
    whole = tokenise(texts, tiny("roberta"), max_length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "AT_ONCE", 3)
        patch.setattr(reading, "MOST_CHARACTERS", 50)
        in_parts = tokenise(texts, tiny("roberta"), max_length)
    assert rows_of(whole) == rows_of(in_parts)
    assert whole.cut == in_parts.cut
    assert len(whole) == len(texts)
    assert whole.offsets[0] == 0
    assert whole.offsets[-1] == len(whole.flat)
    assert len(texts) == 0 or whole.lengths.max() <= max_length


def test_no_rows(tiny: Tiny) -> None:
    tokens = tokenise([], tiny("bert"), 16)
    assert (len(tokens), tokens.flat.tolist(), tokens.offsets.tolist(), tokens.cut) == (0, [], [0], 0)


@pytest.mark.parametrize("family", ["roberta", "bert", "albert"])
def test_texts_that_are_cut_are_counted_and_those_that_just_fit_are_not(family: str, tiny: Tiny) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny(family))
    texts = ["one", "a somewhat longer text", "and one that is a good deal longer than all of the others are"]
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    for max_length, cut in ((lengths[2], 0), (lengths[2] - 1, 1), (lengths[1], 1), (lengths[1] - 1, 2)):
        tokens = tokenise(texts, tiny(family), max_length)
        assert tokens.cut == cut
        assert tokens.lengths.tolist() == [min(length, max_length) for length in lengths]
    ends = [row[-1] for row in rows_of(tokens)]
    assert len(set(ends)) == 1  # a text that was cut ends as any other


@pytest.mark.parametrize("family", ["roberta", "bert"])
def test_a_row_of_a_million_characters(family: str, tiny: Tiny) -> None:
    texts = ["short", "many words of it " * 60_000, "x" * 1_000_000]
    tokens = tokenise(texts, tiny(family), 32)
    assert tokens.lengths[1] == 32
    assert tokens.lengths.max() == 32
    assert tokens.cut == (1 if family == "bert" else 2)  # to BERT a word of a million letters is one unknown word


def test_a_tokenizer_that_pads_or_cuts_by_itself_is_not_obeyed(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    state = json.loads((folder / "tokenizer.json").read_text())
    state["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": None}
    state["padding"] = padding | {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    texts = ["one", "a somewhat longer text", "and one that is a good deal longer"]
    assert rows_of(tokenise(texts, folder, 16)) == rows_of(tokenise(texts, tiny("bert"), 16))


PAIRS = [
    ("A short one.", "And one that is a good deal longer than what stands before it here."),
    ("A text of some length, longer than its second.", "Is it?"),
    ("So.", "So."),
]


@pytest.mark.parametrize("max_length", [12, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_read_as_transformers_reads_them(family: str, max_length: int, tiny: Tiny) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny(family))
    tokens = tokenise(PAIRS, tiny(family), max_length)
    batch = tokens.batch(np.arange(len(PAIRS))).inputs()
    firsts, seconds = zip(*PAIRS, strict=True)
    how = {"truncation": True, "max_length": max_length, "padding": True, "return_tensors": "pt"}
    expected = tokenizer(list(firsts), list(seconds), **how)
    if family == "deberta-v2":  # which is told and knows no types
        expected.pop("token_type_ids")
    assert batch.keys() == expected.keys()
    assert ("token_type_ids" in batch) == (family in ("bert", "electra"))
    assert all(torch.equal(batch[name], expected[name]) for name in batch)
    whole = tokenizer(list(firsts), list(seconds))["input_ids"]
    assert tokens.cut == sum(len(row) > max_length for row in whole)


def test_a_pair_of_texts_of_a_million_characters(tiny: Tiny) -> None:
    tokens = tokenise([("many words of it " * 60_000, "and many others " * 60_000)], tiny("bert"), 32)
    assert (tokens.lengths.tolist(), tokens.cut) == ([32], 1)


def test_rows_of_pairs_are_taken_and_joined_with_their_segments(tiny: Tiny) -> None:
    tokens = tokenise(PAIRS, tiny("bert"), 64)
    assert tokens.segments is not None
    for other in (tokens.take(np.array([2, 0])), tokenise([PAIRS[2]], tiny("bert"), 64)):
        joined = tokens.followed_by(other)
        rows = np.arange(len(joined))
        expected = tokenise([*PAIRS, PAIRS[2], PAIRS[0]][: len(joined)], tiny("bert"), 64)
        for name, each in joined.batch(rows).inputs().items():
            assert torch.equal(each, expected.batch(rows).inputs()[name])


def test_a_model_of_one_type_is_told_none_whatever_its_tokenizer_says(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"type_vocab_size": 1}))
    assert tokenise(PAIRS, folder, 64).segments is None


# Long texts


LONG = ["short", "many words of it " * 9, "", "and some words more " * 4, "a few more words " * 60]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_beginning_and_the_end_of_long_texts(family: str, tiny: Tiny) -> None:
    whole = AutoTokenizer.from_pretrained(tiny(family))(LONG)["input_ids"]
    tokens = tokenise(LONG, tiny(family), 16, "head_tail")
    assert rows_of(tokens) == [row if len(row) <= 16 else row[:4] + row[-12:] for row in whole]
    assert tokens.cut == 3
    assert tokens.starts is None


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_hold_the_whole_text_as_far_as_there_may_be_so_many(family: str, tiny: Tiny) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny(family))
    tokens = tokenise(LONG, tiny(family), 16, "chunk_mean")
    assert tokens.starts is not None
    chunks = rows_of(tokens)
    first, last = chunks[0][0], chunks[0][-1]
    counts = np.diff(tokens.starts)
    for text, start, count in zip(LONG, tokens.starts, counts, strict=False):
        own = chunks[start : start + count]
        assert all(chunk[0] == first and chunk[-1] == last for chunk in own)
        assert [len(chunk) for chunk in own[:-1]] == [16] * (count - 1)
        inside = [token for chunk in own for token in chunk[1:-1]]
        assert inside == tokenizer(text)["input_ids"][1:-1][: 14 * MOST_CHUNKS]
    assert counts[[0, 2, 4]].tolist() == [1, 1, MOST_CHUNKS]
    assert tokens.cut == sum(len(row) - 2 > 14 * MOST_CHUNKS for row in tokenizer(LONG)["input_ids"]) > 0
    assert tokens.lengths.tolist()[1:] == [counts[1] * 16, 2, counts[3] * 16, MOST_CHUNKS * 16]


def test_chunks_are_kept_taken_and_joined_by_their_texts(tiny: Tiny, tmp_path: Path) -> None:
    tokens = tokenise(LONG, tiny("bert"), 16, "chunk_mean")
    cache = Cache(tmp_path, 10**6)
    kept = [keep_tokens(LONG, tiny("bert"), 16, "model", cache, "chunk_mean") for _ in range(2)]
    again = [1, 4, 0, 1]
    taken = tokens.take(np.array(again))
    expected = tokenise([LONG[row] for row in again], tiny("bert"), 16, "chunk_mean")
    joined = tokens.followed_by(taken)
    both = tokenise([*LONG, *(LONG[row] for row in again)], tiny("bert"), 16, "chunk_mean")
    for one, other in ((taken, expected), (joined, both), (kept[0], tokens), (kept[1], tokens)):
        assert len(one) == len(other)
        batches = [each.batch(np.arange(len(other))) for each in (one, other)]
        for name in ("input_ids", "attention_mask", "shares"):
            assert torch.equal(*(getattr(batch, name) for batch in batches))
    assert len(list(tmp_path.glob("tokens-*-all"))) == 1
    keep_tokens(LONG, tiny("bert"), 16, "model", cache)
    assert len(list(tmp_path.glob("tokens-*-all"))) == 2


def test_a_tokenizer_that_cuts_by_itself_is_not_obeyed_for_long_texts_either(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    state = json.loads((folder / "tokenizer.json").read_text())
    state["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 2}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    assert rows_of(tokenise(LONG, folder, 16, "head_tail")) == rows_of(tokenise(LONG, tiny("bert"), 16, "head_tail"))
    assert rows_of(tokenise(LONG, folder, 16, "chunk_mean")) == rows_of(tokenise(LONG, tiny("bert"), 16, "chunk_mean"))


# How much a model can read


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_reads_as_many_tokens_as_are_said(family: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny(family), tmp_path / "model"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["model_max_length"]  # some tokenizers do not know it
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert most_tokens(folder) == most_tokens(tiny(family)) == POSITIONS
    tokens = tokenise(["word " * 2 * POSITIONS], folder, most_tokens(folder))
    assert tokens.lengths.tolist() == [POSITIONS]
    with torch.inference_mode():
        model = AutoModel.from_pretrained(folder).eval()
        model(input_ids=torch.from_numpy(tokens.flat.astype(np.int64))[None])


def test_the_tokenizer_s_limit_counts_where_it_is_lower(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("roberta"), tmp_path / "model"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 100}))
    assert most_tokens(folder) == 100


@pytest.mark.parametrize("model_type", OFFSET_POSITIONS)
def test_families_whose_positions_begin_after_the_padding_id(model_type: str, tiny: Tiny, tmp_path: Path) -> None:
    """Pad ids other than 1 too, where the family lets one choose: MPNet does not."""
    pad = 1 if model_type == "mpnet" else 3
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    config = AutoConfig.for_model(
        model_type, vocab_size=600, max_position_embeddings=20, pad_token_id=pad, attention_window=4, **sizes
    )
    AutoTokenizer.from_pretrained(tiny("roberta")).save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    most = most_tokens(tmp_path)
    assert most == 20 - pad - 1
    model = AutoModel.from_config(config).eval()
    if hasattr(model, "set_default_language"):
        model.set_default_language("en_XX")
    with torch.inference_mode():
        model(input_ids=torch.full((1, most), 9))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, most + 1), 9))


def test_a_model_without_a_limit_of_its_own(tiny: Tiny, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(tiny("roberta")).save_pretrained(tmp_path)
    AutoConfig.for_model("xlnet", d_model=8, n_head=2, n_layer=1, d_inner=8).save_pretrained(tmp_path)
    assert most_tokens(tmp_path) == POSITIONS


def test_tokens_are_kept_and_found_by_texts_model_and_length(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, texts, calls = tiny("bert"), ["A text.", "Another one, which is longer.", ""], []

    def counting(*arguments: object) -> Tokens:
        calls.append(arguments)
        return tokenise(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tokenising, "tokenise", counting)
    for _ in range(2):
        kept = keep_tokens(texts, folder, 6, "model", Cache(tmp_path, 10**6))
        plain = tokenise(texts, folder, 6)
        assert np.array_equal(kept.flat, plain.flat)
        assert np.array_equal(kept.offsets, plain.offsets)
        assert (kept.cut, kept.pad_id) == (plain.cut, plain.pad_id)
        assert torch.equal(kept.batch(np.arange(3)).input_ids, plain.batch(np.arange(3)).input_ids)
    assert len(calls) == 1
    for changed in ((texts[:2], folder, 6, "model"), (texts, folder, 7, "model"), (texts, folder, 6, "other")):
        keep_tokens(*changed, Cache(tmp_path, 10**6))
    assert len(calls) == 4
    keep_tokens(texts, folder, 6, "model", Cache(tmp_path / "none", 0))
    assert len(calls) == 5
    assert not list((tmp_path / "none").glob("tokens-*/*"))
    for _ in range(2):
        kept, plain = keep_tokens(PAIRS, folder, 64, "model", Cache(tmp_path, 10**6)), tokenise(PAIRS, folder, 64)
        batches = [tokens.batch(np.arange(3)).inputs()["token_type_ids"] for tokens in (kept, plain)]
        assert torch.equal(*batches)
    assert len(calls) == 6


def test_texts_are_followed_by_others_as_if_read_together(tiny: Tiny) -> None:
    folder = tiny("bert")
    few, others = SCRIPTS[:5], SCRIPTS[5:]
    together = tokenise(few, folder, 6).followed_by(tokenise(others, folder, 6))
    expected = tokenise(SCRIPTS, folder, 6)
    assert rows_of(together) == rows_of(expected)
    assert (together.cut, together.pad_id) == (expected.cut, expected.pad_id)
