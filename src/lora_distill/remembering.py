"""What several experiments read, read once: for whoever looks at many of them in one go."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from lora_distill.errors import UserError

T = TypeVar("T")
_known: ContextVar[dict[Hashable, Any] | None] = ContextVar("known", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """Let `once` remember until the block ends. What is read must not change in the meantime, nor be changed."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def once(key: Hashable, read: Callable[[], T]) -> T:
    """What `read` gives; inside `remembering` it is called once for a key, and a UserError is remembered, too."""
    known = _known.get()
    if known is None:
        return read()
    if key not in known:
        try:
            known[key] = read()
        except UserError as error:
            known[key] = error
    found = known[key]
    if isinstance(found, UserError):
        raise found
    value: T = found
    return value
