"""The README.md of a model's folder: a model card in the hub's format."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

from lora_distill.config import ALL_LINEAR, ATTENTION, CONTROLS, TOLD
from lora_distill.data.wording import counted
from lora_distill.reporting.card_metadata import card_metadata
from lora_distill.reporting.loading import loading
from lora_distill.reporting.reading_code import what_is_read
from lora_distill.reporting.sentences import (
    SPEED,
    baseline,
    doubts,
    interval,
    one_line,
    percent,
    points,
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
        role: teacher, student or control.
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
            _settings(role, results, config),
        ]
    fields = card_metadata(role, results, base, opening.library if opening else None)
    metadata = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    heading = f"# {_md(results['exp_name'])}: the {role}"
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
    what = f"A classifier {classes}: a {_adapter(config)} adapter"
    if members := facts.get("members"):
        what = f"{members} classifiers {classes} that answer together, by the mean of their probabilities"
        what += f" ({_several(config)}): each is a {_adapter(config)} adapter in a folder of its own"
    return f"""{what} ({rank}, alpha {config[f"{kind}_lora_alpha"]}{scale}, on {modules} of the \
{config["layer_placement"]} {config[f"{kind}_target_layers"]} layers) and a classification head on \
{_md(base["name"])}. {_PURPOSE["self-taught teacher" if _is_self_taught(role, config) else role]}

Trainable parameters: {count["total"]:,} (LoRA {count["lora"]:,}, head {count["head"]:,}). Base model and head have \
{facts["total_parameters"]:,} together{" in all of them" if members else ""}.{budget}{projector}"""


def _several(config: dict[str, Any]) -> str:
    """What several teachers differ in."""
    seeds = f"{config['teacher_ensemble']} of other seeds"
    if config["teacher_fit"] == "whole":
        return seeds
    times = f", {seeds} each" if config["teacher_ensemble"] > 1 else ""
    return f"one for each of {config['teacher_folds']} folds{times}, which labels the rows that it has not seen"


def _is_self_taught(role: str, config: dict[str, Any]) -> bool:
    return role == "teacher" and bool(config["teacher_self_training"])


def _adapter(config: dict[str, Any]) -> str:
    return "DoRA" if config["use_dora"] else "LoRA"


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
    "control": "It is the student without a teacher: the same adapter, start, rows and settings, trained on the labels "
    "alone, to show what the teacher is worth.",
    "self-trained": "It is the student taught by the control instead of the teacher: the same adapter, start, rows and "
    "unlabelled texts, to show what these bring without a teacher.",
}


def _about_given(results: dict[str, Any], config: dict[str, Any], opening: Opening | None) -> str:
    about = f"This teacher was not trained here: it was {_given(results, config)}."
    if opening:
        return f"{about}\n\n{opening.section}"
    return f"{about} This folder holds no weights, only this card on how it did."


def _given(results: dict[str, Any], config: dict[str, Any]) -> str:
    if config.get("teacher_predictions"):
        return f"given, as the file of answers {_md(config['teacher_predictions'])}"
    return f"given, as {_md(results['teacher']['checkpoint'])}"


def _results(role: str, results: dict[str, Any], config: dict[str, Any]) -> str:
    data, facts = results["data"], results[role]
    chose_epoch = facts["trainable_parameters"] is not None and config["keep_epoch"] == "best"
    flattered = " The epoch was chosen on the validation split, which flatters it there." if chose_epoch else ""
    rows = []
    for metric, name, show in _METRICS:
        rows.append(f"| {name} | {show(facts['test'][metric])} | {show(facts['validation'][metric])} |")
    scaling = facts["temperature_scaling"]
    metrics, classes, comparison = "\n".join(rows), _classes(role, results), _comparison(role, results)
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
        rows.append(f"| {_md(name)} | {shares} | {scores['support']:,} |")
    return "\n".join(rows)


def _comparison(role: str, results: dict[str, Any]) -> str:
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
            text += f"""

Student minus {control} ({TOLD[control][1]}): {points(difference["accuracy"])} points of accuracy, 95% interval \
{interval(difference)}; these two models, one seed: {verdict(difference)}"""
    return text


def _data(results: dict[str, Any]) -> str:
    data, source = results["data"], results["data"]["source"]
    splits = [split for split in ("train", "validation", "test", "unlabelled") if f"{split}_rows" in data]
    counts = (f"{data[f'{split}_rows']:,} {split}" for split in splits)
    lines = [
        f"{_md(data['name'])} ({_md(source['kind'])}: {_md(source['location'])}, revision {_md(source['revision'])})",
        f"Rows: {', '.join(counts)}",
        f"Labels, in the order of the logits: {', '.join(map(_md, data['label_names']))}",
        f"Terms of use: {_md(source.get('terms', 'not known to the program that wrote this'))}",
        *map(_md, data["notes"]),
        *(f"**Substituted**: {_md(fallback)}" for fallback in results["fallbacks"]),
    ]
    return "## Data\n\n" + "\n".join(f"- {line}" for line in lines)


def _settings(role: str, results: dict[str, Any], config: dict[str, Any]) -> str:
    facts = results[role]
    is_taught = role in ("student", "self-trained") or _is_self_taught(role, config)
    rate = config.get(f"{role}_learning_rate") or config["learning_rate"]
    ratio = config["lora_plus_ratio"]
    faster = f" ({ratio * rate:g} for LoRA's B: LoRA+)" if ratio != 1 else ""
    mixed = f", {config['labelled_per_batch']} of them with labels" if is_taught and config["unlabelled"] else ""
    return f"""## Training

