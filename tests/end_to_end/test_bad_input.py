"""What a user gets wrong on the command line, in data and in settings: a few lines that say what to do."""

import pytest

from tests.end_to_end.conftest import Command
from tests.end_to_end.refusal import GOOD, World, file, train

FLAGS: list[tuple[list[str], list[str]]] = [
    ([], ["COMMAND"]),
    (["trian"], ["trian", "train"]),
    (["train", "--alhpa", "0.5"], ["--alhpa", "did you mean --alpha?"]),
    (["train", "--alhpa=0.5"], ["--alhpa=0.5", "did you mean --alpha?"]),
    (["train", "--learning-rate", "1"], ["did you mean --learning_rate?"]),
    (["train", "--wombat", "1"], ["--wombat: no such flag. See ", "lora-distill train --help"]),
    (["train", "--alph", "0.5"], ["--alph", "did you mean --alpha?"]),
    (["train", "--alpha"], ["--alpha", "expected one argument"]),
    (["train", "--alpha", "--seed", "1"], ["--alpha", "expected one argument"]),
    (["train", "--no_control=yes"], ["--no_control", "takes no value", "'yes'"]),
    (["train", "stray"], ["stray", "one argument too many"]),
    (["train", "suite.yaml"], ["suite.yaml: a suite is for `", "--config"]),
    (["train", "--resume", "--overwrite", "--exp_name", "run"], ["--overwrite", "not allowed with", "--resume"]),
    (["suite"], ["FILE"]),
    (["suite", "one.yaml", "two.yaml"], ["two.yaml", "one argument too many"]),
    (["suite", "absent.yaml", "--jobs", "0"], ["--jobs 0: one experiment at least runs at a time."]),
    (["plan", "--jobs", "4"], ["--jobs: is for a suite; give its FILE."]),
    (["suite", "x.yaml", "--fail_fast", "--keep_going"], ["--keep_going", "not allowed with", "--fail_fast"]),
    (["suite", "absent.yaml"], ["absent.yaml: no such file. Give the path of a YAML file."]),
    (["suite", "absent.yaml", "--exp_name", "x"], ["--exp_name: no such flag."]),
    (["evaluate", "absent"], ["--dataset"]),
    (["evaluate", "absent", "--dataset", "good.csv"], ["absent", "no such run"]),
    (["evaluate", "absent", "--dataset", "good.csv", "--alpha", "1"], ["--alpha: no such flag."]),
    (["show"], ["RUN"]),
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
    (train("--alpha", "2", "--temperature", "0", "--seed", "x", "--batch_size", "0"), ["--alpha", "more faults"]),
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
    # 2 layers x q, k, v x (in + out) x rank 8, and a head of 32 x 32 + 32 + 2 x 32 + 2
    (train("--student_budget", "2000"), ["4,194 trainable", "2,194 over", "3,072 in LoRA", "1,122 in the head"]),
    (train("--student_budget", "2000"), ["rank 2 on 2 layers", "--student_lora_r", "--student_budget"]),
    (train("--student_budget", "1000"), ["nothing fits", "--student_budget to 1,314 or more"]),
    (train("--device", "gpu"), ["--device", "'gpu'"]),
    (train("--device", "cuda:99"), ["--device cuda:99", "cpu"]),
    (train("--precision", "fp8"), ["--precision", "'fp8'"]),
    (train("--seed", "-1"), ["--seed"]),
    (train("--validation_fraction", "1.5"), ["--validation_fraction"]),
    (train("--max_train_rows", "1"), ["--max_train_rows 1", "number of classes"]),
    (train("--text_column", "txt"), ["'txt'", "'text', 'label'", "--text_column"]),
    (train("--label_column", "class"), ["'class'", "--label_column"]),
    (train("--label_column", "text"), ["both 'text'", "must differ"]),
    (train("--long_text", "middle"), ["--long_text", "'truncate', 'head_tail' or 'chunk_mean'"]),
    (train("--long_text", "chunk_mean", "--text_pair_column", "other"), ["--long_text chunk_mean", "truncated"]),
    (train("--text_pair_column", "other"), ["'other'", "'text', 'label'", "--text_pair_column"]),
    (train("--text_pair_column", "text"), ["--text_column and --text_pair_column are both 'text'; they must differ."]),
    (train("--text_pair_column", "other", "--dataset", "bbc_news"), ["--text_pair_column other: bbc_news has one"]),
    (train("--dataset", "absent.csv"), ["absent.csv", "no such file"]),
    (train("--dataset", "./absent/"), ["absent", "no such file"]),
    (train("--dataset", ""), ["--dataset", "at least 1 character"]),
    (train("--dataset", "rows\n.csv"), ["--dataset", r"'rows\n.csv'", "cannot be printed"]),
    (train("--dataset", "x" * 5000), ["xxx", "File name too long"]),
    (train("--dataset", "what is this?"), ["what is this?", "no such file or folder", "no name of the hub's"]),
    (train("--dataset", "org/rows"), ["org/rows", "cannot be had", "HF_HOME", "bbc_news"]),
    (train("--base_model", "org/model"), ["org/model", "cannot be had", "HF_ENDPOINT", "minilm"]),
    (train("--base_model", "./absent"), ["./absent", "no such folder"]),
    (train("--base_model", "good.csv"), ["good.csv", "is a file"]),
    (train("--teacher_checkpoint", "./absent"), ["--teacher_checkpoint", "no such folder"]),
    (train("--teacher_checkpoint", "good.csv"), ["--teacher_checkpoint", "is a file"]),
    (train("--teacher_checkpoint", "org/teacher"), ["--teacher_checkpoint", "org/teacher cannot be had"]),
    (train("--teacher_checkpoint", "base"), ["not a finished classifier"]),
    (train("--student_base_model", "./absent"), ["./absent", "no such folder"]),
    (
        train("--student_base_model", "base", "--teacher_checkpoint", "base"),
        ["--student_base_model", "--base_model is"],
    ),
    (train("--student_depth", "4"), ["--student_depth 4", "has 3 layers", "at most 3"]),
    (train("--student_depth", "1"), ["--student_target_layers 2", "has 1 layer with --student_depth 1"]),
    (train("--student_keep", "last"), ["--student_keep last", "--student_depth"]),
    (train("--student_keep", "middle"), ["--student_keep", "'first', 'spread' or 'last'"]),
    (train("--teacher_label_map", "a=b"), ["--teacher_label_map", "--teacher_checkpoint"]),
    (train("--teacher_label_map", "a"), ["--teacher_label_map", "theirs=ours"]),
    (train("--teacher_label_map", "food, drink=food"), ["labels with commas", "a mapping in a --config file"]),
    (train("--config", "absent.yaml"), ["absent.yaml", "no such file"]),
    (train("--config", "."), ["directory"]),
    (train("--resume"), ["nothing to resume"]),
    (["train", "--resume"], ["--exp_name"]),
    (train("--output_dir", "good.csv"), ["good.csv", "is a file"]),
    (train("--output_dir", "good.csv/deep/er"), ["good.csv is a file"]),
    (train("--output_dir", "/proc/nowhere"), ["/proc", "--output_dir"]),
    (train("--output_dir", "x" * 300), ["File name too long", "shorter name"]),
    (train("--exp_name", "a/b"), ["--exp_name", "'a/b'", "must name one folder"]),
    (train("--exp_name", "../run"), ["--exp_name", "must name one folder"]),
    (train("--exp_name", ".."), ["--exp_name"]),
    (train("--exp_name", " "), ["--exp_name"]),
    (train("--exp_name", ".artefacts"), ["--exp_name"]),
    (train("--exp_name", "x" * 300), ["--exp_name", "at most 200 bytes"]),
]


