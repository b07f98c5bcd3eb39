"""Finished models in use."""
