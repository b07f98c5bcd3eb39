"""The distillation loss and the one training loop."""
