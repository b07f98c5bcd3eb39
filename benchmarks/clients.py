"""Many clients of a server in one process: each waits for its answer, or all keep to a rate whatever it answers.

python -m benchmarks.clients --url URL --texts texts.json --clients 32 --count 2000 --out result.json
python -m benchmarks.clients --url URL --texts texts.json --rate 300 --seconds 60 --out result.json

They speak HTTP by hand: a client library takes as much processor time for a request as a server does to answer it, and
here both have the same cores.
"""

import argparse
import asyncio
import itertools
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvloop

# Between the logarithms of two probabilities: other batchmates round the last digits otherwise.
TOLERANCE = 0.01
LEAST = 1e-30  # probability whose logarithm is still told apart
PATIENCE = 120.0  # seconds for an answer, which the server should end before
LOST = "no answer"


@dataclass
class Connection:
    """One that is kept, from request to request."""

    host: str
    port: int
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, text: str) -> tuple[int, Any]:
        """Status and body of one text's answer; opens the connection if it is not open.

        Raises:
            OSError, EOFError, TimeoutError: there was no answer. The next request opens the connection again.
        """
        body = json.dumps({"text": text}).encode()
        head = f"POST /v1/classify HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\nContent-Length: "
        if self._streams and self._streams[0].at_eof():  # the server closes what is idle for long
            self.close()
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = self._streams or await asyncio.open_connection(self.host, self.port)
                self._streams = reader, writer
                writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
                headers = dict(line.split(b": ", 1) for line in lines if line)
                answer = await reader.readexactly(int(headers[b"content-length"]))
        except BaseException:
            self.close()
            raise
        if headers.get(b"connection") == b"close":
            self.close()
        is_json = headers.get(b"content-type") == b"application/json"
        return int(first.split()[1]), json.loads(answer) if is_json else None

    def close(self) -> None:
        """Until the next request."""
        if self._streams:
            self._streams[1].close()
        self._streams = None


@dataclass
class Clients:
    """What is asked, and what came of it.

    Attributes:
        host: of the server.
        port: of the server.
        texts: asked again and again, in their order.
        expected: the probability of each label, for each text.
        seconds: of each answer with status 200, from the request's first byte to the answer's last.
        statuses: how many answers had which.
        strange: answers with status 200 that are not those of their text.
    """

    host: str
    port: int
    texts: Sequence[str]
    expected: Sequence[dict[str, float]]
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    strange: int = 0

    async def in_turn(self, clients: int, count: int) -> None:
        """Ask for so many texts; each client has one on its way at a time."""
        rows = iter([number % len(self.texts) for number in range(count)])
        await asyncio.gather(*(self._one_after_another(rows) for _ in range(clients)))

    async def at_rate(self, rate: float, seconds: float) -> None:
        """Ask at random moments (Poisson), so many times a second on average, over connections that are free."""
        loop, free = asyncio.get_running_loop(), list[Connection]()
        gaps = np.random.default_rng(0).exponential(1 / rate, math.ceil(rate * seconds))
        begun, rows = loop.time(), itertools.cycle(range(len(self.texts)))
        async with asyncio.TaskGroup() as asked:
            for moment in np.cumsum(gaps):
                await asyncio.sleep(begun + float(moment) - loop.time())
                asked.create_task(self._once(next(rows), free))
        for connection in free:
            connection.close()

    async def _one_after_another(self, rows: Iterator[int]) -> None:
        connection = Connection(self.host, self.port)
        for row in rows:
            await self._ask(connection, row)
        connection.close()

    async def _once(self, row: int, free: list[Connection]) -> None:
        connection = free.pop() if free else Connection(self.host, self.port)
        await self._ask(connection, row)
        free.append(connection)

    async def _ask(self, connection: Connection, row: int) -> None:
        begun = time.perf_counter()
        try:
            status, answer = await connection.ask(self.texts[row])
        except (OSError, EOFError, TimeoutError):
            self.statuses[LOST] += 1
            return
        self.statuses[str(status)] += 1
        if status == 200:
            self.seconds.append(time.perf_counter() - begun)
            self.strange += not is_of(answer, self.expected[row])


def is_of(answer: Any, expected: dict[str, float]) -> bool:  # noqa: ANN401 - JSON
    """Whether an answer of one text holds these probabilities.

    Their logarithms are compared: the probabilities of two texts that a model is sure of differ by next to nothing.
    """
    (result,) = answer["results"]
    found = {each["label"]: each["probability"] for each in result["probabilities"]}
    return found.keys() == expected.keys() and all(
        abs(math.log(max(found[label], LEAST)) - math.log(max(expected[label], LEAST))) < TOLERANCE for label in found
    )


def main() -> None:
    """Ask, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--url", required=True)
    options.add_argument("--texts", type=Path, required=True, help="JSON: texts, and expected, the answers")
    options.add_argument("--clients", type=int, default=32, help="that wait for their answers")
    options.add_argument("--count", type=int, help="texts that these ask for")
    options.add_argument("--rate", type=float, help="texts a second, whatever is answered")
    options.add_argument("--seconds", type=float, default=60.0, help="that the rate is kept")
    options.add_argument("--out", type=Path, required=True)
    arguments = options.parse_args()
    given, url = json.loads(arguments.texts.read_bytes()), urlsplit(arguments.url)

    async def ask() -> dict[str, Any]:
        asked = [Clients(str(url.hostname), int(url.port or 80), given["texts"], given["expected"]) for _ in range(2)]
        warming, clients = asked
        await warming.in_turn(arguments.clients, 4 * arguments.clients)
        begun, processor = time.perf_counter(), time.process_time()
        if arguments.rate:
            await clients.at_rate(arguments.rate, arguments.seconds)
        else:
            await clients.in_turn(arguments.clients, arguments.count or len(given["texts"]))
        return {
            "elapsed": time.perf_counter() - begun,
            "processor": time.process_time() - processor,
            "seconds": clients.seconds,
            "statuses": dict(clients.statuses),
            "strange": clients.strange,
            "warming": sum(warming.statuses.values()),
        }

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        arguments.out.write_text(json.dumps(runner.run(ask())), encoding="utf-8")


if __name__ == "__main__":
    main()
