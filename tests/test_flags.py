"""The flags of the commands, as their help tells them."""

import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from lora_distill import commands, flags, parser
from lora_distill.cli import main
from lora_distill.config import Config
from lora_distill.data.formats import INPUT_FORMATS, formats_of
from tests.test_imports import python


def help_of(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Each flag's help."""
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    _, *entries = re.split("^  (?=--)", capsys.readouterr().out, flags=re.MULTILINE)
    return {flag: " ".join(words) for flag, *words in map(str.split, entries)}


@pytest.mark.parametrize("command", ["train", "suite"])
def test_help_tells_every_setting_with_its_meaning_and_its_default(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = help_of(command, monkeypatch, capsys)
    for name, field in Config.model_fields.items():
        if (command, name) == ("suite", "exp_name"):
            assert "--exp_name" not in told
            continue
        assert str(field.description) in told[f"--{name}"]
        if get_origin(field.annotation) is Literal:
            assert ", ".join(get_args(field.annotation)) in told[f"--{name}"]
        if isinstance(field.default, int | float | str) and field.default not in ("", False):
            assert told[f"--{name}"].endswith(f"(default: {field.default})")
    assert {"--quiet", "--overwrite"} <= told.keys()
    assert ({"--config", "--resume"} <= told.keys()) == (command == "train")


def test_evaluate_has_what_it_reads_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = help_of("evaluate", monkeypatch, capsys)
    columns = {"--text_column", "--text_pair_column", "--label_column"}
    assert told.keys() == {"--dataset", *columns, "--device", "--quiet"}


def test_predict_says_what_it_writes_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "standard output: CSV and TSV as they came, all else JSON lines"
    assert told in help_of("predict", monkeypatch, capsys)["--output"]
    written = {each: formats_of("-", each, "-")[1] for each in INPUT_FORMATS}
    assert written == dict.fromkeys(INPUT_FORMATS, "jsonl") | {"csv": "csv", "tsv": "tsv"}


def test_each_command_has_its_flags_and_its_help() -> None:
    assert parser.COMMANDS.keys() == commands.COMMANDS.keys() == flags.FLAGS.keys()


def test_a_terminal_that_lacks_a_letter(tmp_path: Path) -> None:
    code = "import sys; from lora_distill.cli import main; main(['train', '--help'])"
    done = python(code, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--alpha ?" in done.stdout
