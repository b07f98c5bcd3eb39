"""Files that cannot be trained on are refused before torch is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

CALL = """
import sys
from lora_distill.cli import main
code = main(sys.argv[1:])
sys.exit(9 if {"torch", "transformers"} & sys.modules.keys() else code)
"""
ROWS = "text,label\n" + "".join(f"text {row},{'ab'[row % 2]}\n" for row in range(20))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--dataset", "nope.csv"], "error: nope.csv: no such file"),
        (["train", "--dataset", "rows.csv", "--text_column", "txt"], "rows.csv, line 1: no column 'txt'"),
        (["train", "--dataset", "rows.csv", "--unlabelled", "nope.csv"], "error: nope.csv: no such file"),
        (
            ["train", "--dataset", "rows.csv", "--pooled_weight", "1", "--exp_name", "taken"],
            "is not the folder of a run",
        ),
        (["suite", "suite.yaml"], "suite.yaml, line 1: dataset: nope.csv: no such file"),
    ],
)
def test_faulty_files_are_told_without_torch(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "suite.yaml").write_text("base: {dataset: nope.csv}\nexperiments: {one: {}}\n")
    taken = tmp_path / "outputs" / "lora_distillation" / "taken"
    taken.mkdir(parents=True)
    (taken / "note.txt").touch()
    command = [sys.executable, "-c", CALL, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said in done.stderr
    assert done.returncode == 2
