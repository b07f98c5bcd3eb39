import pytest

from lora_distill.data.types import Text, as_columns, from_columns


@pytest.mark.parametrize(
    ("texts", "columns"),
    [
        (["a", "b"], {"text": ["a", "b"]}),
        ([("a", "x"), ("b", "y")], {"text": ["a", "b"], "text_pair": ["x", "y"]}),
    ],
)
def test_texts_and_pairs_go_into_columns_and_come_out_again(texts: list[Text], columns: dict[str, list[str]]) -> None:
    assert as_columns(texts) == columns
    assert from_columns(columns) == texts
