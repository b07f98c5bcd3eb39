"""What the tests of the page share: the page as it was opened, and what is done on it."""

import csv
import io
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request

KEY, CARD = "s3cret", "# Card\n<script>alert(1)</script>"
NASTY = "<img src=x onerror=alert(1)> & \u202e"
LIMITS: dict[str, Any] = {"max_texts": 7, "max_characters": 60, "max_body": 2000, "max_queue": 8}


class Opened:
    """A page, and what it did that it must not."""

    def __init__(self, browser: Browser, url: str, width: int, scheme: Literal["light", "dark"] = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.faults: list[str] = []
        self._url = url
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", self._asks)

    def _said(self, message: ConsoleMessage) -> None:
        if "Password forms" not in message.text:  # advice: a form for a key has no name of a user
            self.faults.append(message.text)

    def _dismiss(self, dialog: Dialog) -> None:
        self.faults.append(dialog.message)
        dialog.dismiss()

    def _asks(self, request: Request) -> None:
        if not request.url.startswith((f"{self._url}/", "blob:", "data:")):
            self.faults.append(f"asked for {request.url}")


def upload(page: Page, name: str, content: bytes) -> None:
    page.get_by_label("A CSV file").set_input_files({"name": name, "mimeType": "text/csv", "buffer": content})


def status(page: Page, told: str) -> None:
    page.get_by_role("status").filter(has_text=told).wait_for()


def saved(page: Page) -> list[list[str]]:
    """The rows of the file that the page gives back."""
    with page.expect_download() as download:
        page.get_by_role("link", name="Save").click()
    text = Path(download.value.path()).read_bytes().decode()
    return list(csv.reader(io.StringIO(text, newline="")))
