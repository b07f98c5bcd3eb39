"""The commands that take a finished model: to serve it."""

import argparse
import sys

from lora_distill.config import make_settings
from lora_distill.errors import UserError
from lora_distill.flags import given
from lora_distill.printing import print_lines, say_error
from lora_distill.program import INTERRUPTED, OK
from lora_distill.serving.settings import ServeSettings


def serve(arguments: argparse.Namespace) -> int:
    """A model behind a URL, until it is stopped."""
    settings = make_settings(ServeSettings, *given(arguments, ServeSettings))
    try:
        from lora_distill.serving.server import serve
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name} is not installed. Install it: pip install 'lora-distill[serve]'"
        ) from None

    def announce(url: str) -> None:
        print_lines(f"Serving {arguments.model} at {url}   (Ctrl-C stops it)")
        sys.stdout.flush()  # whoever reads a pipe waits for it

    try:
        serve(arguments.model, settings, announce)
    except KeyboardInterrupt:
        say_error("stopped before it served.")
        return INTERRUPTED
    return OK
