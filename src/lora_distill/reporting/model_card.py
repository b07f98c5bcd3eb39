"""The README.md of a model's folder: a model card in the hub's format."""

from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

from lora_distill.config import ALL_LINEAR, ATTENTION, CONTROLS, TOLD
from lora_distill.control import apart
from lora_distill.data.wording import points
from lora_distill.reporting.card_metadata import card_metadata
from lora_distill.reporting.card_training import adapter, given, is_self_taught, several, training
from lora_distill.reporting.loading import loading
from lora_distill.reporting.reading_code import what_is_read
from lora_distill.reporting.sentences import (
    SPEED,
    baseline,
    doubts,
    interval,
    literal,
    percent,
    same_backbone,
    standard_error,
    verdict,
)


class Opening(NamedTuple):
    """How a model opens that is no adapter.

    Attributes:
        library: that opens it, by the hub's name for it.
        section: Markdown on that.
    """

    library: str
    section: str


def model_card(
    *,
    role: str,
    results: dict[str, Any],
    config: dict[str, Any],
    base: dict[str, str],
    opening: Opening | None = None,
    repository: str | None = None,
) -> str:
    """Write the card of one role of a finished run.

    Args:
        role: of `ROLES`.
        results: what metrics.json holds.
        config: the resolved config.
        base: of the base model `name`, `kind` (hub, packaged or folder), `revision` and `reference` (the hub's
            name, or the folder).
        opening: of a model that is no adapter.
        repository: on a hub that an adapter goes to; None: it stays a folder.

    Returns:
        Markdown with the hub's metadata as YAML at its head.
    """
    facts, card = results[role], [_results(role, results, config), _data(results)]
    if facts["trainable_parameters"] is None:
        card = [_about_given(results, config, opening), *card]
    else:
        card = [
            _about(role, results, config, base),
            opening.section if opening else loading(role, results, config, base, repository),
            *card,
            training(role, results, config),
        ]
    fields = card_metadata(role, results, base, opening.library if opening else None)
    metadata = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    heading = f"# {literal(results['exp_name'])}: the {role}"
    return f"---\n{metadata}---\n\n" + "\n\n".join([heading, *card, _limits(role, results, config)]) + "\n"


def _about(role: str, results: dict[str, Any], config: dict[str, Any], base: dict[str, str]) -> str:
    kind = "teacher" if role == "teacher" else "student"
    facts = results[role]
    count = facts["trainable_parameters"]
    targets = tuple(config["target_modules"])
    modules = _TARGETS.get(targets) or ", ".join(f"`{name}`" for name in targets)
    others = [f"{rank} in layer {layer}" for layer, rank in config[f"{kind}_rank_pattern"].items()]
    rank = f"rank {', '.join([str(config[f'{kind}_lora_r']), *others])}"
    scale = ", rank-stabilised" if config["use_rslora"] else ""
    projector = ""
    if "projector_parameters" in facts:
        size = f"{facts['projector_parameters']:,}"
        projector = f"\nA projector of {size} parameters was trained beside them and dropped; it is in neither count."
    budget = f" The budget is {facts['budget']:,}." if "budget" in facts else ""
    read = "pairs of texts" if config["text_pair_column"] else "texts"
    classes = f"of {read} into {len(results['data']['label_names'])} classes"
    what = f"A classifier {classes}: a {adapter(config)} adapter"
    if members := facts.get("members"):
        what = f"{members} classifiers {classes} that answer together, by the mean of their probabilities"
        what += f" ({several(config)}): each is a {adapter(config)} adapter in a folder of its own"
    purpose = _PURPOSE["self-taught teacher" if is_self_taught(role, config) else role]
    return f"""{what} ({rank}, alpha {config[f"{kind}_lora_alpha"]}{scale}, on {modules} of the \
{config["layer_placement"]} {config[f"{kind}_target_layers"]} layers) and a classification head on \
{literal(base["name"])}. {purpose.format(apart=apart(config))}

Trainable parameters: {count["total"]:,} (LoRA {count["lora"]:,}, head {count["head"]:,}). Base model and head have \
{facts["total_parameters"]:,} together{" in all of them" if members else ""}.{budget}{projector}"""


_TARGETS = {
    (): "the attention's query, key and value",
    (ATTENTION,): "the attention's query, key, value and output",
    (ALL_LINEAR,): "every linear module",
}

_PURPOSE = {
    "teacher": "It was trained on the labels, to be imitated by the student.",
    "self-taught teacher": "It was trained on the labels and on what a teacher of the labels alone had said of the "
    "unlabelled texts (self-training), to be imitated by the student.",
    "student": "It was trained to match the labels and its teacher's logits (knowledge distillation), weighed as the "
    "loss below says.",
    "control": "It is the student without a teacher: the same adapter, start, rows and settings{apart}. It was trained "
    "on the labels alone, to show what the teacher is worth.",
    "self-trained": "It is the student taught by the control instead of the teacher: the same adapter, start, rows and "
    "unlabelled texts, to show what these bring without a teacher.",
}


