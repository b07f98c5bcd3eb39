"""The page in headless Chromium, given files: what comes back, and what of it when something is wrong."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from lora_distill.serving.app import create_app
from lora_distill.serving.settings import ServeSettings
from tests.report_picture import CHROMIUM
from tests.serving.fake import LABELS, FakeClassifier, label_of, served
from tests.serving.page import LIMITS, NASTY, Opened, saved, status, upload

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


def test_a_csv_comes_back_labelled(opened: Page) -> None:
    page = opened
    texts = [f"text {number}" for number in range(40)] + ['with "quotes", commas', "two\r\nlines", NASTY, "=1+1"]
    rows = [[str(number), text, "a, note" if number % 3 else ""] for number, text in enumerate(texts)]
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["id", "Text", "label"], *rows])
    upload(page, "my rows.csv", b"\xef\xbb\xbf" + file.getvalue().encode())
    assert page.get_by_label("Column of the texts", exact=True).locator("option:checked").inner_text() == "Text"
    page.get_by_role("button", name="Label it").click()
    status(page, "44 rows labelled.")
    header, *labelled = saved(page)
    probabilities = [f"probability_{label}" for label in LABELS]
    assert header == ["id", "Text", "label", "label_predicted", "confidence", *probabilities, "problem"]
    assert [row[:3] for row in labelled] == rows
    assert [row[3] for row in labelled] == [label_of(text) for text in texts]
    for row in labelled:
        assert float(row[4]) == max(map(float, row[5:8]))
        assert float(row[4]) == float(row[5 + LABELS.index(row[3])])
        assert row[8] == ""


def test_rows_that_cannot_be_labelled_keep_their_place_and_say_why(opened: Page) -> None:
    page = opened
    upload(page, "rows.csv", f"text;n\ngood;1\n{'long ' * 20};2\none\n;4;5;6\n\n ;6\nlast;7".encode())
    page.get_by_role("button", name="Label it").click()
    status(page, "2 rows labelled, 4 not, for the reason in the last column.")
    with page.expect_download() as download:
        page.get_by_role("link", name="Save").click()
    lines = Path(download.value.path()).read_text().splitlines()
    (header, *rows) = [list(row) for row in csv.reader(lines, delimiter=";")]
    assert header[:3] == ["text", "n", "label"]
    assert [row[2] for row in rows] == [label_of("good"), "", "", "", "", label_of("last")]
    assert [row[-1] for row in rows] == [
        "",
        "has more than 60 characters",
        "has 1 cells where the header has 2: one",
        "has 4 cells where the header has 2: ;4;5;6",
        "has no text",
        "",
    ]


@pytest.mark.parametrize(
    ("end", "told", "done"),
    [
        (b"\xff\n", "The file is not UTF-8.", 0),  # of the piece that the browser gives
        (b'"open\n', "The file ends within quotes.", LIMITS["max_texts"]),
    ],
)
def test_a_file_that_breaks_off_gives_what_was_done(opened: Page, end: bytes, told: str, done: int) -> None:
    texts = [f"text {number}" for number in range(10)]
    upload(opened, "rows.csv", "\n".join(["text", *texts, ""]).encode() + end)
    opened.get_by_role("button", name="Label it").click()
    opened.get_by_role("alert").filter(has_text=told).wait_for()
    status(opened, f"Ended early: {done} rows labelled.")
    if done:
        assert [row[:2] for row in saved(opened)[1:]] == [[text, label_of(text)] for text in texts[:done]]
    else:
        assert opened.get_by_role("link", name="Save").is_hidden()


LABEL = """async text => {
  const { headerOf, labelFile } = await import("/page/file.js");
  const file = new File([text], "rows.csv"), model = await (await fetch("/v1/model")).json();
  const asked = { file, ...(await headerOf(file)), columns: [0], model, signal: new AbortController().signal };
  const { parts, rows } = await labelFile({ ...asked, told: () => {} });
  return [rows, parts.length, parts.every(each => each instanceof Blob), await new Blob(parts).text()];
}"""


def test_what_is_labelled_is_the_browser_s_to_keep(opened: Page) -> None:
    rows, parts, are_blobs, text = opened.evaluate(LABEL, "text\n" + "a\n" * 15)
    assert (rows, parts, are_blobs) == (15, 4, True)
    assert [line.split(",")[:2] for line in text.splitlines()[1:]] == [["a", label_of("a")]] * 15


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ('"one, two, three";text\n', ";"),
        ('text;"one, two, three"\n', ";"),
        ('"one ""and, or,"" two"\ttext\n', "\t"),
        ('"two\nlines;;",a,text\n', ","),
        ('5" wide;text\n1;"x, y, z"\n', ";"),
        ('"text"\n"a;b"\n', ","),
        ("text,n\n", ","),
    ],
)
def test_the_separator_is_looked_for_outside_of_quotes(opened: Page, header: str, separator: str) -> None:
    script = 'async text => (await import("/page/csv.js")).separatorOf(text)'
    assert opened.evaluate(script, header) == separator


def test_a_file_without_rows(opened: Page) -> None:
    upload(opened, "rows.csv", b"")
    opened.get_by_role("alert").filter(has_text="The file has no header").wait_for()
    upload(opened, "rows.csv", b"text\n")
    opened.get_by_role("button", name="Label it").click()
    status(opened, "0 rows labelled.")


PARSE = """async ([text, size]) => {
  const { Reader, separatorOf, lineOf } = await import("/page/csv.js");
  const reader = new Reader(separatorOf(text)), rows = [];
  for (let at = 0; at < text.length; at += size) rows.push(...reader.read(text.slice(at, at + size)));
  return [...rows, ...reader.finish()];
}"""


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_is_read_as_python_reads_it_however_it_is_cut(opened: Page, end: str) -> None:
    cells = ["", "a", 'a"b', '"', '""', "a,b", "a\nb", "a\r\nb", "\r", " a ", "\n", ",", '",\n"', "é😀", "a;b;c"]
    rows = [[first, second, "x"] for first in cells for second in cells] + [["only"], ["", ""]]
    file = io.StringIO(newline="")
    # Else csv leaves ends of lines unquoted, of other kinds than its own.
    csv.writer(file, lineterminator=end, quoting=csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL).writerows(rows)
    text = file.getvalue()
    for size in (1, 2, 3, 7, len(text)):
        assert opened.evaluate(PARSE, [text, size]) == rows
    assert opened.evaluate(PARSE, [text.removesuffix(end), 5]) == rows
    assert opened.evaluate(PARSE, [f'a{end}{end}""{end}b', 3]) == [["a"], [""], ["b"]]
    for size in (1, 6, 99):  # broken, but the same wherever a piece ends
        assert opened.evaluate(PARSE, [f'"abc"d"x,2{end}k,3{end}', size]) == [['abcd"x', "2"], ["k", "3"]]


def test_a_busy_server_is_asked_again_and_a_stop_keeps_what_was_done(browser: Browser) -> None:
    classifier, settings = FakeClassifier(), ServeSettings(**LIMITS)
    with served(create_app(classifier, settings), settings) as url:
        shown = Opened(browser, url, 1440)
        page, answers = shown.page, iter([429, 503])

        def refuse(route: Any, request: Any) -> None:  # noqa: ANN401 - Playwright's
            refused = next(answers, None)
            if refused:
                route.fulfill(status=refused, headers={"Retry-After": "1"}, body=json.dumps({"error": "busy"}))
            else:
                route.continue_()

        page.route("**/v1/classify", refuse)
        page.goto(f"{url}/")
        upload(page, "rows.csv", b"text\n" + b"".join(b"text %d\n" % number for number in range(30)))
        page.get_by_role("button", name="Label it").click()
        status(page, "30 rows labelled.")
        assert [row[1] for row in saved(page)[1:]] == [label_of(f"text {number}") for number in range(30)]

        classifier.go.clear()
        page.get_by_role("button", name="Label it").click()
        page.get_by_role("button", name="Stop").click()
        status(page, "Ended early: 0 rows labelled.")
        classifier.go.set()
        assert [fault for fault in shown.faults if "429" not in fault and "503" not in fault] == []
        page.close()


def test_a_slow_server_is_asked_for_fewer_and_a_row_that_is_too_large_says_so(browser: Browser) -> None:
    settings = ServeSettings(**LIMITS)
    with served(create_app(FakeClassifier(), settings), settings) as url:
        page, asked = Opened(browser, url, 1440).page, list[int]()

        def refuse(route: Any, request: Any) -> None:  # noqa: ANN401 - Playwright's
            texts = json.loads(request.post_data)["texts"]
            asked.append(len(texts))
            if len(texts) > 2 or (len(texts) == 2 and "large" in texts):
                route.fulfill(status=503, headers={"Retry-After": "1"}, body=json.dumps({"error": "slow"}))
            elif "large" in texts:
                route.fulfill(status=413, body=json.dumps({"error": "large"}))
            else:
                route.continue_()

        page.route("**/v1/classify", refuse)
        page.goto(f"{url}/")
        texts = [f"text {number}" for number in range(12)]
        texts[7] = "large"
        upload(page, "rows.csv", "\n".join(["text", *texts]).encode())
        page.get_by_role("button", name="Label it").click()
        status(page, "11 rows labelled, 1 not, for the reason in the last column.")
        rows = saved(page)[1:]
        assert [row[0] for row in rows] == texts
        assert [row[1] for row in rows] == [label_of(text) if text != "large" else "" for text in texts]
        assert rows[7][-1] == "large"
        assert asked[:3] == [7, 4, 2]
        assert max(asked[2:]) == 2
        page.close()


def test_a_file_that_is_dropped_while_another_is_labelled_changes_nothing(browser: Browser) -> None:
    def drop(name: str, content: str) -> None:
        made = "([name, text]) => { const d = new DataTransfer(); d.items.add(new File([text], name)); return d; }"
        page.dispatch_event("#drop", "drop", {"dataTransfer": page.evaluate_handle(made, [name, content])})

    def comes_back_as(name: str) -> list[str]:
        with page.expect_download() as download:
            page.get_by_role("link", name=f"Save {name}").click()
        assert download.value.suggested_filename == name
        return Path(download.value.path()).read_text().splitlines()

    classifier, settings = FakeClassifier(), ServeSettings(**LIMITS)
    with served(create_app(classifier, settings), settings) as url:
        shown = Opened(browser, url, 1440)
        page = shown.page
        page.goto(f"{url}/")
        page.get_by_text("model mine").wait_for()
        drop("first.rows.csv", "text,n\na,1\n")
        classifier.go.clear()
        page.get_by_role("button", name="Label it").click()
        page.get_by_role("progressbar").wait_for()
        drop("second.tsv", "n\ttext\n2\tb\n")
        assert page.get_by_role("progressbar").is_visible()
        classifier.go.set()
        assert comes_back_as("first.rows-labelled.csv")[1].startswith(f"a,1,{label_of('a')},")

        drop("second.tsv", "n\ttext\n2\tb\n")
        status(page, "second.tsv: 2 columns.")
        page.get_by_role("button", name="Label it").click()
        assert comes_back_as("second-labelled.tsv")[1].startswith(f"2\tb\t{label_of('b')}\t")
        assert shown.faults == []
        page.close()