@pytest.mark.parametrize(("arguments", "parts"), FLAGS, ids=[" ".join(a)[-60:] for a, _ in FLAGS])
def test_flags(world: World, arguments: list[str], parts: list[str]) -> None:
    world.refuses(arguments, *parts)


DATA: list[tuple[str, str | bytes, list[str]]] = [
    ("x.csv", "", ["x.csv", "empty"]),
    ("x.csv", "text,label\n", ["x.csv", "no rows"]),
    ("x.csv", GOOD.replace("label", "label,label", 1).replace("here,", "here,x,"), ["line 1", "same name: 'label'"]),
    ("x.csv", GOOD.replace(",b\n", ",a\n"), ["x.csv", "every row has the label 'a'"]),
    ("x.csv", GOOD.replace("word3 here", "   "), ["line 5", "blank"]),
    ("x.csv", GOOD.replace("word3 here,b", "word3 here, "), ["line 5", "label"]),
    ("x.csv", GOOD.replace("word3 here,", "word3, here,"), ["line 5", "3 columns found, 2 expected"]),
    ("x.csv", GOOD.replace("word3", "caf\xe9").encode("latin-1"), ["line 5", "byte 53", "0xe9", "UTF-8"]),
    ("x.csv", GOOD.replace(",", ";").replace("word3", "caf\xe9").encode("cp1252"), ["semicolons", "UTF-8", ".tsv"]),
    ("x.json", '[{"text": "a", "label": 1}]', ["'.json'", "json.load", "> x.jsonl"]),
    ("x.csv", GOOD.encode("utf-16"), ["byte 0", "UTF-16"]),
    ("x.csv", GOOD.replace("word39", '"word39'), ["line 41", "quote", "never closed"]),
    ("x.csv", GOOD.replace("word3 here", '"word3" here'), ["line 5", "broken quotes"]),
    ("x.csv", GOOD + "one,rare\n", ["'rare'", "too few", "3 are needed"]),
    ("x.csv", "text,label\n" + "".join(f"t{row},note number {row}\n" for row in range(60)), ["60 different labels"]),
    ("x.csv", "text,label\n" + "".join(f"t{row},{row / 7:.3f}\n" for row in range(60)), ["not whole", "0.143"]),
    ("x.csv", "text,label\n" + "".join(f"same,{'ab'[row % 2]}\n" for row in range(40)), ["also stands in test"]),
    ("x.jsonl", '{"text":"a","label":1}\n{"text":\n', ["x.jsonl", "line 2"]),
    ("x.jsonl", '{"text":"a","label":1}\n[1]\n', ["x.jsonl", "line 2", "found list"]),
    ("x.jsonl", '{"text":"a","label":1}\n{"text":"b"}\n', ["x.jsonl", "line 2", "label"]),
    ("x.jsonl", '{"text":"a","label":[1]}\n', ["x.jsonl", "line 1", "'[1]' (list)"]),
    ("x.jsonl", '{"text":5,"label":1}\n', ["x.jsonl", "line 1", "'5' (int)"]),
    ("x.parquet", "PAR1 not", ["x.parquet", "not a Parquet file"]),
    ("x.xlsx", GOOD, ["x.xlsx", "'.xlsx'", ".csv"]),
    ("x.pkl", b"\x80\x04N.", ["x.pkl", "'.pkl'", ".parquet"]),
    ("x.csv.gz", b"\x1f\x8b", ["x.csv.gz", "'.gz'"]),
    ("d/test.csv", GOOD, ["d", "no train split", "'test.csv'"]),
    ("d/notes.txt", "", ["d", "no train split", "'notes.txt'"]),
]


