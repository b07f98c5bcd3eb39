"""The command line: which command is called, and what is said of what went wrong."""

import argparse
import errno
import io
import sys

from lora_distill.commands import COMMANDS
from lora_distill.errors import UserError
from lora_distill.flags import describe_unknown, make_parser
from lora_distill.hub import quiet as quiet_libraries
from lora_distill.printing import say_error
from lora_distill.program import INTERRUPTED, WRONG_INPUT, install
from lora_distill.progress import log_to_terminal


def main(argv: list[str] | None = None) -> int:
    """Run a command and return the exit code: 0 done, 1 some experiments failed, 2 wrong input, 130 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a letter shows a question mark
    arguments = argparse.Namespace(command=None)
    try:
        arguments = _parse(sys.argv[1:] if argv is None else argv)
        return COMMANDS[arguments.command](arguments)
    except UserError as error:
        say_error(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "lora_distill":
            raise
        say_error(f"the package {error.name} is not installed. Install it: {install('train')}")
    except OSError as error:
        if error.errno not in _USERS_TO_MEND:
            raise
        say_error(_refused(error, arguments.command))
    except KeyboardInterrupt as error:
        say_error(f"stopped{_left(error, arguments.command)}")
        return INTERRUPTED
    return WRONG_INPUT


# `place` is the flag that says where this command writes.
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


def _refused(error: OSError, command: str | None) -> str:
    """What the system refused, and what to do about it."""
    place = {"report": "--output or --figures", "export": "--output", "push": "--output", "predict": "--output"}
    where = f"{error.filename}: " if error.filename else ""
    advice = _USERS_TO_MEND[error.errno].format(place=place.get(command or "", "--output_dir"))
    return f"{where}{error.strerror}. {advice}{_way_on(error)}"


def _left(error: KeyboardInterrupt, command: str | None) -> str:
    """What a command that was stopped leaves, as the end of a sentence on that."""
    if way_on := _way_on(error):
        return f". What was trained up to the last whole epoch is kept.{way_on}"
    return " before the training began." if command in {"train", "suite", "tune"} else "."


def _way_on(error: BaseException) -> str:
    """How to go on, from whoever knew it last and so knew most; empty where nothing was begun."""
    notes: list[str] = getattr(error, "__notes__", [])
    return f"\n{notes[-1]}" if notes else ""


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = make_parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        fault = describe_unknown(unknown[0], parser, arguments.command)
        raise UserError(f"{fault} See {parser.prog} {arguments.command} --help.")
    log_to_terminal(quiet=getattr(arguments, "quiet", False))
    quiet_libraries()
    return arguments
