"""Small data sets in the hub's layout."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

README = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': World
          '1': Sports
---
"""
CONFIGS = """---
configs:
- config_name: plain
  data_files: plain/*
- config_name: marked
  data_files: marked/*
---
"""
ROWS = "text,label\nthe vote was counted,0\nthe match was won,1\n"


def write_csv_dataset(folder: Path) -> Path:
    """Splits train and test of two rows, with label names in the README."""
    folder.mkdir()
    (folder / "README.md").write_text(README)
    (folder / "train.csv").write_text(ROWS)
    (folder / "test.csv").write_text(ROWS)
    return folder


def write_dataset_of_two(folder: Path) -> Path:
    """Two configurations of one row, plain and marked, none of them the default."""
    for config in ("plain", "marked"):
        (folder / config).mkdir(parents=True)
        table = pa.table({"text": [f"{config} text"], "label": [0]})
        pq.write_table(table, folder / config / "train-00000-of-00001.parquet")
    (folder / "README.md").write_text(CONFIGS)
    return folder
