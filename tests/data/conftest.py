"""Files of rows in every format, and how a broken one is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from lora_distill.data.files import Columns
from lora_distill.data.tables import read_table
from lora_distill.errors import UserError

COLUMNS = Columns("text", "label")
SUFFIXES = ["csv", "tsv", "jsonl", "parquet"]


def write(path: Path, rows: list[tuple[Any, Any]]) -> Path:
    """Write rows of (text, label) as the ordinary library of each format does."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"text": [r[0] for r in rows], "label": [r[1] for r in rows]}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([("text", "label"), *rows])
    return path


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """The message with which a file of this content is refused, its folder cut away."""

    def read(name: str, content: str | bytes, columns: Columns = COLUMNS) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError) as error:
            read_table(path, columns)
        message = str(error.value)
        assert message.startswith(str(path))
        assert 1 <= len(message.splitlines()) <= 3
        return message.replace(f"{tmp_path}/", "")

    return read
