"""The command line: which command is called, and what is said of what went wrong."""

import argparse
import errno
import io
import os
import sys
from contextlib import suppress

from lora_distill.errors import UserError
from lora_distill.hub import quiet as quiet_libraries
from lora_distill.parser import parse
from lora_distill.printing import say_error
from lora_distill.program import INTERRUPTED, OK, WRONG_INPUT, install
from lora_distill.progress import log_to_terminal


def main(argv: list[str] | None = None) -> int:
    """Run a command and return the exit code: 0 done, 1 some experiments failed, 2 wrong input, 130 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a letter shows a question mark
    arguments = argparse.Namespace(command=None)
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        log_to_terminal(quiet=getattr(arguments, "quiet", False))
        quiet_libraries()
        from lora_distill.commands import COMMANDS  # not for --help, which is to come at once

        return COMMANDS[arguments.command](arguments)
    except UserError as error:
        say_error(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "lora_distill":
            raise
        say_error(f"the package {error.name} is not installed. Install it: {install('train')}")
    except BrokenPipeError:  # whoever read has left; what is written into files is written by now
        with suppress(io.UnsupportedOperation):  # it is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python says so at its end
        return OK
    except OSError as error:
        if not (advice := _USERS_TO_MEND.get(error.errno or 0)):
            raise
        place = _PLACES.get(arguments.command, "--output_dir")
        where = f"{error.filename}: " if error.filename else ""
        say_error(f"{where}{error.strerror}. {advice.format(place=place)}{_way_on(error)}")
    except KeyboardInterrupt as error:
        say_error(f"stopped{_left(error, arguments.command)}")
        return INTERRUPTED
    return WRONG_INPUT


# The flag that says where a command writes: `place` in what follows.
_PLACES = {"report": "--output or --figures", "export": "--output", "push": "--output", "predict": "--output"}
_USERS_TO_MEND = {
    errno.ENOSPC: "Free some room on the disk.",
    errno.EDQUOT: "Free some of your quota.",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f).",
    errno.EACCES: "Give another {place}, or mend the permissions.",
    errno.EPERM: "Give another {place}, or mend the permissions.",
    errno.EROFS: "Give another {place}: that file system cannot be written.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.EEXIST: "Give another {place}, or move it away.",
    errno.EISDIR: "Give another {place}, or move it away.",
    errno.ENOENT: "Put it there, or give another {place}.",
    errno.ENOTDIR: "Give another {place}, or move it away.",
    errno.ELOOP: "Give another {place}: that one is a link to itself.",
}


def _left(error: KeyboardInterrupt, command: str | None) -> str:
    """What a command that was stopped leaves, as the end of a sentence on that."""
    if way_on := _way_on(error):
        return f". What was trained up to the last whole epoch is kept.{way_on}"
    return " before the training began." if command in {"train", "suite", "tune"} else "."


def _way_on(error: BaseException) -> str:
    """How to go on, from whoever knew it last and so knew most; empty where nothing was begun."""
    notes: list[str] = getattr(error, "__notes__", [])
    return f"\n{notes[-1]}" if notes else ""
