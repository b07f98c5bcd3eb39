"""A model card of a run that is made up, and what a reader takes from it."""

from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt

from lora_distill.config import Config
from lora_distill.reporting.model_card import model_card
from tests.reporting.sample import sample_results

HUB = {"name": "roberta-base", "kind": "hub", "revision": "e2da8e2f811d", "reference": "roberta-base"}
PACKAGED = {"name": "minilm", "kind": "packaged", "revision": "0.1.0", "reference": "/site-packages/x/model"}
FOLDER = {"name": "../my model", "kind": "folder", "revision": "0123456789abcdef", "reference": '/data/my "model"'}
ROLES = ("teacher", "student", "control")


def card(
    role: str = "student",
    results: dict[str, Any] | None = None,
    base: dict[str, str] | None = None,
    **settings: object,
) -> str:
    config = Config.model_validate(settings).model_dump(mode="json")
    return model_card(role=role, results=results or sample_results(), config=config, base=base or PACKAGED)


def metadata(text: str) -> ModelCardData:
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    return data


def fields(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(metadata(text).to_yaml()))


def code_of(text: str, language: str = "python") -> str:
    blocks = [token for token in MarkdownIt().parse(text) if token.type == "fence" and token.info == language]
    assert len(blocks) == 1
    return blocks[0].content


def tables_of(text: str) -> list[list[list[str]]]:
    """Cells of each row of each table, as a reader of the rendered card sees them."""
    tokens = MarkdownIt().enable("table").parse(text)
    tables: list[list[list[str]]] = []
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in {"td_open", "th_open"}:
            children = tokens[place + 1].children or []
            assert {child.type for child in children} <= {"text", "text_special"}
            tables[-1][-1].append("".join(child.content for child in children))
    return tables
