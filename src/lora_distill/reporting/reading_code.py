"""The part of a model card's code that reads texts, and how that is said: it answers as the run did."""

from lora_distill.data.long_text import MOST_CHUNKS, LongText, head_and_tail

TEXTS = 'texts = ["A first text.", "A second one."]'
OTHERS = 'others = ["The text beside the first.", "The one beside the second."]'
LOGITS = """with torch.inference_mode():
    logits = model(**batch).logits"""
RUN = """(logits,) = session.run(["logits"], {name: np.array(each, np.int64) for name, each in batch.items()})"""


def reading_code(max_length: int, long_text: LongText, *, pairs: bool) -> str:
    """Python that gives `logits`, float32 [N, C], of a `model` and its `tokenizer`, both of transformers.

    Args:
        max_length: tokens that the model reads at once.
        long_text: what it reads of a longer text.
        pairs: whether it reads pairs.
    """
    cut = f"truncation=True, max_length={max_length}"
    padded = 'padding=True, return_tensors="pt"'
    if pairs:
        return f"{TEXTS}\n{OTHERS}\nbatch = tokenizer(texts, others, {cut}, {padded})\n{LOGITS}"
    if long_text == "head_tail":
        return f"""{TEXTS}
rows = tokenizer(texts)["input_ids"]
{_without_middle(max_length)}
batch = tokenizer.pad({{"input_ids": rows}}, {padded})
{LOGITS}"""
    if long_text == "chunk_mean":
        return f"""{TEXTS}
batch = tokenizer(texts, {cut}, return_overflowing_tokens=True, {padded})
text_of = batch.pop("overflow_to_sample_mapping")  # of each chunk
{LOGITS}
logits = torch.stack([logits[text_of == index][:{MOST_CHUNKS}].mean(dim=0) for index in range(len(texts))])"""
    return f"{TEXTS}\nbatch = tokenizer(texts, {cut}, {padded})\n{LOGITS}"


def onnx_reading_code(max_length: int, long_text: LongText, *, pairs: bool, segments: bool) -> str:
    """Python that gives `logits`, float32 [N, C], of an ONNX `session`, its `tokenizer` and its id for `padding`.

    Args:
        max_length: tokens that the model reads at once.
        long_text: what it reads of a longer text.
        pairs: whether it reads pairs.
        segments: whether it is told which text of a pair a token is of.
    """
    if long_text == "head_tail":
        return f"""tokenizer.no_truncation()
tokenizer.no_padding()

{TEXTS}
rows = [row.ids for row in tokenizer.encode_batch(texts)]
{_without_middle(max_length)}
missing = [max(map(len, rows)) - len(row) for row in rows]
batch = {{
    "input_ids": [row + [padding] * more for row, more in zip(rows, missing)],
    "attention_mask": [[1] * len(row) + [0] * more for row, more in zip(rows, missing)],
}}
{RUN}"""
    prepare = f"tokenizer.enable_truncation({max_length})\ntokenizer.enable_padding(pad_id=padding)\n\n{TEXTS}"
    batch = 'batch = {"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows]}'
    if segments:
        batch += '\nbatch["token_type_ids"] = [row.type_ids for row in rows]'
    if pairs:
        return f"{prepare}\n{OTHERS}\nrows = tokenizer.encode_batch(list(zip(texts, others)))\n{batch}\n{RUN}"
    if long_text == "chunk_mean":
        return f"""{prepare}
chunks = [[row, *row.overflowing][:{MOST_CHUNKS}] for row in tokenizer.encode_batch(texts)]
rows = [row for own in chunks for row in own]
{batch}
{RUN}
ends = np.cumsum([len(own) for own in chunks])
logits = np.stack([own.mean(axis=0) for own in np.split(logits, ends[:-1])])"""
    return f"{prepare}\nrows = tokenizer.encode_batch(texts)\n{batch}\n{RUN}"


def _without_middle(max_length: int) -> str:
    head, tail = head_and_tail(max_length)
    return f"rows = [row if len(row) <= {max_length} else row[:{head}] + row[-{tail}:] for row in rows]"


def what_is_read(max_length: int, long_text: LongText, *, pairs: bool) -> str:
    """A sentence on what is read of long texts; the arguments as in `reading_code`."""
    if pairs:
        return f"Of a pair it reads at most {max_length} tokens; the longer text is cut first."
    if long_text == "head_tail":
        head, tail = head_and_tail(max_length)
        return f"Of a text with more than {max_length} tokens it reads the first {head} and the last {tail}."
    if long_text == "chunk_mean":
        return (
            f"A text with more than {max_length} tokens is read in chunks of so many, the first {MOST_CHUNKS} at most;"
            " its logits are the mean of theirs."
        )
    return f"Of a text it reads at most {max_length} tokens; the rest is cut."
