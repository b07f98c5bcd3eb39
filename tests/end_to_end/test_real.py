"""Real text and real weights: AG News rows and the packaged MiniLM."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import run_command


def take(source: Path, rows: int, target: Path) -> None:
    with source.open(newline="", encoding="utf-8") as file:
        lines = [line for line, _ in zip(csv.reader(file), range(rows + 1), strict=False)]
    target.parent.mkdir(exist_ok=True)
    with target.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)


@pytest.fixture(scope="module")
def news_run(ag_news: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("news")
    take(ag_news / "train.csv", 900, folder / "data" / "train.csv")
    take(ag_news / "test.csv", 300, folder / "data" / "test.csv")
    settings = {
        "base_model": "minilm",
        "dataset": "data",
        "teacher_target_layers": 3,
        "student_target_layers": 3,
        "learning_rate": 3e-3,
        "batch_size": 16,
        "num_epochs": 1,
        "max_length": 48,
        "exp_name": "news",
    }
    done = run_command(
        "train", *(part for name, value in settings.items() for part in (f"--{name}", value)), cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder / "outputs" / "lora_distillation" / "news"


@pytest.mark.slow
def test_each_role_learns_the_news(news_run: Path) -> None:
    metrics = json.loads((news_run / "metrics.json").read_text())
    assert metrics["data"]["test_rows"] == 300
    for role in ("teacher", "student", "control"):
        assert metrics[role]["test"]["accuracy"] > 0.75, role
    assert metrics["agreement"]["student_teacher"]["rate"] > 0.8
    # 3 layers x q, k, v x (384 + 384) x 8, and a head of 4 x 384 + 4 over BERT's pretrained pooler
    assert metrics["student"]["trainable_parameters"] == {"total": 56_836, "lora": 55_296, "head": 1_540}


@pytest.mark.slow
def test_the_card_s_own_code_opens_the_student_and_gets_the_logits(news_run: Path, ag_news: Path) -> None:
    card = (news_run / "student" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    script = f"""
{code}
import csv, sys
import numpy as np, pyarrow.parquet as pq
table = pq.read_table("../predictions.parquet")
rows = list(csv.DictReader(open(sys.argv[1], encoding="utf-8")))
texts = [rows[i]["text"] for i in table["row_id"].to_pylist()]
batch = tokenizer(texts, truncation=True, max_length=48, padding=True, return_tensors="pt")
with torch.inference_mode():
    logits = model(**batch).logits.numpy()
assert np.abs(logits - np.array(table["student_logits"].to_pylist())).max() < 1e-4
assert "lora_distill" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, ag_news / "test.csv"], cwd=news_run / "student", check=True)
