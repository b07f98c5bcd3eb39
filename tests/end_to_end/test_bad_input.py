"""What a user gets wrong: exit code 2, a few lines that say what to do, and nothing left behind."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_distill.cli import main

GOOD = "text,label\n" + "".join(f"word{row} here,{'ab'[row % 2]}\n" for row in range(40))
Setup = Callable[[Path], object]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[[str], Path]) -> Path:
    """A folder with good rows and a good base model, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").symlink_to(tiny("roberta"))
    (tmp_path / "good.csv").write_text(GOOD)
    return tmp_path


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_refused(world: Path, arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(world)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    message = "error: " + err.partition("error: ")[2].rstrip("\n")
    assert message.count("\n") <= 2, message
    assert "Traceback" not in out + err
    for part in parts:
        assert part in message, message
    left = {name for name in files_of(world) - before if not name.endswith(".lock")}
    assert left <= {"outputs", "outputs/lora_distillation", "outputs/lora_distillation/.artefacts"}, left


def train(*flags: str) -> list[str]:
    """A good training command but for the flags, which come last and win."""
    layers = ["--teacher_target_layers", "2", "--student_target_layers", "2", "--teacher_lora_r", "4"]
    return ["train", "--base_model", "base", "--dataset", "good.csv", "--exp_name", "run", *layers, *flags]


def file(name: str, content: str | bytes) -> Setup:
    def write(world: Path) -> None:
        path = world / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def nothing(_world: Path) -> None:
    return


FLAGS: list[tuple[list[str], list[str]]] = [
    ([], ["COMMAND"]),
    (["trian"], ["trian", "train"]),
    (["train", "--alhpa", "0.5"], ["--alhpa", "did you mean --alpha?"]),
    (["train", "--learning-rate", "1"], ["did you mean --learning_rate?"]),
    (["train", "--alpha"], ["--alpha", "expected one argument"]),
    (["train", "stray"], ["stray"]),
    (["suite"], ["FILE"]),
    (["suite", "absent.yaml"], ["absent.yaml", "no such file"]),
    (["evaluate", "absent"], ["--dataset"]),
    (["evaluate", "absent", "--dataset", "good.csv"], ["absent", "no such run"]),
    (["show", "absent"], ["absent", "no such run"]),
    (["show", "."], ["not the folder of a run"]),
    (["show", "good.csv"], ["good.csv"]),
    (train("--alpha", "1.5"), ["--alpha", "'1.5'", "less than or equal to 1"]),
    (train("--alpha", "-0.5"), ["--alpha", "'-0.5'"]),
    (train("--alpha", "nan"), ["--alpha", "finite"]),
    (train("--alpha", "half"), ["--alpha", "'half'"]),
    (train("--temperature", "0"), ["--temperature", "greater than 0"]),
    (train("--temperature", "nan"), ["--temperature", "finite"]),
    (train("--temperature", "-1"), ["--temperature", "greater than 0"]),
    (train("--learning_rate", "0"), ["--learning_rate"]),
    (train("--batch_size", "0"), ["--batch_size"]),
    (train("--num_epochs", "1.5"), ["--num_epochs", "'1.5'"]),
    (train("--student_lora_r", "0"), ["--student_lora_r", "greater than or equal to 1"]),
    (train("--student_lora_r", "5000"), ["rank 5000", "1 to 32"]),
    (train("--teacher_lora_r", "5000"), ["rank 5000"]),
    (train("--student_target_layers", "0"), ["--student_target_layers"]),
    (train("--student_target_layers", "9"), ["--student_target_layers 9", "3 layers", "at most 3"]),
    (train("--teacher_target_layers", "9"), ["--teacher_target_layers 9"]),
    (train("--max_length", "2000"), ["--max_length 2000", "512"]),
    (train("--max_length", "1"), ["--max_length"]),
    (train("--target_modules", "qeury"), ["--target_modules", "qeury", "query"]),
    (train("--layer_placement", "middle"), ["'first' or 'last'"]),
    (train("--student_budget", "2000"), ["trainable parameters", "in LoRA", "in the head", "--student_budget"]),
    (train("--device", "gpu"), ["--device", "'gpu'"]),
    (train("--device", "cuda"), ["--device cuda", "cpu"]),
    (train("--precision", "fp8"), ["--precision", "'fp8'"]),
    (train("--seed", "-1"), ["--seed"]),
    (train("--validation_fraction", "1.5"), ["--validation_fraction"]),
    (train("--max_train_rows", "1"), ["--max_train_rows 1", "number of classes"]),
    (train("--text_column", "txt"), ["'txt'", "--text_column"]),
    (train("--label_column", "class"), ["'class'", "--label_column"]),
    (train("--dataset", "absent.csv"), ["absent.csv", "no such file"]),
    (train("--dataset", "org/rows"), ["org/rows", "cannot be had", "HF_HOME"]),
    (train("--base_model", "org/model"), ["org/model", "cannot be had", "minilm"]),
    (train("--base_model", "./absent"), ["./absent", "no such folder"]),
    (train("--base_model", "good.csv"), ["good.csv", "is a file"]),
    (train("--teacher_checkpoint", "./absent"), ["--teacher_checkpoint", "no such folder"]),
    (train("--teacher_checkpoint", "base"), ["not a finished classifier"]),
    (train("--teacher_label_map", "a=b"), ["--teacher_label_map", "--teacher_checkpoint"]),
    (train("--config", "absent.yaml"), ["absent.yaml", "no such file"]),
    (train("--resume"), ["nothing to resume"]),
    (["train", "--resume"], ["--exp_name"]),
    (train("--output_dir", "good.csv"), ["good.csv", "is a file"]),
    (train("--output_dir", "/proc/nowhere"), ["/proc", "--output_dir"]),
    (train("--exp_name", "a/b"), ["--exp_name", "'a/b'"]),
    (train("--exp_name", ".."), ["--exp_name"]),
    (train("--exp_name", "x" * 300), ["--exp_name"]),
]


@pytest.mark.parametrize(("arguments", "parts"), FLAGS, ids=[" ".join(a)[-60:] for a, _ in FLAGS])
def test_flags(world: Path, arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(world, arguments, parts, capsys)


DATA: list[tuple[str, str | bytes, list[str]]] = [
    ("x.csv", "", ["x.csv", "empty"]),
    ("x.csv", "text,label\n", ["x.csv", "no rows"]),
    ("x.csv", GOOD.replace(",b\n", ",a\n"), ["x.csv", "'a'"]),
    ("x.csv", GOOD.replace("word3 here", "   "), ["line 5", "blank"]),
    ("x.csv", GOOD.replace("word3 here,b", "word3 here, "), ["line 5", "label"]),
    ("x.csv", GOOD.replace("word3 here,", "word3, here,"), ["line 5", "3", "2"]),
    ("x.csv", GOOD.replace("word3", "caf\xe9").encode("latin-1"), ["byte", "UTF-8"]),
    ("x.csv", GOOD.encode("utf-16"), ["UTF-16"]),
    ("x.csv", GOOD.replace("word3", '"word3'), ["line 5", "quote"]),
    ("x.csv", GOOD + "one,rare\n", ["'rare'", "too few"]),
    ("x.csv", "text,label\n" + "".join(f"t{row},note number {row}\n" for row in range(60)), ["different labels"]),
    ("x.jsonl", '{"text":"a","label":1}\n{"text":\n', ["x.jsonl", "line 2"]),
    ("x.jsonl", '{"text":"a","label":1}\n[1]\n', ["x.jsonl", "line 2"]),
    ("x.jsonl", '{"text":"a","label":1}\n{"text":"b"}\n', ["x.jsonl", "line 2", "label"]),
    ("x.parquet", "PAR1 not", ["x.parquet"]),
    ("x.xlsx", GOOD, ["x.xlsx", ".csv"]),
    ("d/test.csv", GOOD, ["d", "train"]),
]


@pytest.mark.parametrize(("name", "content", "parts"), DATA)
def test_data(
    world: Path, name: str, content: str | bytes, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file(name, content)(world)
    assert_refused(world, train("--dataset", name.partition("/")[0]), parts, capsys)


YAML: list[tuple[str, str | bytes, list[str]]] = [
    ("train", "alpha: 0.5\ntemprature: 2\n", ["line 2", "temprature", "did you mean temperature?"]),
    ("train", "alpha: 0.5\nalpha: 0.6\n", ["line 2", "twice"]),
    ("train", "alpha: [0.5\n", ["not YAML"]),
    ("train", "- alpha\n", ["key: value"]),
    ("train", b"alpha: \xff\n", ["byte 7", "UTF-8"]),
    ("train", "alpha: {a: 1}\n", ["line 1", "alpha"]),
    ("suite", "experiments: {}\n", ["no experiments"]),
    ("suite", "experiment:\n  a: {}\n", ["line 1", "did you mean experiments?"]),
    ("suite", "experiments:\n  a: {exp_name: b}\n", ["line 2", "exp_name"]),
    ("suite", "experiments:\n  a/b: {}\n", ["line 2", "one folder"]),
    ("suite", "base: {alpha: 2}\nexperiments:\n  a: {}\n", ["line 1", "alpha"]),
]


@pytest.mark.parametrize(("command", "content", "parts"), YAML)
def test_yaml(
    world: Path, command: str, content: str | bytes, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file("s.yaml", content)(world)
    arguments = ["suite", "s.yaml"] if command == "suite" else train("--config", "s.yaml")
    assert_refused(world, arguments, ["s.yaml", *parts], capsys)


def break_model(world: Path, change: Callable[[Path], object]) -> None:
    shutil.copytree((world / "base").resolve(), world / "broken")
    change(world / "broken")


def rewrite_config(**values: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


MODELS: list[tuple[Callable[[Path], object], list[str]]] = [
    (lambda folder: (folder / "config.json").unlink(), ["config.json"]),
    (lambda folder: (folder / "config.json").write_text("{"), ["config.json"]),
    (lambda folder: (folder / "model.safetensors").unlink(), ["safetensors"]),
    (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), ["safetensors"]),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), ["model.safetensors"]),
    (lambda folder: (folder / "model.safetensors").open("r+b").truncate(5000), ["model.safetensors"]),
    (lambda folder: (folder / "tokenizer.json").unlink(), ["tokenizer"]),
    (lambda folder: (folder / "adapter_config.json").write_text("{}"), ["PEFT adapter", "--teacher_checkpoint"]),
    (rewrite_config(model_type="gpt_neox_japanese"), ["no encoder"]),
    (rewrite_config(num_hidden_layers=5), ["do not belong together"]),
]


@pytest.mark.parametrize(("change", "parts"), MODELS)
def test_base_models(
    world: Path, change: Callable[[Path], object], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    break_model(world, change)
    assert_refused(world, train("--base_model", "broken"), ["broken", *parts], capsys)


def test_there_are_more_than_sixty() -> None:
    assert len(FLAGS) + len(DATA) + len(YAML) + len(MODELS) >= 90


def test_evaluating_with_labels_that_were_not_trained_on(
    world: Path, small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_run, world / "run")
    with (world / "other.csv").open("w", newline="") as other:
        csv.writer(other).writerows([("text", "label"), ("a comet", "space"), ("a goal", "sports")])
    assert_refused(world, ["evaluate", "run", "--dataset", "other.csv"], ["'sports'", "space"], capsys)
