"""LoRA knowledge distillation for text classification."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lora_distill.deployment.classifier import Classifier

__version__ = "0.1.0"
__all__ = ["Classifier"]


def __getattr__(name: str) -> "type[Classifier]":
    """`Classifier`, loaded when it is asked for: importing the package stays free of what only predicting needs."""
    if name == "Classifier":
        from lora_distill.deployment.classifier import Classifier

        return Classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
