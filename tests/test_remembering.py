import pytest

from lora_distill.errors import UserError
from lora_distill.remembering import once, remembering


def test_it_is_read_once_while_somebody_remembers_and_each_time_else() -> None:
    read: list[int] = []

    def count() -> int:
        read.append(1)
        return len(read)

    assert [once("key", count), once("key", count)] == [1, 2]
    with remembering():
        assert [once("key", count), once("key", count), once("other", count)] == [3, 3, 4]
        with remembering():  # anew
            assert once("key", count) == 5
        assert once("key", count) == 3
    assert once("key", count) == 6


def test_what_cannot_be_had_is_asked_for_once() -> None:
    asked: list[int] = []

    def refuse() -> None:
        asked.append(1)
        raise UserError("no such file")

    with remembering():
        for _ in range(2):
            with pytest.raises(UserError, match="no such file"):
                once("key", refuse)
    assert len(asked) == 1
