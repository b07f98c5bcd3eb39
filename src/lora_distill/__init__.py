"""LoRA knowledge distillation for text classification."""

__version__ = "0.1.0"
