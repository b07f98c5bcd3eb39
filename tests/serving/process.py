"""A server as a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVE = ["lora_distill", "serve"]


@contextmanager
def process(
    *arguments: object, log: Path, python: str = sys.executable, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its URL, once it answers."""
    command = [python, "-m", *map(str, arguments), "--port", "0"]
    with log.open("w") as errors:
        server = subprocess.Popen(
            command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert server.stdout
        found = re.fullmatch(r"Serving .* at (http://\S+)   \(Ctrl-C stops it\)\n", server.stdout.readline())
        assert found, log.read_text()
        yield server, found[1]
    finally:
        server.kill()
        server.wait()
