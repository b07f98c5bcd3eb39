"""What made a result, beside its config and data: versions, machine, and the revision of this program's source."""

import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lora_distill.training.plan import processor

VERSIONED = ("lora-distill", "torch", "transformers", "peft", "accelerate", "datasets", "numpy", "scipy")
OF_EXPORTS = ("onnx", "onnxruntime", "tokenizers")  # beside these


def made_with(*beside: str) -> dict[str, Any]:
    """For a run's environment.json.

    Args:
        beside: packages whose versions are told beside those of VERSIONED.
    """
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONED + beside},
        "platform": platform.platform(),
        "processor": processor(),
        "git_revision": git_revision(),
    }


def git_revision() -> str | None:
    """The revision of this program's own source, where it runs from a clone; with changes it ends in `-dirty`."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    # Installed below somebody's own repository, the file is there but not in it.
    if shutil.which("git") is None or not git("ls-files", Path(__file__).name):
        return None
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
