"""How a control was trained that is no mere student without a teacher."""

from typing import Any

from lora_distill.data.wording import listed


def apart(config: dict[str, Any]) -> str:
    """What a control differs in from its student beside the teacher, as a clause; empty where that is nothing."""
    settings = {"learning_rate": "the learning rate", "num_epochs": "the number of epochs"}
    said = [noun for name, noun in settings.items() if config.get(f"control_{name}") not in (None, config[name])]
    if config["unlabelled"]:
        said.append("the unlabelled texts")
    if config["learn_from"] == "both":
        said.append("what the control itself says, from which the student may learn")
    return f" but for {listed(said)}" if said else ""


def is_of_control(name: str, *, teaches: bool = False) -> bool:
    """Whether a setting changes nothing but the control; `teaches` says that a student learns from that."""
    return name == "no_control" or (name.startswith("control_") and not teaches)
