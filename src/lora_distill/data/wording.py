"""Words for messages: numbers with their noun, and lists that stay short."""

from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listing(names: Iterable[str], limit: int = 10) -> str:
    """Names in quotes, each cut at 40 characters, at most `limit` of them."""
    every = [repr(name if len(name) <= 40 else name[:39] + "…") for name in names]
    more = f" and {len(every) - limit:,} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more


def listed(things: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(things[:-1]), things[-1]] if len(things) > 1 else things)


def points(difference: float) -> str:
    """`+0.23`, in percentage points."""
    return f"{round(100 * difference, 2) + 0.0:+.2f}"  # the sum turns -0.0 into 0.0


def byte_size(number: float) -> str:
    """`83 MB`, `1.5 GB`, in powers of ten."""
    for unit in ("bytes", "kB", "MB"):
        if number < 999.5:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
