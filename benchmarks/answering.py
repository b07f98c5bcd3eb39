"""One side of `benchmarks.answers` in a process of its own: loads a model, answers texts, writes what that took.

python -m benchmarks.answering --side pipeline --model FOLDER --texts texts.json --out result.json
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 32
# All texts at once, or one; to their classes, in their order.
Answer = Callable[[list[str]], list[str]]


def through_pipeline(folder: Path, _max_length: int) -> Answer:
    """What the model's page on a hub would say to call."""
    from transformers import pipeline

    classify: Any = pipeline("text-classification", str(folder), device="cpu")
    return lambda texts: [each["label"] for each in classify(texts, batch_size=BATCH, truncation=True)]


def through_peft(folder: Path, max_length: int) -> Answer:
    """The adapter on its base model, unmerged, in fp32."""
    from peft import AutoPeftModelForSequenceClassification

    names = json.loads((folder / "labels.json").read_bytes())["id2label"]
    model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=len(names))
    return _eager(model, folder, max_length, names)


def through_torch(folder: Path, max_length: int) -> Answer:
    """A merged model, in fp32."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return _eager(model, folder, max_length, {str(index): name for index, name in model.config.id2label.items()})


def _eager(model: Any, folder: Path, max_length: int, names: dict[str, str]) -> Answer:  # noqa: ANN401 - two kinds
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.eval()

    @torch.inference_mode()
    def answer(texts: list[str]) -> list[str]:
        found = [""] * len(texts)
        for rows in _sorted_batches([len(ids) for ids in tokenizer(texts)["input_ids"]]):
            batch = [texts[row] for row in rows]
            read = tokenizer(batch, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
            for row, index in zip(rows, model(**read).logits.argmax(dim=1).tolist(), strict=True):
                found[row] = names[str(index)]
        return found

    return answer


def through_onnx(folder: Path, max_length: int) -> Answer:
    """An ONNX file as plain onnxruntime and tokenizers run it."""
    import onnxruntime
    from tokenizers import Tokenizer

    (file,) = (folder / "onnx").glob("*.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    inputs = {each.name for each in session.get_inputs()}
    config = json.loads((folder / "config.json").read_bytes())
    names = config["id2label"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(pad_id=config["pad_token_id"])

    def answer(texts: list[str]) -> list[str]:
        found = [""] * len(texts)
        for rows in _sorted_batches([len(text) for text in texts]):
            read = tokenizer.encode_batch([texts[row] for row in rows])
            given = {
                "input_ids": np.array([each.ids for each in read]),
                "attention_mask": np.array([each.attention_mask for each in read]),
                "token_type_ids": np.array([each.type_ids for each in read]),
            }
            (logits,) = session.run(["logits"], {name: array for name, array in given.items() if name in inputs})
            for row, index in zip(rows, np.asarray(logits).argmax(axis=1).tolist(), strict=True):
                found[row] = names[str(index)]
        return found

    return answer


def through_plain_onnx(folder: Path, max_length: int) -> Answer:
    """A merged model by torch's exporter as one calls it, made once beside it, and then as any ONNX file."""
    import torch
    from transformers import AutoModelForSequenceClassification

    made = folder.with_name(f"{folder.name}-plain")
    if not made.exists():
        (made / "onnx").mkdir(parents=True)
        for name in ("config.json", "tokenizer.json"):
            shutil.copy(folder / name, made)
        sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        given = {name: torch.ones(2, 5, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
        torch.onnx.export(
            AutoModelForSequenceClassification.from_pretrained(folder).eval(),
            f=made / "onnx" / "model.onnx",
            kwargs=given,
            input_names=[*given],
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(given, sizes),
            external_data=False,
            dynamo=True,
        )
    return through_onnx(made, max_length)


def through_classifier(folder: Path, _max_length: int) -> Answer:
    """Ours."""
    from lora_distill import Classifier

    classifier = Classifier.load(folder)
    return lambda texts: [str(name) for name in classifier.predict(texts)]


def _sorted_batches(lengths: list[int]) -> list[list[int]]:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]


SIDES = {
    "pipeline": through_pipeline,
    "peft": through_peft,
    "torch": through_torch,
    "onnx": through_onnx,
    "plain-onnx": through_plain_onnx,
    "classifier": through_classifier,
}


def main() -> None:
    """Load, warm up, answer, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--side", choices=SIDES, required=True)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--texts", type=Path, required=True, help="JSON: many, and some to be answered one by one")
    options.add_argument("--max_length", type=int, required=True)
    options.add_argument("--out", type=Path, required=True)
    arguments = options.parse_args()
    texts: dict[str, list[str]] = json.loads(arguments.texts.read_bytes())
    answer = SIDES[arguments.side](arguments.model, arguments.max_length)
    answer(texts["many"][: 4 * BATCH])
    started = time.perf_counter()
    said = answer(texts["many"])
    many = time.perf_counter() - started
    answer(texts["single"][:1])
    started = time.perf_counter()
    for text in texts["single"]:
        answer([text])
    single = time.perf_counter() - started
    rates = {"many": len(texts["many"]) / many, "single": len(texts["single"]) / single}
    arguments.out.write_text(json.dumps({"rates": rates, "said": said}), encoding="utf-8")


if __name__ == "__main__":
    main()