@pytest.mark.parametrize(("name", "content", "parts"), DATA)
def test_data(world: World, name: str, content: str | bytes, parts: list[str]) -> None:
    file(name, content)(world.folder)
    world.refuses(train("--dataset", name.partition("/")[0]), *parts)


FOLDERS: list[tuple[dict[str, str], list[str]]] = [
    ({}, ["no train split", "no files"]),
    ({"train.csv": GOOD, "train.tsv": GOOD}, ["more than one file for the train split", "'train.csv', 'train.tsv'"]),
    ({"train.csv": GOOD, "test.csv": GOOD.replace(",b\n", ",c\n")}, ["test.csv", "20 rows", "'c'", "'a', 'b'"]),
    ({"train.csv": GOOD, "test.csv": ""}, ["test.csv", "empty"]),
    ({"train.csv": GOOD, "test.csv": GOOD}, ["also stands in test"]),
]


@pytest.mark.parametrize(("files", "parts"), FOLDERS)
def test_folders_of_data(world: World, files: dict[str, str], parts: list[str]) -> None:
    (world.folder / "d").mkdir()
    for name, content in files.items():
        file(f"d/{name}", content)(world.folder)
    world.refuses(train("--dataset", "d"), *parts)


YAML: list[tuple[str, str | bytes, list[str]]] = [
    ("train", "alpha: 0.5\ntemprature: 2\n", ["line 2", "temprature", "did you mean temperature?"]),
    ("train", "alpha: 0.5\nalpha: 0.6\n", ["line 2", "twice", "line 1"]),
    ("train", "alpha: [0.5\n", ["line 2", "not YAML"]),
    ("train", "alpha: 0.5\n\tseed: 1\n", ["line 2", "not YAML"]),
    ("train", "alpha: \0\n", ["not YAML", "#x0000"]),
    ("train", "- alpha\n", ["key: value"]),
    ("train", b"alpha: \xff\n", ["byte 7", "UTF-8"]),
    ("train", "alpha: {a: 1}\n", ["line 1", "alpha"]),
    ("train", "seed: 1\nalpha:\n", ["line 2", "alpha: None"]),
    ("train", "batch_size: true\n", ["line 1", "batch_size: True"]),
    ("train", "batch_size: 2.5\n", ["line 1", "batch_size: 2.5"]),
    ("train", "no_control: perhaps\n", ["line 1", "no_control: 'perhaps'"]),
    ("train", "label_column: 5\n", ["line 1", "label_column: 5", "string"]),
    ("train", "teacher_label_map: [a]\n", ["line 1", "teacher_label_map: ['a']"]),
    ("train", "target_modules: 5\n", ["line 1", "target_modules: 5"]),
    ("train", "base: {}\nexperiments: {a: {}}\n", ["s.yaml: holds experiments", "suite s.yaml"]),
    ("suite", "experiments: {}\n", ["no experiments"]),
    ("suite", "", ["no experiments"]),
    (
        "suite",
        "experiments: [a, b]\n",
        ["line 1: experiments: must hold a line `name: {settings}`", "mine: {alpha: 0.7}"],
    ),
    ("suite", "experiment:\n  a: {}\n", ["line 1", "did you mean experiments?"]),
    ("suite", "experiments:\n  a: {exp_name: b}\n", ["line 2", "exp_name"]),
    ("suite", "experiments:\n  a/b: {}\n", ["line 2", "one folder"]),
    ("suite", "name: ../up\nexperiments:\n  a: {}\n", ["line 1", "'../up'", "one folder"]),
    ("suite", "base: {alpha: 2}\nexperiments:\n  a: {}\n", ["line 1", "alpha"]),
    ("suite", "experiments:\n  a: {}\n  a: {}\n", ["line 3", "a stands twice"]),
    ("suite", b"name: caf\xe9\n", ["byte 9", "UTF-8"]),
]