{_loss(role, results, config) if is_taught else f"- Loss: {_hard_loss(config)}"}
- AdamW, learning rate {rate:g}{faster}, weight decay {config["weight_decay"]:g}, {config["lr_schedule"]} \
schedule after {percent(config["warmup_ratio"])} of warm-up, gradients clipped at {config["max_grad_norm"]:g}
- {config["batch_size"]} rows a step{mixed}, {config["max_length"]} tokens read at once, LoRA dropout \
{config["lora_dropout"]:g}
- {_epochs(facts, config)}; seed {config["seed"]}"""


def _epochs(facts: dict[str, Any], config: dict[str, Any]) -> str:
    if members := facts.get("members"):
        epochs = config["teacher_num_epochs"] or config["num_epochs"]
        return f"{members} trainings of {counted(epochs, 'epoch')} at most, the {config['keep_epoch']} of each kept"
    return f"{counted(facts['epochs'], 'epoch')} run, the weights of epoch {facts['kept_epoch']} kept"


def _loss(role: str, results: dict[str, Any], config: dict[str, Any]) -> str:
    alpha, temperature = config["alpha"], config["temperature"]
    if base := results.get("teacher", {}).get("base_model"):
        rank, layers = config["teacher_lora_r"], config["teacher_target_layers"]
        encoder = "the same base model" if same_backbone(results) else _md(base)
        teacher = f"{_adapter(config)} of rank {rank} on {layers} layers of {encoder}"
        if config["teacher_self_training"]:
            teacher += ", trained twice: the second time with what it had said of the unlabelled texts"
        if "members" in results["teacher"]:
            teacher += f"; {results['teacher']['members']} such, {_several(config)}: the mean of their probabilities"
    else:
        teacher = _given(results, config)
    if role == "teacher":
        teacher = "what was trained on the labels alone"
        if config["teacher_ensemble"] > 1 or config["teacher_fit"] == "crossfit":
            teacher += f" ({_several(config)}): the mean of their probabilities"
    if role == "self-trained":
        teacher = "the control, which is this student trained on the labels alone"
    if fitted := results[role].get("teacher_temperature"):
        teacher += f"; its logits divided by {fitted:.3f}, a temperature fitted on validation"
    soft = (
        f"{temperature:g}² × KL(teacher, student) at temperature {temperature:g} (Hinton, Vinyals and Dean, Distilling"
        " the Knowledge in a Neural Network, 2015)"
    )
    if config["soft_loss"] == "mse":
        soft = "the mean squared difference of the logits from the teacher's (Kim et al., IJCAI 2021)"
    if config["pooled_weight"]:
        soft += (
            f" + {config['pooled_weight']:g} × the squared distance of the normalised vectors that the heads read"
            " (Sun et al., Patient Knowledge Distillation, EMNLP 2019)"
        )
    return f"""\
- Loss: {1 - alpha:g} × {_hard_loss(config)} + {alpha:g} × {soft}
- Teacher: {teacher}"""


def _hard_loss(config: dict[str, Any]) -> str:
    said = "cross-entropy with the labels"
    if config["unlabelled"]:
        said += " of the rows that have some"
    if config["class_weights"] == "balanced":
        said += ", each class of the same weight"
    return said + (f", smoothed by {config['label_smoothing']:g}" if config["label_smoothing"] else "")


def _limits(role: str, results: dict[str, Any], config: dict[str, Any]) -> str:
    rows, accuracy = results["data"]["test_rows"], results[role]["test"]["accuracy"]
    commonest, share = baseline(results)
    warnings = "".join(f"\n- **Warning**: {_md(doubt)}." for doubt in doubts(results))
    speed = f"\n- {SPEED}" if role == "student" and same_backbone(results) else ""
    return f"""## Limits

- Every {"pair" if config["text_pair_column"] else "text"} gets one of the labels above, whatever it is about.
- It was judged on the test split above. What it does with other texts, or in another language, was not measured.
- {what_is_read(config["max_length"], config["long_text"], pairs=bool(config["text_pair_column"]))}
- One seed, and {standard_error(accuracy, rows)}; always answering {_md(repr(commonest))} gets {percent(share)}.\
{warnings}{speed}"""


def _md(text: str) -> str:
    """A user's text on one line of Markdown, taken literally, in a table too."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", one_line(text))
