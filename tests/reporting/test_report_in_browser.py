"""The report in headless Chromium, from disk, as a reader opens it."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, sync_playwright

from lora_distill.evidence import gather
from lora_distill.reporting.report import write_report
from tests.reporting.test_report import NASTY, finished_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of seven experiments, one of them with three seeds."""
    folder = tmp_path_factory.mktemp("runs")
    groups = {f"e{number}": [finished_run(folder, f"e{number}", 0, alpha=number / 10)] for number in range(6)}
    groups["seeds"] = [finished_run(folder, f"seeds-seed-{seed}", seed) for seed in range(3)]
    write_report(folder / "report.html", gather(groups), groups)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A page, and what it did that it must not."""

    def __init__(self, browser: Browser, path: Path, width: int) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.faults: list[str] = []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", lambda request: self._asks(request.url, path))
        self.page.goto(path.as_uri())

    def _dismiss(self, dialog: Dialog) -> None:
        self.faults.append(dialog.message)
        dialog.dismiss()

    def _asks(self, url: str, path: Path) -> None:
        if url.partition("#")[0] != path.as_uri():
            self.faults.append(f"asked for {url}")

    def names(self) -> list[str]:
        """The experiments that the table shows, in order."""
        return [cell.strip() for cell in self.page.locator("#table tbody tr:visible td:first-child").all_inner_texts()]


def test_it_sorts_filters_and_opens(browser: Browser, report: Path) -> None:
    opened = Opened(browser, report, 1440)
    page = opened.page
    assert "Was the distillation worth it?" in page.inner_text("h1")
    assert opened.names() == [*(f"e{number}" for number in range(6)), "seeds"]
    page.get_by_role("button", name="Seeds").click()
    page.get_by_role("button", name="Seeds").click()
    assert opened.names()[0] == "seeds"
    page.get_by_role("button", name="Experiment").focus()
    page.keyboard.press("Enter")
    assert opened.names()[0] == "e0"
    page.get_by_label("Show experiments with").fill("SEED")
    assert opened.names() == ["seeds"]
    page.get_by_text("Rows to read").first.click()
    assert page.get_by_text(NASTY).first.is_visible()
    assert opened.faults == []
    page.close()


@pytest.mark.parametrize("width", [390, 1440])
def test_it_fits_the_window(browser: Browser, report: Path, width: int) -> None:
    opened = Opened(browser, report, width)
    for details in opened.page.locator("summary").all():
        details.click()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.faults == []
    opened.page.close()


def test_two_hundred_runs_open_at_once(browser: Browser, tmp_path: Path) -> None:
    groups = {f"e{number}": [finished_run(tmp_path, f"e{number}", 0)] for number in range(200)}
    path = tmp_path / "report.html"
    write_report(path, gather(groups), groups)
    assert path.stat().st_size < 10_000_000
    started = time.monotonic()
    opened = Opened(browser, path, 1440)
    assert len(opened.names()) == 200
    assert opened.faults == []
    print(f"200 runs: {time.monotonic() - started:.1f} s, {path.stat().st_size:,} bytes")  # noqa: T201
    opened.page.close()
