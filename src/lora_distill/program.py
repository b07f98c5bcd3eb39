"""How this program is called, for hints that can be copied, what it exits with, and what stops it."""

import json
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

PACKAGE = "lora-distill"
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


def install(extra: str) -> str:
    """The command that adds an extra to this very installation, quoted for a shell.

    Where it was installed from a folder, which its direct_url.json then says (PEP 610), the extra comes from there.
    """
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        origin = json.loads(distribution(PACKAGE).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # run from its sources
        origin = {}
    source, options = PACKAGE, ""
    if "dir_info" in origin and (folder := url2pathname(urlsplit(origin["url"]).path)) and Path(folder).is_dir():
        source, options = folder, "-e " if origin["dir_info"].get("editable") else ""
    pip = shutil.which("pip")
    is_ours = pip and Path(pip).parent.resolve() == Path(sys.executable).parent.resolve()
    program = "pip" if is_ours else f"{shlex.quote(sys.executable)} -m pip"
    return f"{program} install {options}{shlex.quote(f'{source}[{extra}]')}"


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
