"""The README's picture of the result table, drawn from the quickstart's own results.

./scripts/run_lora_distillation.sh && .venv/bin/python -m tests.picture
"""

import io
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from lora_distill.reporting.tables import results_table
from lora_distill.run_folder import RunFolder
from lora_distill.suite import read_suite

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURE = REPOSITORY / "docs" / "quickstart.svg"
WIDTH = 90


def draw(results: list[dict[str, Any]]) -> str:
    """The table as an SVG that asks no other machine for a font."""
    console = Console(record=True, file=io.StringIO(), width=WIDTH)
    console.print(results_table(results))
    svg = console.export_svg(title="./scripts/run_lora_distillation.sh", unique_id="quickstart")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def quickstart_results(folder: Path) -> list[dict[str, Any]]:
    """metrics.json of each experiment, in the suite's order.

    Args:
        folder: that the suite was run in.
    """
    experiments = read_suite(REPOSITORY / "configs" / "quickstart.yaml", {}, {}).runs.values()
    return [RunFolder(folder / config.output_dir / config.exp_name).results() for config in experiments]


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(quickstart_results(Path())), encoding="utf-8")
