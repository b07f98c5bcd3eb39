"""What is said of an exported model: how it opens, and how it was verified."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from lora_distill.reporting.model_card import Opening
from lora_distill.reporting.reading_code import OTHERS, TEXTS, onnx_reading_code, reading_code
from lora_distill.reporting.sentences import percent

FORMS = {
    "merged": "The adapter has been added to the weights of its base model: a plain folder of transformers, in fp32.",
    "onnx": "This is the model as an ONNX graph in fp32, the adapter added to the weights of its base model.",
    "onnx-int8": "This is the model as an ONNX graph in eight bits, the adapter added to the weights of its base "
    "model: weights rounded to seven of the bits with a scale for each column, activations to eight with one for each "
    "token, so that an answer does not depend on the other texts of its batch.",
}


def opening_of(
    about: dict[str, Any], file: str, verification: dict[str, Any], repository: str | None = None
) -> Opening:
    """What the card of an exported model says beside the run's results.

    Args:
        about: what its classifier.json holds.
        file: of the graph, if it is one.
        verification: what its verification.json holds.
        repository: on a hub that it goes to; None: it stays a folder.
    """
    form = about["form"]
    how = _with_transformers(about, repository) if form == "merged" else _with_onnxruntime(about, file)
    section = f"""{FORMS[form]}

{how}

## Verified

{_verified(verification)}

Probabilities are the softmax of the logits divided by {about["temperature"]:.3f}, the temperature that was fitted on \
validation."""
    return Opening("transformers" if form == "merged" else "onnx", section)


def _with_transformers(about: dict[str, Any], repository: str | None) -> str:
    length, long_text, pairs = about["max_length"], about["long_text"], about["pairs"]
    folder = f"folder = {repository!r}" if repository else 'folder = "."  # this folder'
    if long_text == "truncate":
        texts = f"{TEXTS}\n{OTHERS}" if pairs else TEXTS
        asked = '[{"text": text, "text_pair": other} for text, other in zip(texts, others)]' if pairs else "texts"
        return f"""## How to load it

```python
from transformers import pipeline

{folder}
classify = pipeline("text-classification", folder)
{texts}
print([answer["label"] for answer in classify({asked}, truncation=True, max_length={length})])
```"""
    return f"""## How to load it

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

{folder}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

{reading_code(length, long_text, pairs=pairs)}
print([model.config.id2label[index] for index in logits.argmax(dim=-1).tolist()])
```"""


def _with_onnxruntime(about: dict[str, Any], file: str) -> str:
    inputs = (
        "`input_ids`, `attention_mask` and `token_type_ids`"
        if about["segments"]
        else "`input_ids` and `attention_mask`"
    )
    reading = {name: about[name] for name in ("max_length", "long_text", "pairs", "segments")}
    code = f"""## How to load it

It takes {inputs}, int64 [batch, length], and gives `logits`, float32 [batch, classes]. In Python, \
`pip install onnxruntime tokenizers`:

```python
import json

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

with open("classifier.json", encoding="utf-8") as file:  # in this folder
    labels = json.load(file)["labels"]
with open("config.json", encoding="utf-8") as file:
    padding = json.load(file)["pad_token_id"]
session = InferenceSession("{file}")
tokenizer = Tokenizer.from_file("tokenizer.json")
{onnx_reading_code(**reading)}
print([labels[index] for index in logits.argmax(axis=1)])
```"""
    if about["pairs"] or about["long_text"] != "truncate":
        return code  # the pipeline of transformers.js reads the beginnings of single texts
    return f"""{code}

In JavaScript, `npm install @huggingface/transformers`:

```js
import {{ env, pipeline }} from "@huggingface/transformers";

env.allowRemoteModels = false;
env.localModelPath = "..";  // where this folder lies
const classify = await pipeline("text-classification", "FOLDER", \
{{ dtype: "{"fp32" if about["form"] == "onnx" else "q8"}" }});
console.log(await classify(["A first text.", "A second one."]));
```"""


def _verified(verification: dict[str, Any]) -> str:
    batchmates, size = verification["batchmates"], verification["bytes"] / 1e6
    share, differ = verification["bytes"] / verification["bytes_merged"], "the logits differ by"
    lines = [
        f"Same class as before on {percent(verification['same_class'])} of the {verification['rows']:,} test rows; "
        f"{differ} {verification['largest_difference']:.2g} at most, the confidence by "
        f"{verification['confidence_difference']:.2g} on average",
        f"Accuracy {percent(verification['accuracy'])}, before {percent(verification['accuracy_before'])} "
        f"(McNemar's exact test, p = {verification['mcnemar_p']:.2g})",
        f"In batches of 32 and one at a time, {batchmates['rows']:,} rows: {batchmates['other_class']:,} get another "
        f"class; {differ} {batchmates['largest_difference']:.2g} at most",
        f"{size:,.1f} MB of weights, {share:.2f} of what they take in fp32",
    ]
    if "texts_per_second" in verification:
        lines.append(
            f"{verification['texts_per_second']:,.0f} texts a second, from texts to logits, where it was exported, on "
            f"{verification['threads']} threads"
        )
    forced = "**It does not keep what was asked of it, and was exported by force**"
    lines += [f"{forced}: {each}" for each in verification["faults"]]
    return "\n".join(f"- {line}" for line in lines)


def exported_table(written: Mapping[str, dict[str, Any]]) -> Table:
    """How exported models were verified, a line for each.

    Args:
        written: by form what its verification.json holds.
    """
    table = Table("Form", title="Exported and verified on the run's test rows")
    for name in ("Same class", "Logits differ by", "Accuracy", "Before", "MB", "Of fp32", "Texts/s"):
        table.add_column(name, justify="right")
    for form, found in written.items():
        table.add_row(
            *(form, percent(found["same_class"]), f"{found['largest_difference']:.2g}"),
            *(percent(found["accuracy"]), percent(found["accuracy_before"])),
            *(f"{found['bytes'] / 1e6:,.1f}", f"{found['bytes'] / found['bytes_merged']:.2f}"),
            f"{found['texts_per_second']:,.0f}",
        )
    return table
