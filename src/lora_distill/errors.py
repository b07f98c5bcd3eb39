"""The one exception for what a user can mend."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in what the user gave: shown without a traceback, exit code 2.

    The message says in one to three lines what was given, what is allowed, and what to do.

    Attributes:
        setting: that it is about, where `about` has said so.
    """

    setting: str | None = None


@contextmanager
def about(setting: str) -> Iterator[None]:
    """What is found wrong in the block is about this setting, though its message may not name it."""
    try:
        yield
    except UserError as error:
        error.setting = setting
        raise
