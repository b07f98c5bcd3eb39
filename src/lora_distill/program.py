"""How this program is called, for hints that can be copied, and what it exits with."""

import os
import shlex
import shutil
import sys
from pathlib import Path

OK, SOME_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130  # exit codes


def program() -> str:
    """The shortest that calls this very installation from the working directory, quoted for a shell."""
    script = Path(sys.executable).with_name("lora-distill")
    if not script.is_file():
        return "python -m lora_distill"
    found = shutil.which(script.name)
    if found and Path(found).samefile(script):
        return script.name
    return shlex.quote(min(os.path.relpath(script), str(script), key=len))
