"""How good the predictions are, and whether a difference between two models is more than chance."""

# Rows, of one seed, on which one of two models is right and the other wrong; with fewer, no interval or test of their
# difference can be trusted. It stands here, for who says so loads no statistics.
LEAST_DISCORDANT = 10
