"""The command line: whose settings win, what it shows and what it returns."""

import re
from pathlib import Path
from typing import Any

import pytest

from lora_distill import checking, commands, commands_on_suites, running
from lora_distill.config import Config, make_config
from lora_distill.errors import UserError
from lora_distill.program import program
from lora_distill.run_folder import RunFolder
from tests.conftest import Run
from tests.reporting.sample import sample_results


@pytest.fixture
def experiments(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configs of all experiments that commands ask for; each ends at once, with a sample's results."""
    asked: list[Config] = []

    def run_or_read(config: Config, **_: object) -> dict[str, Any]:
        asked.append(config)
        running.logger.info("a message")
        running.logger.warning("a warning")
        return sample_results() | {"exp_name": config.exp_name or "automatic"}

    monkeypatch.setattr(running, "run_or_read", run_or_read)
    monkeypatch.setattr(checking, "misfits", lambda *_, **__: [])  # nor is there what they name
    monkeypatch.setattr(commands_on_suites, "_is_told", lambda *_: True)  # there are no runs to write of
    return asked


# Settings


def test_flags_win_over_the_file(run: Run, experiments: list[Config], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("alpha: 0.1\nseed: 3\n")
    assert run("train", "--config", "mine.yaml", "--seed", 4)[0] == 0
    (config,) = experiments
    assert (config.alpha, config.seed) == (0.1, 4)
    assert config.model_fields_set == {"alpha", "seed"}


def test_a_flag_takes_back_what_a_file_or_a_preset_turns_on(
    run: Run, experiments: list[Config], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("use_dora: true\nunlabelled: texts.txt\npreset: few_labels\n")
    assert run("train", "--config", "mine.yaml", "--no_use_dora", "--no_teacher_calibrate")[0] == 0
    (config,) = experiments
    assert (config.use_dora, config.teacher_calibrate, config.learn_from) == (False, False, "both")


def test_of_a_flag_given_twice_the_last_wins(run: Run, experiments: list[Config]) -> None:
    assert run("train", "--alpha", 0.1, "--alpha=0.2")[0] == 0
    assert experiments[0].alpha == 0.2


def test_a_suite_s_flags_win_in_every_experiment(run: Run, experiments: list[Config], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: {seed: 1}\nexperiments:\n  one: {alpha: 0.1}\n  two: {seed: 2}\n")
    code, out, _ = run("suite", "mine.yaml", "--seed", 9, "--no_control")
    assert code == 0
    assert [(config.exp_name, config.seed, config.no_control) for config in experiments] == [
        ("mine-one", 9, True),
        ("mine-two", 9, True),
    ]
    assert "mine-one" in out
    assert "mine-two" in out


def test_what_is_resumed_keeps_its_settings(run: Run, experiments: list[Config], tmp_path: Path) -> None:
    config = make_config({"exp_name": "old", "output_dir": "o", "alpha": 0.9, "seed": 5}, {})
    begin(config)
    assert run("train", "--exp_name", "old", "--output_dir", "o", "--resume", "--seed", 6)[0] == 0
    assert (experiments[0].alpha, experiments[0].seed) == (0.9, 6)  # the difference is refused later


def begin(config: Config) -> RunFolder:
    run = RunFolder.of(config)
    request = {"config": config.model_dump(mode="json"), "named": sorted(config.model_fields_set)}
    model = {"kind": "packaged", "reference": "minilm"}
    run.begin(config, {"requested": request, "base_model": model, "student_base_model": model, "given_teacher": None})
    return run


# What is shown


def test_it_ends_with_where_everything_is_and_what_to_do_next(run: Run, experiments: list[Config]) -> None:
    code, out, err = run("train", "--output_dir", "o")
    assert code == 0
    assert out.splitlines()[-3:] == [
        "Everything is in o/automatic",
        f"Next: {program()} show o/automatic",
        f"      {program()} evaluate o/automatic --dataset FILE   (other labelled texts)",
    ]
    assert err.splitlines() == ["a message", "WARNING: a warning"]
    assert f"Next: {program()} show 'my runs/automatic'" in run("train", "--output_dir", "my runs")[1]


def test_a_suite_given_as_the_settings_of_one_experiment(run: Run, experiments: list[Config], tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"name: s\n{SUITE}")
    code, _, err = run("train", "--config", "s.yaml")
    assert (code, experiments) == (2, [])
    assert err == f"error: s.yaml: holds experiments, so it is a suite. Call: {program()} suite s.yaml\n"


def test_quiet_leaves_warnings_and_the_result(run: Run, experiments: list[Config]) -> None:
    _, loud, _ = run("train")
    _, out, err = run("train", "--quiet")
    assert err == "WARNING: a warning\n"
    assert out == loud


# Exit codes


def fail(monkeypatch: pytest.MonkeyPatch, errors: dict[str, BaseException]) -> None:
    """Let experiments fail, by name."""
    finish = running.run_or_read

    def run_or_read(config: Config, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - any setting
        if config.exp_name in errors:
            raise errors[config.exp_name]
        return finish(config, **settings)

    monkeypatch.setattr(running, "run_or_read", run_or_read)


SUITE = "seeds: 1\nexperiments: {one: {}, two: {}, three: {}}\n"


def test_a_suite_of_which_some_failed(
    run: Run, experiments: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.yaml").write_text(SUITE)
    fail(monkeypatch, {"s-one": UserError("no.csv: no such file."), "s-three": UserError("no.csv: no such file.")})
    code, out, err = run("suite", "s.yaml", "--quiet")
    assert code == 1
    assert "s-two" in out
    assert err.splitlines() == ["WARNING: a warning", "error: one, three: no.csv: no such file."]


def test_a_suite_of_which_all_failed(
    run: Run, experiments: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.yaml").write_text(SUITE)
    error = UserError("no.csv: no such file.")
    fail(monkeypatch, {"s-one": error, "s-two": UserError("over budget."), "s-three": error})
    code, out, err = run("suite", "s.yaml", "--quiet")
    assert (code, out) == (2, "")
    assert err.splitlines() == ["error: one, three: no.csv: no such file.", "error: two: over budget."]


def test_all_faults_of_a_suite_file_are_told_and_nothing_is_run(
    run: Run, experiments: list[Config], tmp_path: Path
) -> None:
    (tmp_path / "s.yaml").write_text("base: {alpha: 2}\nexperiments:\n  one: {sed: 1}\n  two: {batch_size: 0}\n")
    code, _, err = run("suite", "s.yaml", "--temperature", "0")
    assert (code, experiments) == (2, [])
    for fault in ("line 1: alpha", "line 3: sed: no such setting; did you mean seed?", "line 4: batch_size"):
        assert err.count(fault) == 1
    assert err.count("--temperature: '0'") == 1


def test_stopped_before_anything_was_begun(
    run: Run, experiments: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, {"x": KeyboardInterrupt()})
    assert run("train", "--exp_name", "x") == (130, "", "error: stopped before the training began.\n")


@pytest.mark.parametrize(
    "call",
    [["speed", "o"], ["evaluate", "o", "--dataset", "d.csv"], ["export", "o", "--to", "onnx"], ["report", "o"]],
)
def test_of_training_nothing_is_said_where_none_was_to_be(
    call: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(commands.COMMANDS, call[0], stop)
    assert run(*call) == (130, "", "error: stopped.\n")


def test_stopped_in_a_run(run: Run, experiments: list[Config], monkeypatch: pytest.MonkeyPatch) -> None:
    error = KeyboardInterrupt()
    error.add_note("Go on with: lora-distill train --output_dir o --exp_name x --resume")
    fail(monkeypatch, {"x": error})
    code, _, err = run("train", "--exp_name", "x")
    assert code == 130
    assert "last whole epoch is kept.\nGo on with: lora-distill train --output_dir o --exp_name x --resume" in err


def test_a_stopped_suite_goes_on_with_the_same_command(
    run: Run, experiments: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.yaml").write_text(SUITE)
    error = KeyboardInterrupt()
    error.add_note("Go on with: lora-distill train --output_dir o --exp_name s-two --resume")
    fail(monkeypatch, {"s-two": error})
    code, out, err = run("suite", "s.yaml", "--quiet")
    assert code == 130
    assert re.findall(r"^s-\w+ ", out, re.MULTILINE) == ["s-one "]
    assert "Next:" not in out
    assert err.endswith("is kept.\nThe same command goes on.\n")
    assert "--exp_name s-two" not in err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "No space left on device. Free some room on the disk."),
        (PermissionError(13, "Permission denied", "o/x"), "o/x: Permission denied. Give another --output_dir"),
        (OSError(30, "Read-only file system", "o"), "o: Read-only file system. Give another --output_dir"),
        (OSError(21, "Is a directory", "o"), "o: Is a directory. Give another --output_dir"),
        (OSError(2, "No such file or directory", "/proc/o"), "/proc/o: No such file or directory. Put it there, or"),
    ],
)
def test_what_the_system_refuses_and_the_user_can_mend(
    error: OSError, told: str, run: Run, experiments: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, {"x": error})
    code, _, err = run("train", "--exp_name", "x")
    assert (code, err.startswith(f"error: {told}")) == (2, True), err


@pytest.mark.parametrize(
    ("call", "flag"),
    [
        (["report", "o"], "--output or --figures"),
        (["export", "o", "--to", "onnx"], "--output"),
        (["push", "o", "a/b"], "--output"),
        (["plan", "s.yaml"], "--output_dir"),
    ],
)
def test_it_names_the_flag_that_the_command_has(
    call: list[str], flag: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> int:
        raise OSError(17, "File exists", "mine.csv")

    monkeypatch.setitem(commands.COMMANDS, call[0], refuse)
    assert run(*call) == (2, "", f"error: mine.csv: File exists. Give another {flag}, or move it away.\n")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ZeroDivisionError(), ModuleNotFoundError("x")])
def test_what_is_nobody_s_mistake_but_ours_is_not_hidden(
    error: Exception, run: Run, experiments: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(error, ModuleNotFoundError):
        error.name = "lora_distill.absent"
    fail(monkeypatch, {"x": error})
    with pytest.raises(type(error)):
        run("train", "--exp_name", "x")
