"""Names of runs that were given none."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_distill.config import Config
from lora_distill.naming import automatic_name
from tests.test_preparation import config_of

PRINTABLE = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=300)


@given(PRINTABLE, PRINTABLE, st.booleans())
def test_automatic_names_are_safe_as_folders_whatever_the_model_and_the_data_are_called(
    base: str, data: str, given_teacher: bool
) -> None:
    settings = {"base_model": base, "dataset": data, "teacher_checkpoint": "t" if given_teacher else None}
    name = automatic_name(Config(**settings))
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)
    assert len(name) < 128
    assert ".." not in name


@pytest.mark.parametrize(
    ("base", "data", "begin"),
    [
        ("roberta-base", "ag_news", "roberta-base-ag_news-t16x8-s8x6-"),
        ("org/all-MiniLM-L6-v2.1", "org/my_data:config-en", "all-MiniLM-L6-v2.1-my_data-config-en-"),
        ("/models/my model (v2)/", "/data/My Tickets 2024.csv", "my-model-v2-My-Tickets-2024-"),
        ("模型", "тексты.jsonl", "model-data-"),
        ("./größe", "../train.v2.tsv", "gr-e-train.v2-"),
        ("..", ".", "model-data-"),
    ],
)
def test_automatic_names_are_readable(base: str, data: str, begin: str) -> None:
    assert automatic_name(config_of(base, data)).startswith(begin)


def test_an_automatic_name_tells_a_cut_encoder(tmp_path: Path) -> None:
    assert automatic_name(config_of("minilm", "ag_news", base_depth=4)).startswith("minilm-4-layers-ag_news-t16x8-")


def test_automatic_names_are_those_of_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "20240102-030405")
    config = config_of("minilm", "bbc_news", output_dir=str(tmp_path))
    names = []
    for _ in range(3):
        names.append(automatic_name(config))
        (tmp_path / names[-1]).mkdir()
    first = "minilm-bbc_news-t16x8-s8x6-20240102-030405"
    assert names == [first, f"{first}-2", f"{first}-3"]
