"""Tiny random encoders: checkpoints as the pretrained ones are (no classification head), with a tokenizer."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, cast

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lora_distill.seeding import derive_seed

VOCABULARY = 600
POSITIONS = 512
FAMILIES = ("roberta", "bert", "distilbert", "mpnet", "deberta-v2", "electra", "modernbert", "albert")
RARE = ("deberta", "deberta-v2 with convolution", "longformer")

# Plain English that every Python carries.
TEXTS = [text for _, text in sorted(topics.items())][:40]


def tiny_model(
    family: str, folder: Path, *, layers: int = 3, hidden: int = 32, seed: int = 0, pooler: bool = True
) -> Path:
    """Write a tiny random encoder of a family and its tokenizer.

    Args:
        family: one of FAMILIES or RARE.
        folder: where to write; made if need be.
        layers: number of layers.
        hidden: width; a multiple of 4.
        seed: of the weights.
        pooler: for bert: whether the checkpoint holds the pooler's weights.

    Returns:
        The folder.
    """
    tokenizer = _tokenizer(family)
    tokenizer.model_max_length = POSITIONS
    sizes = {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": 4,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": POSITIONS,
    }
    config, model_class = _architecture(family, sizes, pooler)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        if hasattr(config, name):
            setattr(config, name, getattr(tokenizer, name))
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, f"tiny {family}"))
        model = model_class(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _architecture(family: str, sizes: dict[str, int], pooler: bool) -> tuple[Any, Any]:
    """Configuration and the class that the family's published checkpoints were saved from."""
    t, narrow = transformers, {"embedding_size": sizes["hidden_size"] // 2}
    offset = {"max_position_embeddings": POSITIONS + 2}  # their positions count from the padding id + 1
    distilled = {
        "vocab_size": sizes["vocab_size"],
        "n_layers": sizes["num_hidden_layers"],
        "dim": sizes["hidden_size"],
        "n_heads": sizes["num_attention_heads"],
        "hidden_dim": sizes["intermediate_size"],
        "max_position_embeddings": POSITIONS,
    }
    disentangled = {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 32,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
    }
    bert = t.BertForPreTraining if pooler else t.BertForMaskedLM
    families: dict[str, tuple[Any, dict[str, Any], Any]] = {
        "roberta": (t.RobertaConfig, sizes | offset | {"type_vocab_size": 1}, t.RobertaForMaskedLM),
        "bert": (t.BertConfig, sizes, bert),
        "distilbert": (t.DistilBertConfig, distilled, t.DistilBertForMaskedLM),
        "mpnet": (t.MPNetConfig, sizes | offset, t.MPNetForMaskedLM),
        "deberta-v2": (t.DebertaV2Config, sizes | disentangled, t.DebertaV2ForMaskedLM),
        "electra": (t.ElectraConfig, sizes | narrow, t.ElectraForPreTraining),
        "deberta": (t.DebertaConfig, sizes | disentangled, t.DebertaForMaskedLM),
        "deberta-v2 with convolution": (
            t.DebertaV2Config,
            sizes | disentangled | {"conv_kernel_size": 3, "conv_act": "gelu"},
            t.DebertaV2ForMaskedLM,
        ),
        "longformer": (t.LongformerConfig, sizes | offset | {"attention_window": 16}, t.LongformerForMaskedLM),
        "modernbert": (t.ModernBertConfig, sizes | {"local_attention": 16}, t.ModernBertForMaskedLM),
        "albert": (t.AlbertConfig, sizes | narrow, t.AlbertForPreTraining),
    }
    config_class, settings, model_class = families[family]
    return config_class(**settings), model_class


def _tokenizer(family: str) -> PreTrainedTokenizerBase:
    t = transformers
    match family:
        case "roberta" | "longformer":
            model = json.loads(_byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]).to_str())["model"]
            merges = [tuple(pair) for pair in model["merges"]]
            tokenizer = t.RobertaTokenizer(vocab=model["vocab"], merges=merges)
        case "bert" | "electra":
            tokenizer = t.BertTokenizer(vocab=_word_pieces(_BERT_SPECIALS))
        case "distilbert":
            tokenizer = t.DistilBertTokenizer(vocab=_word_pieces(_BERT_SPECIALS))
        case "mpnet":
            specials = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"]
            tokenizer = t.MPNetTokenizer(vocab=_word_pieces(specials))
        case "deberta-v2" | "deberta-v2 with convolution":
            tokenizer = t.DebertaV2Tokenizer(vocab=_unigrams(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]))
        case "albert":
            tokenizer = t.AlbertTokenizer(vocab=_unigrams(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]))
        case _:
            tokenizer = _modernbert_tokenizer()
    return cast(PreTrainedTokenizerBase, tokenizer)


def _modernbert_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = _byte_pairs(_BERT_SPECIALS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        **dict(zip(roles, _BERT_SPECIALS, strict=True)),
    )


_BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


# WordPiece and Unigram vocabularies are counted here, because the trainers' ids differ from one run to the next.
def _word_pieces(specials: list[str]) -> dict[str, int]:
    words, letters = _count(str.lower)
    pieces = [*specials, *letters, *(f"##{letter}" for letter in letters), *words]
    return {piece: index for index, piece in enumerate(pieces[:VOCABULARY])}


def _unigrams(specials: list[str]) -> list[tuple[str, float]]:
    words, letters = _count(str)
    rare = -20.0
    pieces = [("▁", rare), *((letter, rare) for letter in letters)]
    pieces += [(f"▁{word}", math.log(count / sum(words.values()))) for word, count in words.items()]
    return [*((special, 0.0) for special in specials), *pieces][:VOCABULARY]


def _count(fold: Callable[[str], str]) -> tuple[dict[str, int], list[str]]:
    """Words, the most frequent first, and all letters and marks."""
    text = fold("\n".join(TEXTS))
    counts = Counter(re.findall(r"[^\W\d_]{2,}", text))
    words = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return words, sorted({letter for letter in text if not letter.isspace()})


def _byte_pairs(specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer
