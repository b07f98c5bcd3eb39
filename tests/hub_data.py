"""Small data sets in the hub's layout, and a process that fetches from a hub."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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
LABEL = {"_type": "ClassLabel", "names": ["World", "Sports"]}
FEATURES = json.dumps({"info": {"features": {"text": {"_type": "Value", "dtype": "string"}, "label": LABEL}}})

# The libraries read the environment when they are imported, so that each case is a process of its own.
FETCH = """
import json, sys
from lora_distill import hub
from lora_distill.errors import UserError

hub.quiet()
hub.ANSWER_SECONDS = float(sys.argv[1])
results = []
for spec in sys.argv[2:]:
    kind, name, *revision = spec.split("=")
    try:
        if kind == "model":
            found = hub.fetch_model(name, *revision)
            results.append({"folder": str(found.folder), "revision": found.revision})
        else:
            found = hub.fetch_dataset(name)
            splits = {split: rows[:] for split, rows in found.splits.items()}
            names = [rows.features["label"].names if hasattr(rows.features["label"], "names") else None
                     for rows in found.splits.values()]
            results.append({"splits": splits, "names": names, "revision": found.revision})
    except UserError as error:
        results.append({"error": str(error), "unavailable": isinstance(error, hub.Unavailable)})
print(json.dumps(results))
"""


def fetch(
    env: dict[str, str], *specs: str, answer_seconds: float = 5.0, cwd: Path | None = None
) -> list[dict[str, Any]]:
    """Fetch `model=NAME`, `model=NAME=REVISION` and `dataset=NAME` in one process that must stay silent."""
    command = [sys.executable, "-c", FETCH, str(answer_seconds), *specs]
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


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
