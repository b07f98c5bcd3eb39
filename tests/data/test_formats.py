"""Names say formats."""

import pytest

from lora_distill.data.formats import formats_of
from lora_distill.errors import UserError


@pytest.mark.parametrize(
    ("source", "given", "target", "formats"),
    [
        ("a.csv", None, "b.PARQUET", ("csv", "parquet")),
        ("a.dat", "tsv", "b.jsonl", ("tsv", "jsonl")),
        ("a.csv", "txt", "b.tsv", ("txt", "tsv")),
        ("a.tsv", None, "-", ("tsv", "tsv")),
        ("a.parquet", None, "-", ("parquet", "jsonl")),
        ("-", "txt", "-", ("txt", "jsonl")),
    ],
)
def test_what_a_name_or_a_flag_says(source: str, given: str | None, target: str, formats: tuple[str, str]) -> None:
    assert formats_of(source, given, target) == formats


@pytest.mark.parametrize(("source", "target"), [("a", "b.csv"), ("-", "b.csv"), ("a.csv", "b"), ("a.csv", "b.txt")])
def test_what_says_nothing(source: str, target: str) -> None:
    with pytest.raises(UserError, match=r"--format|Allowed: \.csv, \.tsv, \.jsonl, \.parquet; and -\."):
        formats_of(source, None, target)
