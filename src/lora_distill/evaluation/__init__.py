"""How good the predictions are, and whether a difference between two models is more than chance."""
