"""How many seeds and rows a difference between two models must rest on; light, for who says so loads no statistics."""

import math

LEAST_SEEDS = 3
# Rows, of one seed, on which one of two models is right and the other wrong; with fewer, no interval or test of their
# difference can be trusted.
LEAST_DISCORDANT = 10


def missing(seeds: int, rows: int, discordant: float) -> str:
    """What a verdict lacks, as a clause; empty where it lacks nothing.

    Args:
        seeds: that there are.
        rows: of the test split.
        discordant: those of them, a seed, on which the two differ in being right.
    """
    wanted = [f"{LEAST_SEEDS} seeds at least"] if seeds < LEAST_SEEDS else []
    if 0 < discordant < LEAST_DISCORDANT:
        more = rounded(rows * LEAST_DISCORDANT / discordant)
        wanted.append(f"about {more:,} test rows, so that one is right and the other wrong on {LEAST_DISCORDANT}")
    said = [] if discordant else ["the two are right on the same rows"]
    return "; ".join([*said, f"a verdict takes {' and '.join(wanted)}"] if wanted else said)


def rounded(number: float) -> int:
    """Up, to two digits: it is an estimate, and fewer would not do."""
    step: int = 10 ** max(len(str(math.ceil(number))) - 2, 0)
    return math.ceil(number / step) * step
