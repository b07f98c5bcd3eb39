"""What the program is called with: its commands, and the flags of the one that is called, for others are not loaded."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from lora_distill import __version__
from lora_distill.errors import UserError
from lora_distill.program import program

COMMANDS = {
    "train": "one experiment: teacher, student and control",
    "suite": "the experiments of a file, one after the other or several at a time",
    "tune": "search settings on validation; the best is trained as one experiment",
    "plan": "what a suite would train, and what that takes; without one, the students that a budget allows",
    "evaluate": "judge a finished run on other labelled texts",
    "speed": "how fast a finished run's teacher and student answer on this machine",
    "predict": "label the texts of a file; called again after a kill it goes on",
    "export": "a finished run's model as a folder that opens elsewhere, and verified",
    "push": "a finished run's model to a hub, with its card and results",
    "show": "the results of a finished run, or of several",
    "compare": "finished runs side by side, those of one experiment over their seeds",
    "report": "one page of finished runs, to look at and to send",
    "serve": "a finished model behind a URL, with a page to try it",
    "cache": "what is kept to save time: list it, or clear it",
}


class Parser(argparse.ArgumentParser):
    """Argparse that raises instead of printing its usage, and knows no abbreviations."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments as a UserError."""
        message = message.replace("ignored explicit argument", "takes no value, but was given")
        raise UserError(f"{message}. See {self.prog} --help.")


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments, `command` among them.

    Raises:
        UserError: something is wrong with them.
    """
    parser = make_parser(next((each for each in argv if not each.startswith("-")), ""))
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        fault = _describe_unknown(unknown[0], flags_of(parser, arguments.command), arguments.command)
        raise UserError(f"{fault} See {parser.prog} {arguments.command} --help.")
    return arguments


def make_parser(called: str) -> Parser:
    """The parser of all commands, of which the one that is called has its flags."""
    parser = Parser(
        prog=program(),
        description="LoRA knowledge distillation for text classification: a small student under a hard budget of"
        " trainable parameters, and numbers that say whether it was worth it.",
    )
    parser.add_argument("--version", action="version", version=f"lora-distill {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, told in COMMANDS.items():
        command = commands.add_parser(name, help=told)
        if name == called:
            from lora_distill.flags import FLAGS

            FLAGS[name](command)
    return parser


def flags_of(parser: Parser, command: str) -> list[str]:
    """The flags of the command that the parser was made for."""
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return list(subparsers.choices[command]._option_string_actions)


def _describe_unknown(argument: str, known: list[str], command: str) -> str:
    """What is wrong with an argument that the command does not know."""
    if not argument.startswith("-"):
        if command == "train" and Path(argument).suffix in (".yaml", ".yml"):
            return f"{argument}: a suite is for `{program()} suite`, and settings are given with --config."
        return f"{argument}: one argument too many."
    from lora_distill.faults import suggest

    name = argument.partition("=")[0].lstrip("-")
    return f"{argument}: no such flag{suggest(name, [flag.lstrip('-') for flag in known], prefix='--') or '.'}"
