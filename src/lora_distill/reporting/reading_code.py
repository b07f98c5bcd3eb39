"""The part of a model card's code that reads texts, and how that is said: it answers as the run did."""

from typing import Any

from lora_distill.data.long_text import MOST_CHUNKS, head_and_tail

TEXTS = 'texts = ["A first text.", "A second one."]'
OTHERS = 'others = ["The text beside the first.", "The one beside the second."]'
LOGITS = """with torch.inference_mode():
    logits = model(**batch).logits"""


def reading_code(config: dict[str, Any]) -> str:
    """Python that gives `logits`, float32 [N, C], of a `model` and its `tokenizer`.

    Args:
        config: the resolved config.
    """
    length = config["max_length"]
    cut = f"truncation=True, max_length={length}"
    padded = 'padding=True, return_tensors="pt"'
    if config["text_pair_column"]:
        return f"{TEXTS}\n{OTHERS}\nbatch = tokenizer(texts, others, {cut}, {padded})\n{LOGITS}"
    if config["long_text"] == "head_tail":
        head, tail = head_and_tail(length)
        return f"""{TEXTS}
rows = tokenizer(texts)["input_ids"]
rows = [row if len(row) <= {length} else row[:{head}] + row[-{tail}:] for row in rows]
batch = tokenizer.pad({{"input_ids": rows}}, {padded})
{LOGITS}"""
    if config["long_text"] == "chunk_mean":
        return f"""{TEXTS}
batch = tokenizer(texts, {cut}, return_overflowing_tokens=True, {padded})
text_of = batch.pop("overflow_to_sample_mapping")  # of each chunk
{LOGITS}
logits = torch.stack([logits[text_of == index][:{MOST_CHUNKS}].mean(dim=0) for index in range(len(texts))])"""
    return f"{TEXTS}\nbatch = tokenizer(texts, {cut}, {padded})\n{LOGITS}"


def what_is_read(config: dict[str, Any]) -> str:
    """A sentence on what is read of long texts.

    Args:
        config: the resolved config.
    """
    length = config["max_length"]
    if config["text_pair_column"]:
        return f"Of a pair it reads at most {length} tokens; the longer text is cut first."
    if config["long_text"] == "head_tail":
        head, tail = head_and_tail(length)
        return f"Of a text with more than {length} tokens it reads the first {head} and the last {tail}."
    if config["long_text"] == "chunk_mean":
        return (
            f"A text with more than {length} tokens is read in chunks of so many, the first {MOST_CHUNKS} at most; its"
            " logits are the mean of theirs."
        )
    return f"Of a text it reads at most {length} tokens; the rest is cut."
