"""A file of answers is read by text and by the names of labels, and nothing in it is believed that cannot be."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_distill.data.answers import LABEL_CONFIDENCE, LEAST_PROBABILITY, Answers, read_answers
from lora_distill.data.types import UNLABELLED, Dataset, Rows, Text
from lora_distill.errors import UserError

TRAIN, MORE, VALIDATION, TEST = ["a one", "a  two"], ["a three"], ["a four"], ["a five", "a six"]


def rows_of(texts: list[str], label: int = 0) -> Rows:
    return Rows(np.arange(len(texts)), texts, np.full(len(texts), label))


DATA = Dataset(
    "rows", rows_of(TRAIN), rows_of(VALIDATION), rows_of(TEST), ["no", "yes"], "f", {}, [], rows_of(MORE, UNLABELLED)
)
TEXTS = TRAIN + MORE + VALIDATION + TEST
SHARES = [0.9, 0.2, 0.3, 0.4, 0.5, 0.6]
GOOD: dict[str, list[Any]] = {"text": TEXTS, "no": SHARES, "yes": [1 - share for share in SHARES]}


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    """As the suffix says."""
    lines = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        text = [separator.join(columns), *(separator.join(map(str, line.values())) for line in lines)]
        path.write_text("\n".join(text) + "\n")
    return path


def read(path: Path, dataset: Dataset = DATA, **settings: Any) -> Answers:  # noqa: ANN401
    return read_answers(
        str(path), dataset, **({"text_column": "text", "label_column": "label", "label_map": {}} | settings)
    )


def probabilities(logits: np.ndarray) -> np.ndarray:
    weights: np.ndarray = np.exp(logits.astype(np.float64))
    shares: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return shares


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_probabilities_are_found_by_text_and_by_label(suffix: str, tmp_path: Path) -> None:
    # Another order of rows and of labels, other white space, more rows and more columns than are asked for.
    texts = [*reversed(TEXTS), "of no account"]
    shares = [*reversed(SHARES), 0.7]
    columns: dict[str, list[Any]] = {
        "model": ["m"] * len(texts),
        "yes": [1 - share for share in shares],
        "text": [text.replace("a  two", "a two ") for text in texts],
        "no": shares,
    }
    found = read(write(tmp_path / f"answers{suffix}", columns))
    for split, expected in {"train": [0.9, 0.2], "unlabelled": [0.3], "validation": [0.4], "test": [0.5, 0.6]}.items():
        assert found.logits[split].dtype == np.float32
        assert probabilities(found.logits[split])[:, 0] == pytest.approx(expected, abs=1e-6)
    assert found.notes == [f"answers: {tmp_path / f'answers{suffix}'} holds probabilities"]
    assert len(found.revision) == 64


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "answers.csv", GOOD)
    assert read(Path("~/answers.csv")).logits.keys() >= {"train", "unlabelled"}


def test_logits_stay_as_they_are(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "text": TEXTS,
        "no": [3.5, -2.0, 0.0, 1.0, 7.0, 0.25],
        "yes": [1.0, 2.0, 0.5, 0.0, 0.0, 0.75],
    }
    found = read(write(tmp_path / "a.csv", columns))
    assert found.logits["train"].tolist() == [[3.5, 1.0], [-2.0, 2.0]]
    assert found.logits["test"].tolist() == [[7.0, 0.0], [0.25, 0.75]]  # the last row alone might be probabilities
    assert found.notes[0].endswith("holds logits")


def test_a_column_s_name_may_say_what_it_holds(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"text": TEXTS, "label": ["yes"] * 6, "confidence": [0.9] * 6}
    said = columns | {"probability_No": SHARES, "probability_yes": [1 - share for share in SHARES]}
    found = read(write(tmp_path / "a.csv", said))
    assert probabilities(found.logits["train"])[:, 0] == pytest.approx([0.9, 0.2])
    found = read(write(tmp_path / "b.csv", columns | {"logit_no": SHARES, "logit_yes": SHARES}))
    assert found.logits["train"].tolist() == [[np.float32(0.9)] * 2, [np.float32(0.2)] * 2]
    assert found.notes[0].endswith("holds logits")
    # As `predict --prefix their_` writes them beside what it was given.
    prefixed = columns | {"their_label": ["no"] * 6, "their_probability_no": SHARES}
    found = read(write(tmp_path / "d.csv", prefixed | {"their_probability_yes": [1 - share for share in SHARES]}))
    assert probabilities(found.logits["train"])[:, 0] == pytest.approx([0.9, 0.2])
    with pytest.raises(UserError, match=r"labels that the data do not have: 'logit_maybe'\. Those of the data are"):
        read(write(tmp_path / "e.csv", columns | {"logit_no": SHARES, "logit_yes": SHARES, "logit_maybe": SHARES}))
    wrong = columns | {"probability_no": [3.0] * 6, "probability_yes": SHARES}
    with pytest.raises(UserError, match=r"6 rows whose numbers are no probabilities"):
        read(write(tmp_path / "c.csv", wrong))


def test_a_teacher_that_is_the_data_s_own_labels_is_told(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"text": TEXTS, "label": ["no", "no", "yes", "no", "yes", "no"]}
    assert "answers are the data's own labels, all of them" in read(write(tmp_path / "a.csv", columns)).notes[-1]
    columns["label"][0] = "yes"
    assert "own labels" not in read(write(tmp_path / "b.csv", columns)).notes[-1]


def test_labels_become_smoothed_logits(tmp_path: Path) -> None:
    answers = ["yes", "NO", "no", "no", "yes", "yes"]
    found = read(write(tmp_path / "a.csv", {"text": TEXTS, "prediction": answers, "label": ["?"] * 6}))
    assert probabilities(found.logits["train"]) == pytest.approx(
        np.array([[1 - LABEL_CONFIDENCE, LABEL_CONFIDENCE], [LABEL_CONFIDENCE, 1 - LABEL_CONFIDENCE]])
    )
    assert found.notes[0].endswith("holds labels in column 'prediction', each taken to be 90% sure")
    again = read(write(tmp_path / "b.csv", {"text": TEXTS, "class": answers}), label_column="class")
    assert again.fingerprint == found.fingerprint


def test_a_class_that_was_given_nothing_is_not_impossible(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", {"text": TEXTS, "no": [0] * 6, "yes": [1] * 6}))
    assert found.logits["train"] == pytest.approx(np.log([[LEAST_PROBABILITY, 1.0]] * 2))


def test_rounded_probabilities_are_made_to_sum_to_one(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", {"text": TEXTS, "no": [0.33] * 6, "yes": [0.66] * 6}))
    assert np.exp(found.logits["train"].astype(np.float64)).sum(axis=1) == pytest.approx([1, 1])


def test_their_labels_may_be_called_otherwise(tmp_path: Path) -> None:
    theirs = {"negative": "no", "positive": "yes"}
    of_numbers = write(tmp_path / "a.csv", {"text": TEXTS, "positive": SHARES, "negative": [1 - s for s in SHARES]})
    assert probabilities(read(of_numbers, label_map=theirs).logits["train"])[:, 1] == pytest.approx([0.9, 0.2])
    of_labels = write(tmp_path / "b.csv", {"text": TEXTS, "prediction": ["positive"] * 6})
    assert read(of_labels, label_map=theirs).logits["train"].argmax(axis=1).tolist() == [1, 1]


@given(st.permutations(range(len(TEXTS))))
def test_the_order_of_the_rows_is_of_no_account(tmp_path_factory: pytest.TempPathFactory, order: list[int]) -> None:
    folder = tmp_path_factory.mktemp("answers")
    columns: dict[str, list[Any]] = {"text": TEXTS, "no": SHARES, "yes": [1 - share for share in SHARES]}
    shuffled = {name: [values[place] for place in order] for name, values in columns.items()}
    one, other = read(write(folder / "one.csv", columns)), read(write(folder / "other.parquet", shuffled))
    assert one.fingerprint == other.fingerprint
    assert (one.logits["train"] == other.logits["train"]).all()


def test_what_is_judged_is_answered_whole_or_not_judged(tmp_path: Path) -> None:
    texts, shares = TEXTS[:-1], SHARES[:-1]
    found = read(write(tmp_path / "a.csv", {"text": texts, "no": shares, "yes": [1 - share for share in shares]}))
    assert sorted(found.logits) == ["train", "unlabelled", "validation"]
    without = [place for place, text in enumerate(TEXTS) if text not in VALIDATION]
    columns = {name: [values[place] for place in without] for name, values in GOOD.items()}
    assert sorted(read(write(tmp_path / "b.csv", columns)).logits) == ["train", "unlabelled"]
    assert found.notes[1].startswith(
        "answers: to 1 of 1 rows of validation and 1 of 2 rows of test; a teacher that has not"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": ["other", *TEXTS[1:]]}, r"has no answer to 1 of 2 rows of train, such as 'a one'\.\nAdd them"),
        (
            {"text": ["other", "others", "more", *TEXTS[3:]]},
            r"no answer to 2 of 2 rows of train and 1 of 1 rows of unlabelled",
        ),
        ({"no": [0.9, 0.9, 0.3, 0.4, 0.5, 0.6]}, r"1 row whose numbers are no probabilities.*: line 3\."),
        ({"no": [-0.1, 0.2, 0.3, 0.4, 0.5, 1.6]}, r"2 rows whose numbers are no probabilities.*: line 2, 7\."),
        (
            {"no": [0.9] * 6, "yes": [0.8] * 6},
            r"6 rows whose numbers are no probabilities.*: line 2, .*6 and 1 more\.",
        ),
        ({"no": [90] * 6, "yes": [10] * 6}, r"6 rows whose numbers sum to 100\. .* divide by 100"),
        ({"no": ["nan", 0.2, "inf", 0.4, 0.5, 0.6]}, r"2 rows with numbers that are not finite .*: line 2, 4\."),
        ({"no": [0.9, "high", 0.3, 0.4, 0.5, 0.6]}, r", line 3: 'high' in column 'no' is no number"),
        ({"text": [*TEXTS[:5], " a one"]}, r"1 row with the text of an earlier row and another answer: line 7\."),
        ({"text": [*TEXTS[:5], " "]}, r"1 row with a blank or null text: line 7"),
    ],
)
def test_faults_are_told_with_their_place(changes: dict[str, list[Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "a.csv", GOOD | changes))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"title": TEXTS, "no": SHARES, "yes": SHARES}, r"no column 'text'; the columns are .*\n.*--text_column"),
        ({"text": TEXTS, "no": SHARES}, r"columns for the labels 'no', but none for 'yes'\.\n.*--teacher_label_map"),
        ({"text": TEXTS, "score": SHARES}, r"holds no answers: the columns are 'text', 'score'\.\n.*'prediction'"),
        (
            {"text": TEXTS, "prediction": ["yes", "perhaps"] * 3},
            r"3 rows with labels that were not trained on: 'perhaps'",
        ),
    ],
)
def test_a_file_without_answers_says_what_it_lacks(columns: dict[str, list[Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "a.csv", columns))


def test_pairs_are_found_by_both_texts(tmp_path: Path) -> None:
    train: list[Text] = [("a", "b"), ("b", "a"), ("a", "c")]
    validation, test = (Rows(np.arange(1), [text], np.zeros(1, np.int64)) for text in train[:2])
    rows = Rows(np.arange(3), train, np.zeros(3, np.int64))
    pairs = Dataset("pairs", rows, validation, test, ["no", "yes"], "f", {}, [])
    columns: dict[str, list[Any]] = {"text": ["a", " a", "b"], "other": ["c", "b", "a"], "no": [0.3, 0.1, 0.2]}
    file = write(tmp_path / "a.csv", columns | {"yes": [0.7, 0.9, 0.8]})
    found = read(file, pairs, text_pair_column="other")
    assert probabilities(found.logits["train"])[:, 0] == pytest.approx([0.1, 0.2, 0.3])
    columns["text"][0] = "d"
    with pytest.raises(UserError, match=r"no answer to 1 of 3 rows of train, such as 'a / c'"):
        read(write(file, columns | {"yes": [0.7, 0.9, 0.8]}), pairs, text_pair_column="other")
    with pytest.raises(UserError, match=r"no column 'second'; .*\n.*--text_pair_column"):
        read(file, pairs, text_pair_column="second")


def test_a_map_names_the_data_s_labels(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"--teacher_label_map: 'maybe' is no label of the data\. Those are 'no', 'yes'"
    ):
        read(write(tmp_path / "a.csv", GOOD), label_map={"perhaps": "maybe"})


def test_a_text_may_come_again_with_the_same_answer(tmp_path: Path) -> None:
    again = {name: [*values, values[0]] for name, values in GOOD.items()}
    assert read(write(tmp_path / "a.csv", again)).fingerprint == read(write(tmp_path / "b.csv", GOOD)).fingerprint


def test_json_objects_have_the_keys_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a one", "no": 0.1, "yes": 0.9}\n{"text": "a two", "no": 0.1}\n')
    with pytest.raises(UserError, match=r"line 2: no key 'yes', which the first object has"):
        read(file)
    file.write_text("[1]\n")
    with pytest.raises(UserError, match=r"line 1: a JSON object is expected; found list"):
        read(file)


def test_numbers_beyond_any_and_decimals(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("w") as file:
        file.writelines(f'{{"text": "{text}", "no": 1{"0" * 400}, "yes": 0.5}}\n' for text in TEXTS)
    with pytest.raises(UserError, match=r", line 1: '10+' in column 'no' is no number"):
        read(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("{}\n{}\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: an object without keys"):
        read(tmp_path / "a.jsonl")
    shares = [Decimal(str(share)) for share in SHARES]
    columns = {"text": TEXTS, "no": shares, "yes": [1 - share for share in shares]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    plain = read(write(tmp_path / "a.csv", {"text": TEXTS, "no": SHARES, "yes": [1 - share for share in SHARES]}))
    assert np.allclose(read(tmp_path / "a.parquet").logits["train"], plain.logits["train"])
