"""`lora-distill serve` under load: its rate against the same classifier in process, its latencies, its start.

    python -m benchmarks.serve --model EXPORTED --data DATA --out serve.json
    python -m benchmarks.serve --model EXPORTED --data DATA --minutes 10 --out serve.json

Every answer is compared with what the classifier says of its text in process. With --minutes, clients then ask at 80%
and at 150% of the rate that was measured, so long each, whatever is answered; the memory is taken at intervals.
"""

import argparse
import csv
import json
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np

from benchmarks.clients import LEAST, LOST, TOLERANCE
from benchmarks.machine import REPOSITORY, memory_of, processor_seconds, run_python
from benchmarks.predict import in_process, write_texts
from benchmarks.report import Report, say, spread, times
from benchmarks.runs import MEBI, work_folder
from lora_distill import Classifier

SHARES = (0.8, 1.5)  # of the rate that was measured
SAMPLES = 20  # of the memory, in each of these
# All that answering with an exported model imports, timed from inside: the interpreter's own start is not counted.
IMPORTS = """
import sys, time
started = time.perf_counter()
import onnxruntime, tokenizers
from lora_distill import Classifier
seconds = time.perf_counter() - started
assert "torch" not in sys.modules
open(sys.argv[1], "w").write(str(seconds))
"""


@contextmanager
def server(model: Path, log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server's process and its URL, once it listens; stopped in the end as a user stops it."""
    command = [sys.executable, "-m", "lora_distill", "serve", str(model), "--port", "0"]
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            found = re.search(r"http://\S+", process.stdout.readline() if process.stdout else "")
            if not found:
                raise RuntimeError(f"{' '.join(command)}\ndid not serve:\n{log.read_text(encoding='utf-8')[-3000:]}")
            yield process, found[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}\nended with {process.returncode}")


def first_answer(model: Path, log: Path) -> float:
    """Seconds from the start of a server's process to the end of its first answer."""
    started = time.perf_counter()
    with server(model, log) as (_, url):
        headers = {"Content-Type": "application/json"}
        request = Request(f"{url}/v1/classify", b'{"text": "a text"}', headers)  # noqa: S310 - to the server above
        with urlopen(request) as answer:  # noqa: S310 - as above
            answer.read()
        return time.perf_counter() - started


def import_seconds(out: Path) -> float:
    """What importing all that answers without torch takes a fresh process."""
    run_python(["-c", IMPORTS, str(out)])
    return float(out.read_text(encoding="utf-8"))


def ask(pid: int, url: str, texts: Path, **options: float) -> dict[str, Any]:
    """What `benchmarks.clients` found of a server, and what that used meanwhile."""
    out = texts.with_suffix(".result")
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    before = processor_seconds(pid)
    run_python(["-m", "benchmarks.clients", "--url", url, "--texts", str(texts), "--out", str(out), *flags])
    used = processor_seconds(pid) - before
    found: dict[str, Any] = json.loads(out.read_bytes())
    seconds = found.pop("seconds")  # of each answer
    p50, p99 = (1000 * float(np.percentile(seconds, share)) for share in (50, 99))
    each = {"server": used / (len(seconds) + found["warming"]), "clients": found.pop("processor") / len(seconds)}
    return found | {"rate": len(seconds) / found["elapsed"], "p50": p50, "p99": p99, "processor": each}


def ask_in_turn(model: Path, texts: Path, clients: int, log: Path) -> dict[str, Any]:
    """A fresh server, and clients that each wait for their answer."""
    with server(model, log) as (process, url):
        return ask(process.pid, url, texts, clients=clients)


def ask_at_rate(model: Path, texts: Path, rate: float, seconds: float, log: Path) -> dict[str, Any]:
    """A fresh server that is asked so many texts a second, whatever it answers; its own memory at intervals."""
    memory: list[tuple[float, int]] = []
    done = threading.Event()
    with server(model, log) as (process, url):

        def watch() -> None:
            while not done.wait(seconds / SAMPLES):
                memory.append((time.perf_counter() - started, memory_of(process.pid)[0]))

        started = time.perf_counter()
        watching = threading.Thread(target=watch)
        watching.start()
        try:
            found = ask(process.pid, url, texts, rate=rate, seconds=seconds)
        finally:
            done.set()
            watching.join()
    return found | {"asked": rate, "memory": memory}


def write_expected(model: Path, rows: Path, out: Path) -> float:
    """Write what the clients ask and what the classifier says of it in process.

    Returns:
        The share of pairs of texts whose answers, exchanged, would be found strange.
    """
    texts = [text for _, text in csv.reader(rows.open(newline="", encoding="utf-8"))][1:]
    classifier = Classifier.load(model)
    probabilities = classifier.probabilities(classifier.logits(texts))
    expected = [dict(zip(classifier.labels, map(float, row), strict=True)) for row in probabilities]
    out.write_text(json.dumps({"texts": texts, "expected": expected}), encoding="utf-8")
    logs = np.log(np.maximum(probabilities, LEAST))
    alike = sum(int((np.abs(logs - row) < TOLERANCE).all(axis=1).sum()) for row in logs)
    return 1 - (alike - len(logs)) / (len(logs) * (len(logs) - 1))


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, required=True, help="an exported folder")
    options.add_argument("--data", type=Path, required=True, help="folder with test.csv (text, label)")
    options.add_argument("--texts", type=int, default=2400, help="asked in a round; the same in process")
    options.add_argument("--clients", type=int, default=32)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--minutes", type=float, default=0.0, help="at each share of the rate that was measured")
    options.add_argument("--out", type=Path, required=True, help="JSON")
    options.add_argument("--work", type=Path, help="folder for texts and logs; a temporary one if not given")
    arguments = options.parse_args()
    model = arguments.model.resolve()
    with work_folder(arguments.work) as work:
        rows, log = write_texts(arguments.data / "test.csv", work / "rows.csv", arguments.texts), work / "log"
        texts = work / "texts.json"
        apart = write_expected(model, rows, texts)
        rounds: list[dict[str, Any]] = []
        for number in range(arguments.rounds):
            rate, processor = in_process(model, rows)
            served = ask_in_turn(model, texts, arguments.clients, log)
            starts = {"first": first_answer(model, log), "import": import_seconds(work / "import")}
            rounds.append({"in_process": rate, "in_process_processor": processor, "served": served} | starts)
            told = f"{rate:,.1f} texts/s in process, {served['rate']:,.1f} served"
            latencies = f"p50 {served['p50']:,.0f}, p99 {served['p99']:,.0f} ms"
            say(f"round {number + 1} of {arguments.rounds}: {told}; {latencies}")
        capacity = statistics.median(each["served"]["rate"] for each in rounds)
        loads = {
            f"{share:.0%}": ask_at_rate(model, texts, share * capacity, 60 * arguments.minutes, log)
            for share in (SHARES if arguments.minutes else ())
        }
    if loads:
        _loads(loads).show()
        say(f"{apart:.2%} of exchanged answers would be found: no other text's is within {TOLERANCE:.0%}")
    contents = {"texts": arguments.texts, "clients": arguments.clients, "told_apart": apart}
    _report(rounds, arguments.clients).finish(arguments.out, contents | {"rounds": rounds, "loads": loads})


