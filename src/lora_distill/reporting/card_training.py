"""Of a model card, how a role was trained."""

from typing import Any

from lora_distill.data.wording import counted
from lora_distill.reporting.sentences import literal, percent, same_backbone


def training(role: str, results: dict[str, Any], config: dict[str, Any]) -> str:
    """The section on it, in Markdown; the arguments are `model_card`'s."""
    facts = results[role]
    is_taught = role in ("student", "self-trained") or is_self_taught(role, config)
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
    control = "the control, which is this student trained on the labels alone"
    if base := results.get("teacher", {}).get("base_model"):
        rank, layers = config["teacher_lora_r"], config["teacher_target_layers"]
        encoder = "the same base model" if same_backbone(results) else literal(base)
        teacher = f"{adapter(config)} of rank {rank} on {layers} layers of {encoder}"
        if config["teacher_self_training"]:
            teacher += ", trained twice: the second time with what it had said of the unlabelled texts"
        if "members" in results["teacher"]:
            teacher += f"; {results['teacher']['members']} such, {several(config)}: the mean of their probabilities"
    else:
        teacher = given(results, config)
    if role == "teacher":
        teacher = "what was trained on the labels alone"
        if config["teacher_ensemble"] > 1 or config["teacher_fit"] == "crossfit":
            teacher += f" ({several(config)}): the mean of their probabilities"
    if role == "self-trained":
        teacher = control
    learner_of_folds = "teacher" if config["teacher_self_training"] else "student"
    by_folds = config["teacher_fit"] == "crossfit" and role == learner_of_folds
    if fitted := results[role].get("teacher_temperature"):
        rows = "the rows' labels" if by_folds else "validation"
        teacher += f"; its logits divided by {fitted:.3f}, a temperature fitted on {rows}"
    if (from_both := results[role].get("learns_from_both")) is not None:
        teacher += _together(control, results[role], by_folds=by_folds) if from_both else f"; without {control}"
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


def _together(control: str, facts: dict[str, Any], *, by_folds: bool) -> str:
    """That a student learned from both, as a clause."""
    said = f"; together with {control}"
    if fitted := facts.get("control_temperature"):
        said += f", its logits divided by {fitted:.3f}"
    said += ": the mean of their probabilities"
    if fitted := facts.get("both_temperature"):
        said += f", its logarithm divided by {fitted:.3f}"
    return said + (", of the texts without labels" if by_folds else "")


def _hard_loss(config: dict[str, Any]) -> str:
    said = "cross-entropy with the labels"
    if config["unlabelled"]:
        said += " of the rows that have some"
    if config["class_weights"] == "balanced":
        said += ", each class of the same weight"
    return said + (f", smoothed by {config['label_smoothing']:g}" if config["label_smoothing"] else "")


def several(config: dict[str, Any]) -> str:
    """What several teachers differ in."""
    seeds = f"{config['teacher_ensemble']} of other seeds"
    if config["teacher_fit"] == "whole":
        return seeds
    times = f", {seeds} each" if config["teacher_ensemble"] > 1 else ""
    return f"one for each of {config['teacher_folds']} folds{times}, which labels the rows that it has not seen"


def is_self_taught(role: str, config: dict[str, Any]) -> bool:
    """Whether it is a teacher that was trained a second time with what it said."""
    return role == "teacher" and bool(config["teacher_self_training"])


def adapter(config: dict[str, Any]) -> str:
    """The adapter's kind."""
    return "DoRA" if config["use_dora"] else "LoRA"


def given(results: dict[str, Any], config: dict[str, Any]) -> str:
    """Where a teacher comes from that was not trained here."""
    if config.get("teacher_predictions"):
        return f"given, as the file of answers {literal(config['teacher_predictions'])}"
    return f"given, as {literal(results['teacher']['checkpoint'])}"
