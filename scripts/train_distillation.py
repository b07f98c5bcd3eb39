#!/usr/bin/env python3
"""One experiment: `lora-distill train`, from a clone, with whichever Python has the package."""

import importlib.util
import os
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
VENV = SCRIPTS.parent / ".venv"
NEEDED = ("lora_distill", "accelerate", "datasets", "peft", "torch", "transformers")


def train() -> int:
    """Run the experiment here if the package is installed here, else with the clone's .venv."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        from lora_distill.cli import main

        return main(["train", *sys.argv[1:]])
    python = VENV / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != VENV.resolve():
        os.execv(python, [str(python), *sys.argv])  # noqa: S606 - an interpreter, not a shell
    sys.stderr.write(
        f"error: {sys.executable} lacks {', '.join(missing)}.\n"
        f"Install them and lora-distill into .venv of this clone: {SCRIPTS / 'environment.sh'}\n"
    )
    return 2


if __name__ == "__main__":
    sys.exit(train())
