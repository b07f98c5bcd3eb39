"""The page in headless Chromium, asked of a real server, at the width of a desk and of a hand."""

from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from lora_distill.serving.app import create_app
from lora_distill.serving.settings import ServeSettings
from tests.report_picture import CHROMIUM
from tests.reporting.test_report_in_browser import faint
from tests.serving.fake import FakeClassifier, label_of, served
from tests.serving.page import CARD, KEY, LIMITS, NASTY, Opened, saved, status, upload

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


def test_texts_are_classified_by_keyboard_alone(opened: Page) -> None:
    page, texts = opened, [f"text {number}" for number in range(15)] + [NASTY]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "texts"
    page.keyboard.insert_text("\n".join(texts) + "\n\n")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    status(page, "16 texts: ")
    assert page.locator("#answers .text").all_inner_texts() == texts
    assert page.locator("#answers dt.first").all_inner_texts() == [label_of(text) for text in texts]
    shares = [
        float(share.rstrip("%")) for share in page.locator("#answers li:first-child dd:nth-child(3n)").all_inner_texts()
    ]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    widths = page.locator("#answers li:first-child .bar span").evaluate_all("all => all.map(each => each.style.width)")
    assert [float(width.rstrip("%")) for width in widths] == shares
    page.get_by_label("Texts, one a line").fill("alone")
    page.keyboard.press("Control+Enter")
    status(page, f"1 text: {label_of('alone')}, ")
    page.get_by_label("Texts, one a line").fill(" ")
    page.keyboard.press("Control+Enter")
    assert page.get_by_role("alert").inner_text() == "Enter a text first."


def test_it_tells_what_answers(opened: Page) -> None:
    page = opened
    page.get_by_text("model mine · accuracy 93.1% on its test split · labels: Sports, World, <b>Science</b>").wait_for()
    page.get_by_text("Model card").click()
    assert page.locator("#card-text").inner_text() == CARD


def test_pairs_are_entered_in_two_boxes_and_read_from_two_columns(browser: Browser) -> None:
    classifier, settings = FakeClassifier(pairs=True), ServeSettings(**LIMITS)
    with served(create_app(classifier, settings), settings) as url:
        shown = Opened(browser, url, 390)
        page = shown.page
        page.goto(f"{url}/")
        second = page.get_by_label("The texts beside them, one a line")
        second.wait_for()
        page.get_by_label("Texts, one a line").fill(f"one\n\n{NASTY}\nthree")
        second.fill("first\n\nsecond\n")
        page.get_by_role("button", name="Classify").click()
        page.get_by_role("alert").filter(has_text="Line 4 has one text; this model reads pairs.").wait_for()
        second.fill("first\n\nsecond\nthird")
        second.press("Control+Enter")
        status(page, "3 pairs: ")
        pairs = [("one", "first"), (NASTY, "second"), ("three", "third")]
        assert page.locator("#answers .text").all_inner_texts() == [text for pair in pairs for text in pair]
        assert page.locator("#answers dt.first").all_inner_texts() == [label_of(pair) for pair in pairs]

        rows = [(f"b {number}", str(number), f"a {number}") for number in range(20)] + [("x" * 61, "20", "a")]
        lines = [",".join(row) for row in [("other", "id", "text"), *rows]]
        upload(page, "rows.csv", "\n".join(lines).encode())
        second_column = page.get_by_label("Column of the texts beside them")
        expect(second_column).to_have_value("0")  # no name says so, but the first one is another
        second_column.select_option("text")
        page.get_by_role("button", name="Label it").click()
        page.get_by_role("alert").filter(has_text="Choose two columns: this model reads pairs.").wait_for()
        second_column.select_option("other")
        page.get_by_role("button", name="Label it").click()
        status(page, "20 rows labelled, 1 not")
        labelled = saved(page)[1:]
        assert [row[3] for row in labelled] == [*(label_of((text, other)) for other, _, text in rows[:20]), ""]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("main").evaluate(UNNAMED) == []
        assert shown.faults == []
        page.close()


def test_of_single_texts_there_is_one_box(opened: Page) -> None:
    opened.get_by_text("model mine").wait_for()
    upload(opened, "rows.csv", b"text\na\n")
    opened.get_by_label("Column of the texts", exact=True).wait_for()
    assert opened.locator(".pair").evaluate_all("all => all.map(each => each.checkVisibility())") == [False, False]


def test_a_key_is_asked_for(browser: Browser) -> None:
    settings = ServeSettings()
    with served(create_app(FakeClassifier(), settings, key=KEY), settings) as url:
        page = browser.new_page()
        page.goto(f"{url}/")
        key = page.get_by_label("This server asks for a key")
        key.wait_for()
        assert page.evaluate("document.activeElement.id") == "key"
        key.fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_role("alert").filter(has_text="That is not the server's key.").wait_for()
        key.fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_text("model mine").wait_for()
        assert key.is_hidden()
        page.get_by_label("Texts, one a line").fill("a")
        page.get_by_role("button", name="Classify").click()
        status(page, "1 text: ")
        page.close()


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_and_can_be_read(
    browser: Browser, url: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    shown = Opened(browser, url, width, scheme)
    page = shown.page
    page.goto(f"{url}/")
    page.get_by_label("Texts, one a line").fill(f"a\n{'long' * 15}\n{NASTY}")
    page.get_by_role("button", name="Classify").click()
    status(page, "3 texts: ")
    upload(page, f"{'name' * 30}.csv", b"a column of a rather long name which goes on,text\n1,2\n")
    page.get_by_role("button", name="Label it").click()
    status(page, "1 row labelled.")
    page.get_by_text("Model card").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert faint(page) == []
    assert page.locator("main").evaluate(UNNAMED) == []
    assert shown.faults == []
    page.close()


UNNAMED = """main => [...main.querySelectorAll("input, textarea, select, progress")].filter(
  each => !each.labels.length && !each.ariaLabel).map(each => each.outerHTML)"""


@pytest.mark.parametrize("key", ["", KEY])
def test_the_documentation_asks_no_other_machine_and_can_be_tried(browser: Browser, key: str) -> None:
    settings = ServeSettings()
    with served(create_app(FakeClassifier(), settings, key=key), settings) as url:
        shown = Opened(browser, url, 1440)
        page = shown.page
        page.goto(f"{url}/docs")
        page.get_by_text("/v1/classify").click()
        if key:
            page.get_by_role("button", name="Authorize").click()
            page.locator("input[aria-label='auth-bearer-value']").fill(key)
            page.get_by_role("button", name="Apply credentials").click()
            page.get_by_role("button", name="Close").click()
        page.get_by_role("button", name="Try it out").click()
        page.locator(".body-param textarea").fill('{"text": "a"}')
        page.get_by_role("button", name="Execute").click()
        page.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
        assert shown.faults == []
        page.close()
