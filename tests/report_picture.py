"""The pictures of the report in docs/, taken by the browser that the tests use, at the width of a desk and of a hand.

.venv/bin/python -m tests.report_picture outputs/lora_distillation/SUITE.html
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.picture import REPOSITORY

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZES = {"report.png": (1440, 900), "report-narrow.png": (390, 844)}


def take(browser: Browser, report: Path, folder: Path) -> None:
    """Write the first screen of a report, at each size.

    Args:
        browser: takes them.
        report: an HTML file.
        folder: of the pictures.
    """
    for name, (width, height) in SIZES.items():
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(report.resolve().as_uri())
        page.screenshot(path=folder / name)
        page.close()


if __name__ == "__main__":
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        take(opened, Path(sys.argv[1]), REPOSITORY / "docs")
        opened.close()
