"""Figures of this program beside those of plain transformers, PEFT and Trainer, each from a run of its own."""
