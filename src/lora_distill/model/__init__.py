"""Encoders with a classification head and LoRA: base models, adapters, the parameter budget."""
