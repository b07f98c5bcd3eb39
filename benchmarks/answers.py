"""Answers a second of a finished run's student, exported, beside what one would call instead, and beside its teacher.

    python -m benchmarks.answers --run RUN --data DATA --out answers.json

Each side is a process of its own; they take turns. Tokenising is counted, loading is not.
"""

import argparse
import csv
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import run_python
from benchmarks.report import Report, say, spread, times
from benchmarks.runs import work_folder

# Name, side of `benchmarks.answering`, and the model: as exported, or the role's folder in the run.
SIDES = (
    ("student, int8", "classifier", "student onnx-int8"),
    ("student, transformers' pipeline", "pipeline", "student merged"),
    ("student, PEFT, not merged", "peft", "student"),
    ("student, ONNX in fp32", "onnx", "student onnx"),
    ("student, ONNX in fp32, by torch's exporter as it is", "plain-onnx", "student merged"),
    ("teacher, int8", "classifier", "teacher onnx-int8"),
    ("teacher, merged", "torch", "teacher merged"),
)
OURS = SIDES[0][0]


def export(run: Path, model: str, work: Path) -> Path:
    """The folder of a model, exported if it is to be."""
    role, _, form = model.partition(" ")
    if not form:
        return run / role
    folder = work / f"{role}-{form}"
    if not folder.exists():
        kept = ["--force"] if role == "teacher" else []  # only its speed is asked for
        which = ["--role", role, "--to", form, "--output", str(folder)]
        run_python(["-m", "lora_distill", "export", str(run), *which, *kept])
    return folder


def answer(side: str, model: Path, texts: Path, max_length: int, work: Path) -> dict[str, Any]:
    """One process of a side."""
    out = work / "result.json"
    given = {"side": side, "model": model, "texts": texts, "max_length": max_length, "out": out}
    run_python(["-m", "benchmarks.answering", *(str(part) for name in given for part in (f"--{name}", given[name]))])
    result: dict[str, Any] = json.loads(out.read_bytes())
    return result


def main() -> None:
    """Export, take turns, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    options.add_argument("--data", type=Path, required=True, help="folder with test.csv (text, label)")
    options.add_argument("--texts", type=int, default=1024, help="answered at once")
    options.add_argument("--single", type=int, default=128, help="answered one by one")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--out", type=Path, required=True, help="JSON")
    options.add_argument("--work", type=Path, help="folder for exported models; a temporary one if not given")
    arguments = options.parse_args()
    run = arguments.run.resolve()
    max_length = int(json.loads((run / "environment.json").read_bytes())["requested"]["config"]["max_length"])
    with (arguments.data / "test.csv").open(newline="", encoding="utf-8") as file:
        rows = [row["text"] for row in csv.DictReader(file)]
    drawn = [rows[index] for index in np.random.default_rng(0).permutation(len(rows))[: arguments.texts]]
    with work_folder(arguments.work) as work:
        texts = work / "texts.json"
        texts.write_text(json.dumps({"many": drawn, "single": drawn[: arguments.single]}), encoding="utf-8")
        sides = {
            name: partial(answer, side, export(run, model, work), texts, max_length, work)
            for name, side, model in SIDES
        }
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number in range(arguments.rounds):
            names = list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]
            for name in names:
                found[name].append(sides[name]())
                say(f"round {number + 1} of {arguments.rounds}: {name}: {found[name][-1]['rates']}")
    _report(found).finish(arguments.out, {"texts": len(drawn), "single": arguments.single, "rounds": found})


def _report(found: dict[str, list[dict[str, Any]]]) -> Report:
    columns = ("", "texts/s", f"{OURS} is", "texts/s, one by one", f"{OURS} is", f"as {OURS}")
    report = Report("Answers a second", columns)
    middle = {
        name: {kind: statistics.median(each["rates"][kind] for each in rounds) for kind in ("many", "single")}
        for name, rounds in found.items()
    }
    said = found[OURS][0]["said"]
    for name, rounds in found.items():
        alike = statistics.mean(one == other for one, other in zip(rounds[0]["said"], said, strict=True))
        cells = [
            cell
            for kind in ("many", "single")
            for cell in (
                spread(each["rates"][kind] for each in rounds),
                times(middle[OURS][kind], middle[name][kind]),
            )
        ]
        report.row(name, *cells, f"{alike:.2%}")
    return report


if __name__ == "__main__":
    main()