@pytest.mark.parametrize(("command", "content", "parts"), YAML)
def test_yaml(world: World, command: str, content: str | bytes, parts: list[str]) -> None:
    file("s.yaml", content)(world.folder)
    arguments = ["suite", "s.yaml"] if command == "suite" else train("--config", "s.yaml")
    world.refuses(arguments, "s.yaml", *parts)


def test_there_are_more_than_sixty() -> None:
    cases = [*map(repr, (*FLAGS, *DATA, *FOLDERS, *YAML))]
    assert len(set(cases)) == len(cases) >= 130


PROCESSES: list[tuple[list[str], list[str]]] = [
    ([], ["COMMAND"]),
    (["show", "absent"], ["absent: no such run"]),
    (["train", "--config", "s.yaml"], ["s.yaml, line 1", "did you mean temperature?"]),
    (train("--dataset", "absent.csv"), ["absent.csv", "no such file"]),
    (train("--student_budget", "2000"), ["over its budget of 2,000"]),
]


@pytest.mark.parametrize(("arguments", "parts"), PROCESSES)
def test_in_a_process_of_its_own(world: World, command: Command, arguments: list[str], parts: list[str]) -> None:
    (world.folder / "s.yaml").write_text("temprature: 2\n")
    World(world.folder, command).refuses(arguments, *parts)