def _about_given(results: dict[str, Any], config: dict[str, Any], opening: Opening | None) -> str:
    about = f"This teacher was not trained here: it was {given(results, config)}."
    if opening:
        return f"{about}\n\n{opening.section}"
    return f"{about} This folder holds no weights, only this card on how it did."


def _results(role: str, results: dict[str, Any], config: dict[str, Any]) -> str:
    data, facts = results["data"], results[role]
    chose_epoch = facts["trainable_parameters"] is not None and config["keep_epoch"] == "best"
    flattered = " The epoch was chosen on the validation split, which flatters it there." if chose_epoch else ""
    rows = []
    for metric, name, show in _METRICS:
        rows.append(f"| {name} | {show(facts['test'][metric])} | {show(facts['validation'][metric])} |")
    scaling = facts["temperature_scaling"]
    metrics, classes, comparison = "\n".join(rows), _classes(role, results), _comparison(role, results, config)
    return f"""## Results

The test split was judged once, at the end, in fp32, without merging.{flattered}

| | Test ({data["test_rows"]:,} rows) | Validation ({data["validation_rows"]:,} rows) |
|---|---:|---:|
{metrics}

Its logits divided by {scaling["temperature"]:.3f}, a temperature fitted on validation, have on the test split a \
negative log-likelihood of {scaling["nll"]:.4f} and a calibration error of {scaling["ece"]:.4f}.

{classes}{comparison}"""


_METRICS: list[tuple[str, str, Callable[[float], str]]] = [
    ("accuracy", "Accuracy", percent),
    ("macro_f1", "Macro F1", percent),
    ("nll", "Negative log-likelihood, nats", "{:.4f}".format),
    ("ece", "Expected calibration error, 15 bins", "{:.4f}".format),
    ("ece_equal_mass", "The same, bins of equal mass", "{:.4f}".format),
    ("brier", "Brier score, 0 to 2", "{:.4f}".format),
]


def _classes(role: str, results: dict[str, Any]) -> str:
    rows = ["| Class (test) | Precision | Recall | F1 | Rows |", "|---|---:|---:|---:|---:|"]
    for name in results["data"]["label_names"]:
        scores = results[role]["test"]["per_class"][name]
        shares = " | ".join(percent(scores[part]) for part in ("precision", "recall", "f1"))
        rows.append(f"| {literal(name)} | {shares} | {scores['support']:,} |")
    return "\n".join(rows)


def _comparison(role: str, results: dict[str, Any], config: dict[str, Any]) -> str:
    if role == "teacher":
        return ""
    text = ""
    if "agreement" in results:
        same, teacher = results["agreement"][f"{role}_teacher"], percent(results["teacher"]["test"]["accuracy"])
        text = f"""

Beside the teacher (accuracy {teacher}): both predict the same class on {percent(same["rate"])} of the test rows, and \
the mean KL(teacher, {role}) is {same["kl"]:.4f} nats."""
    for control in CONTROLS:
        if role == "student" and f"student_minus_{control}" in results:
            difference = results[f"student_minus_{control}"]
            other = TOLD[control][1] + (apart(config) if control == "control" else "")
            text += f"""

Student minus {control} ({other}): {points(difference["accuracy"])} points of accuracy, 95% interval \
{interval(*difference["interval"])}; these two models, one seed: {verdict(difference, control)}"""
    return text


def _data(results: dict[str, Any]) -> str:
    data, source = results["data"], results["data"]["source"]
    splits = [split for split in ("train", "validation", "test", "unlabelled") if f"{split}_rows" in data]
    counts = (f"{data[f'{split}_rows']:,} {split}" for split in splits)
    kind, location, revision = (literal(source[part]) for part in ("kind", "location", "revision"))
    lines = [
        f"{literal(data['name'])} ({kind}: {location}, revision {revision})",
        f"Rows: {', '.join(counts)}",
        f"Labels, in the order of the logits: {', '.join(map(literal, data['label_names']))}",
        f"Terms of use: {literal(source.get('terms', 'not known to the program that wrote this'))}",
        *map(literal, data["notes"]),
        *(f"**Substituted**: {literal(fallback)}" for fallback in results["fallbacks"]),
    ]
    return "## Data\n\n" + "\n".join(f"- {line}" for line in lines)


def _limits(role: str, results: dict[str, Any], config: dict[str, Any]) -> str:
    rows, accuracy = results["data"]["test_rows"], results[role]["test"]["accuracy"]
    commonest, share = baseline(results)
    warnings = "".join(f"\n- **Warning**: {literal(doubt)}." for doubt in doubts(results))
    speed = f"\n- {SPEED}" if role == "student" and same_backbone(results) else ""
    return f"""## Limits

- Every {"pair" if config["text_pair_column"] else "text"} gets one of the labels above, whatever it is about.
- It was judged on the test split above. What it does with other texts, or in another language, was not measured.
- {what_is_read(config["max_length"], config["long_text"], pairs=bool(config["text_pair_column"]))}
- One seed, and {standard_error(accuracy, rows)}; always answering {literal(repr(commonest))} gets {percent(share)}.\
{warnings}{speed}"""
