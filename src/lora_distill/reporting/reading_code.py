"""The part of a model card's code that reads texts: it answers as the run did."""

from typing import Any


def reading_code(config: dict[str, Any]) -> str:
    """Python that gives `logits`, float32 [N, C], of a `model` and its `tokenizer`.

    Args:
        config: the resolved config.
    """
    texts = ['texts = ["A first text.", "A second one."]']
    read = "texts"
    if config["text_pair_column"]:
        texts.append('others = ["The text beside the first.", "The one beside the second."]')
        read = "texts, others"
    how = f'truncation=True, max_length={config["max_length"]}, padding=True, return_tensors="pt"'
    return "\n".join(
        [
            *texts,
            f"batch = tokenizer({read}, {how})",
            "with torch.inference_mode():",
            "    logits = model(**batch).logits",
        ]
    )
