"""The report in headless Chromium, from disk, as a reader opens it."""

import struct
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Dialog, Page

from lora_distill.evidence import gather
from lora_distill.reporting.report import write_report
from tests.picture import REPOSITORY
from tests.report_picture import CHROMIUM, SIZES, take
from tests.reporting.test_report import NASTY, finished_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of seven experiments, one of them with three seeds."""
    folder = tmp_path_factory.mktemp("runs")
    groups = {f"e{number}": [finished_run(folder, f"e{number}", 0, alpha=number / 10)] for number in range(6)}
    groups["seeds"] = [finished_run(folder, f"seeds-seed-{seed}", seed) for seed in range(3)]
    write_report(folder / "report.html", gather(groups), groups)
    return folder / "report.html"


class Opened:
    """A page, and what it did that it must not."""

    def __init__(self, browser: Browser, path: Path, width: int, scheme: Literal["light", "dark"] = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
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
        return self.page.locator("#table tbody tr:visible th a").all_inner_texts()


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
    page.get_by_label("Show experiments with").fill("SEEDS")
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


def test_two_experiments_are_compared_by_keyboard(browser: Browser, report: Path) -> None:
    opened = Opened(browser, report, 1440)
    page = opened.page
    lines = page.locator("#differences tbody tr")
    assert lines.first.locator("th, td").all_inner_texts() == ["alpha", "0.0", "0.1"]
    first, second = (page.get_by_label(name, exact=False).and_(page.locator("select")) for name in ("First", "Second"))
    second.focus()
    page.keyboard.type("seeds")
    assert second.locator("option:checked").inner_text() == "seeds"
    assert page.locator("#differences thead th").all_inner_texts() == ["", "e0", "seeds"]
    assert "student: accuracy" in lines.locator("th[scope=row]").all_inner_texts()
    first.select_option("seeds")
    assert lines.count() == 0
    second.select_option("seeds-seed-1")
    assert lines.first.locator("th, td").all_inner_texts() == ["seeds", "0, 1, 2", "1"]
    assert opened.faults == []
    page.close()


# Of every element with text of its own: its colour and what lies behind it, as the browser mixes them.
COLOURS = """() => {
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d", {willReadFrequently: true});
  const mix = layers => {
    context.clearRect(0, 0, 1, 1);
    for (const layer of layers) { context.fillStyle = layer; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const behind = element => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) layers.unshift(getComputedStyle(each).backgroundColor);
    return ["white", ...layers];
  };
  const told = [], seen = new Set();
  const tell = (kind, element, colour) => {
    const back = behind(element), key = [kind, colour, ...back].join();
    if (!seen.has(key)) told.push([kind, element.outerHTML.slice(0, 80), mix([...back, colour]), mix(back)]);
    seen.add(key);
  };
  for (const element of document.body.querySelectorAll("*")) {
    const style = getComputedStyle(element), svg = element instanceof SVGElement;
    const speaks = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (speaks && !["SCRIPT", "title"].includes(element.tagName)) tell("text", element, svg ? style.fill : style.color);
    if (element.matches("svg .mark, .key")) tell("mark", element, svg ? style.fill : style.color);
    if (element.matches("svg .line, svg .axis, svg .interval")) tell("mark", element, style.stroke);
    if (element.matches(".bar, input, select")) tell("mark", element.parentElement, style.borderTopColor);
    if (element.matches(".bar span")) tell("mark", element.parentElement, style.backgroundColor);
  }
  return told;
}"""


def luminance(colour: list[int]) -> float:
    """Relative luminance of sRGB (WCAG 2.2)."""
    red, green, blue = (c / 12.92 if (c := part / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for part in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def faint(page: Page) -> list[tuple[Any, ...]]:
    """What has less contrast than WCAG's level AA asks of text (4.5) and of marks (3)."""
    found = []
    for kind, element, colour, back in page.evaluate(COLOURS):
        darker, lighter = sorted((luminance(colour), luminance(back)))
        contrast = (lighter + 0.05) / (darker + 0.05)
        if contrast < (4.5 if kind == "text" else 3):
            found.append((round(contrast, 2), kind, element, colour, back))
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_can_be_told_from_what_is_behind_it(
    browser: Browser, report: Path, scheme: Literal["light", "dark"]
) -> None:
    opened = Opened(browser, report, 1440, scheme)
    assert len(opened.page.evaluate(COLOURS)) > 20
    assert faint(opened.page) == []
    opened.page.add_style_tag(content=".faint { color: #999; background: #777 } .mark { fill: #888 !important }")
    assert {kind for _, kind, *_ in faint(opened.page)} >= {"text"}
    opened.page.close()


@pytest.mark.parametrize("width", [width for width, _ in SIZES.values()])
def test_the_first_screen_has_the_verdict_and_the_table(browser: Browser, report: Path, width: int) -> None:
    opened = Opened(browser, report, width)
    seen = opened.page.evaluate("""() => ["header", "#table thead", "#table tbody tr"].map(
        each => document.querySelector(each).getBoundingClientRect().bottom <= innerHeight)""")
    assert seen == [True, True, True]
    if width > 1000:
        plot = opened.page.locator("svg").first.bounding_box()
        assert plot
        assert plot["y"] < 900
    opened.page.close()


def test_pictures_are_taken_at_both_sizes(browser: Browser, report: Path, tmp_path: Path) -> None:
    take(browser, report, tmp_path)
    for name, size in SIZES.items():
        assert struct.unpack(">II", (tmp_path / name).read_bytes()[16:24]) == size  # PNG's header
        assert (REPOSITORY / "docs" / name).is_file()


def test_what_is_printed_is_all_there(browser: Browser, report: Path) -> None:
    opened = Opened(browser, report, 718)  # A4 within margins of a centimetre
    opened.page.emulate_media(media="print")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.page.get_by_text(NASTY).first.is_visible()
    assert opened.page.locator("details:not([open])").count() == 0
    assert opened.page.locator(".choose").first.is_hidden()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 718
    opened.page.close()


def test_a_page_of_two_hundred_runs_is_whole_and_small(browser: Browser, tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, f"run-{number}", 0, alpha=number / 10) for number in range(10)]
    groups = {f"e{number}": [runs[number % 10]] for number in range(200)}
    path = tmp_path / "report.html"
    write_report(path, gather(groups), groups)
    assert path.stat().st_size < 10_000_000
    started = time.monotonic()
    opened = Opened(browser, path, 1440)
    assert len(opened.names()) == 200
    assert opened.faults == []
    elements = opened.page.locator("*").count()
    assert elements < 200_000  # these take the time to open it, which is told for this machine and not judged
    print(f"200 runs: {time.monotonic() - started:.1f} s, {path.stat().st_size:,} bytes, {elements:,} elements")  # noqa: T201
    opened.page.close()