def _report(rounds: Sequence[dict[str, Any]], clients: int) -> Report:
    served = [each["served"] for each in rounds]
    report = Report(f"serve, {clients} clients", ["", "in process", "served", "of it"])
    rates = [each["in_process"] for each in rounds], [each["rate"] for each in served]
    report.row("texts/s", *map(spread, rates), times(statistics.median(rates[1]), statistics.median(rates[0])))
    report.row("p50, ms", "", spread(each["p50"] for each in served), "")
    share = statistics.median(each["p99"] / each["p50"] for each in served)
    report.row("p99, ms", "", spread(each["p99"] for each in served), f"{share:.2f}x the p50")
    alone = [1000 * each["in_process_processor"] for each in rounds]
    server, own = ([1000 * each["processor"][side] for each in served] for side in ("server", "clients"))
    report.row(
        "processor ms a text", spread(alone, 2), spread(server, 2), times(*map(statistics.median, (server, alone)))
    )
    report.row("the clients' own", "", spread(own, 2), "")
    report.row("answers that are not those of their texts", "", str(sum(each["strange"] for each in served)), "")
    report.row("first answer of a server, s", "", spread((each["first"] for each in rounds), 2), "")
    report.row("imports, s", spread((each["import"] for each in rounds), 2), "", "")
    return report


def _loads(loads: Mapping[str, dict[str, Any]]) -> Report:
    columns = ("of its rate", "asked", "200", "429", "5xx", "none", "strange", "p50, ms", "p99, ms", "own memory, MiB")
    report = Report("serve, asked at a rate", columns)
    for share, found in loads.items():
        statuses, sizes = found["statuses"], [size / MEBI for _, size in found["memory"]]
        counts = [statuses.get("200", 0), statuses.get("429", 0)]
        counts += [sum(count for status, count in statuses.items() if status.startswith("5"))]
        counts += [statuses.get(LOST, 0), found["strange"]]
        memory = f"{sizes[0]:,.0f}, then {max(sizes):,.0f} at most, {sizes[-1]:,.0f} in the end"
        latencies = f"{found['p50']:,.0f}", f"{found['p99']:,.0f}"
        report.row(share, f"{found['asked']:,.1f}/s", *(f"{count:,}" for count in counts), *latencies, memory)
    return report


if __name__ == "__main__":
    main()
