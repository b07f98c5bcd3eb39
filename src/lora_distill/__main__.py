"""`lora-distill` and `python -m lora_distill`."""

import sys

from lora_distill.program import INTERRUPTED, stop_as_by_ctrl_c


def main() -> int:
    """Run the command line; also what stops it before that is loaded is told in a line."""
    try:
        stop_as_by_ctrl_c()
        from lora_distill.cli import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("error: stopped before anything was begun.\n")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
