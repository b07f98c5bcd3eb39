"""`python -m lora_distill`."""

import sys

from lora_distill.cli import main

sys.exit(main())
