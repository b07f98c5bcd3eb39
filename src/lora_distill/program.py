"""How this program is called, for hints that can be copied, what it exits with, and what stops it."""

import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

PARENT = "LORA_DISTILL_PARENT"  # environment variable: the process that waits for this one
OK, SOME_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130  # exit codes

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def program() -> str:
    """The shortest that calls this very installation from the working directory, quoted for a shell."""
    script = Path(sys.executable).with_name("lora-distill")
    if not script.is_file():
        return "python -m lora_distill"
    found = shutil.which(script.name)
    if found and Path(found).samefile(script):
        return script.name
    return shlex.quote(min(os.path.relpath(script), str(script), key=len))


def stop_as_by_ctrl_c() -> None:
    """Let a kill, a closed terminal, and on Linux the death of who launched it, raise KeyboardInterrupt, too."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # not every system has both
        if number and signal.getsignal(number) is signal.SIG_DFL:  # nohup's stays
            signal.signal(number, signal.default_int_handler)
    parent = os.environ.pop(PARENT, None)
    if parent and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it died before that was asked for
            raise KeyboardInterrupt
