"""Paths that begin with `~`."""

from pathlib import Path

from lora_distill.errors import UserError


def expanded(path: str | Path, what: str = "") -> Path:
    """The path with the home folder that a `~` or `~NAME` stands for.

    Args:
        path: as it was given.
        what: what it is given as, for the message; the path itself if empty.

    Raises:
        UserError: nobody of that name has one.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{what or path}: there is no such home folder. Give the path without a '~'.") from None
