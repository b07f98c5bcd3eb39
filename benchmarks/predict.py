"""`lora-distill predict` on many rows: its rate against the same classifier in process, and its memory above the model.

python -m benchmarks.predict --model EXPORTED --data DATA --rows 100000 --out predict.json
"""

import argparse
import csv
import itertools
import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.data import read_rows
from benchmarks.machine import Process, run_python
from benchmarks.report import Report, say, spread, times
from benchmarks.runs import MEBI, work_folder

# The file is read before the clock starts; the classifier has answered before, so that nothing is loaded any more.
IN_PROCESS = """
import csv, json, sys, time
from lora_distill import Classifier
model, rows, out = sys.argv[1:]
with open(rows, newline="", encoding="utf-8") as file:
    texts = [row["text"] for row in csv.DictReader(file)]
classifier = Classifier.load(model)
classifier.predict_proba(texts[:100])
started, processor = time.perf_counter(), time.process_time()
classifier.predict_proba(texts)
rate = len(texts) / (time.perf_counter() - started)
with open(out, "w") as file:
    json.dump([rate, (time.process_time() - processor) / len(texts)], file)
"""
LOADED = "import sys; from lora_distill import Classifier; Classifier.load(sys.argv[1]).predict_proba(['a text'])"


def write_texts(source: Path, target: Path, rows: int) -> Path:
    """A CSV file with this many rows, those of another again and again."""
    texts = itertools.cycle(text for text, _ in read_rows(source))
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "text"))
        writer.writerows(enumerate(itertools.islice(texts, rows)))
    return target


def in_process(model: Path, rows: Path) -> tuple[float, float]:
    """`Classifier.predict_proba` on all texts at once: rows a second, and seconds of processor cores a row."""
    out = rows.with_suffix(".rate")
    run_python(["-c", IN_PROCESS, str(model), str(rows), str(out)])
    rate, processor = json.loads(out.read_text(encoding="utf-8"))
    return rate, processor


def command(model: Path, rows: Path, output_format: str) -> Process:
    """One whole `lora-distill predict`, start of the process and all."""
    out = rows.with_suffix(f".out.{output_format}")
    return run_python(["-m", "lora_distill", "predict", str(model), str(rows), "--output", str(out), "--overwrite"])


def memory_above(model: Path, processes: Mapping[int, Process]) -> dict[int, int]:
    """Bytes of a process' own memory above those of one that has loaded the model and answered one text, by rows."""
    loaded = run_python(["-c", LOADED, str(model)]).anonymous
    return {rows: process.anonymous - loaded for rows, process in processes.items()}


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, required=True, help="an exported folder")
    options.add_argument("--data", type=Path, required=True, help="folder with test.csv (text, label)")
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--format", default="csv", choices=("csv", "tsv", "jsonl", "parquet"), help="of the output")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--out", type=Path, required=True, help="JSON")
    options.add_argument("--work", type=Path, help="folder for the rows; a temporary one if not given")
    arguments = options.parse_args()
    model = arguments.model.resolve()
    with work_folder(arguments.work) as work:
        rows = write_texts(arguments.data / "test.csv", work / "rows.csv", arguments.rows)
        few = write_texts(arguments.data / "test.csv", work / "few.csv", max(arguments.rows // 10, 1))
        rates: list[float] = []
        processes: list[Process] = []
        for number in range(arguments.rounds):
            rates.append(in_process(model, rows)[0])
            processes.append(command(model, rows, arguments.format))
            ours = arguments.rows / processes[-1].seconds
            told = f"{rates[-1]:,.0f} rows/s in process, {ours:,.0f} as a command"
            say(f"round {number + 1} of {arguments.rounds}: {told}")
        most = max(processes, key=lambda process: process.anonymous)
        above = memory_above(model, {arguments.rows // 10: command(model, few, arguments.format), arguments.rows: most})
    commands = [arguments.rows / process.seconds for process in processes]
    report = Report(f"predict, {arguments.rows:,} rows", ["", "in process", "the command", "of it"])
    ratio = times(statistics.median(commands), statistics.median(rates))
    report.row("rows/s", spread(rates, 0), spread(commands, 0), ratio)
    for count, size in above.items():
        report.row(f"MiB above the model, {count:,} rows", "", f"{size / MEBI:,.0f}", "")
    contents = {"rows": arguments.rows, "in_process": rates, "command": [asdict(process) for process in processes]}
    report.finish(arguments.out, contents | {"bytes_above_the_model": above})


if __name__ == "__main__":
    main()
