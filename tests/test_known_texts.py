"""What a run has seen of the texts that its models are judged by, or something is decided by."""

from pathlib import Path

import pytest

from lora_distill.config import Config
from lora_distill.errors import UserError
from lora_distill.inputs import load_data
from lora_distill.known_texts import Known, check_unseen, known_texts
from lora_distill.run_folder import RunFolder
from tests.end_to_end.conftest import write_rows


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run on rows of its own."""
    config = Config(dataset=str(write_rows(tmp_path / "own.csv", 60)), output_dir=str(tmp_path), exp_name="run")
    run = RunFolder.of(config)
    run.begin(config, {"requested": {}, "data": {"fingerprint": load_data(config).fingerprint}})
    return run


def test_texts_that_a_run_trained_on_or_chose_its_epoch_by_are_counted(run: RunFolder) -> None:
    own = load_data(run.resolved())
    assert known_texts(run, own.test.texts, own.validation.texts) == Known("")
    spaced = [f" {text}\n" for text in own.train.texts[:2]]
    said = "hold texts that the run trained on or chose its epoch by; on those its models look better than they are"
    assert known_texts(run, ["new", *spaced, own.validation.texts[0]], []) == Known(f"3 of 4 test rows {said}")
    assert known_texts(run, ["new"], [*spaced, *own.validation.texts[:2]]) == Known(
        f"2 of 4 validation rows {said}", validation=2
    )
    both = known_texts(run, spaced, spaced)
    assert both == Known(f"2 of 2 test rows and 2 of 2 validation rows {said}", validation=2)


def test_a_run_whose_data_are_others_by_now_is_said_to_be_unknown(run: RunFolder, tmp_path: Path) -> None:
    unknown = Known(
        "the run's own data are not where they were, or have changed: whether it knows test rows cannot be told"
    )
    write_rows(tmp_path / "own.csv", 63)
    assert known_texts(run, ["new"], []) == unknown
    (tmp_path / "own.csv").unlink()
    assert known_texts(run, ["new"], []) == unknown


def test_nothing_is_known_of_what_is_no_run(tmp_path: Path) -> None:
    assert known_texts(RunFolder(tmp_path), ["new"], ["new"]) == Known("")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"teacher_calibrate": True}, "--teacher_calibrate: "),
        ({"learn_from": "both"}, "--learn_from both: "),
        ({"teacher_calibrate": True, "learn_from": "both"}, "--teacher_calibrate and --learn_from both: "),
    ],
)
def test_nothing_is_decided_by_rows_whose_labels_a_given_teacher_knows(settings: dict[str, object], said: str) -> None:
    check_unseen(Config(**settings), 0)
    check_unseen(Config(), 5)
    with pytest.raises(UserError, match=f"^{said}validation decides that, .* the labels of 5 rows of it"):
        check_unseen(Config(**settings), 5)
