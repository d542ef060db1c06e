"""A Chromium that is installed on the machine, and what a person does on the pages with it."""

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP: Final = {"width": 1200, "height": 900}
PHONE: Final = {"width": 390, "height": 844}
TIMEOUT_MS: Final = 20_000
SCAN_TIMEOUT_MS: Final = 240_000

MAKE_TRANSFER: Final = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  return transfer;
}"""


def find_chromium() -> str | None:
    """Return the path of an installed Chromium, or None. Playwright would download one, which tests do not."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def running_chromium(path: str) -> Iterator[Browser]:
    """Run the Chromium at *path* without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """A page in a profile of its own, with what went wrong on it and what it requested."""

    page: Page
    problems: list[str] = field(default_factory=list)
    """Errors and warnings of the console, such as breaches of the Content-Security-Policy, and uncaught exceptions."""
    requested: list[str] = field(default_factory=list)
    """Paths of requests."""


@contextmanager
def opened_tab(browser: Browser, **options: Any) -> Iterator[Tab]:
    """Open a tab with playwright's *options* of a context, such as ``viewport``; a dialog counts as a problem."""
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    context.set_default_timeout(TIMEOUT_MS)
    tab = Tab(context.new_page())

    def note_dialog(dialog: Any) -> None:
        tab.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def note_message(message: Any) -> None:
        if message.type in {"error", "warning"}:
            tab.problems.append(message.text)

    tab.page.on("console", note_message)
    tab.page.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.page.on("dialog", note_dialog)
    tab.page.on("request", lambda request: tab.requested.append(urlsplit(request.url).path))
    try:
        yield tab
    finally:
        context.close()


def enter_key(page: Page, url: str, key: str) -> None:
    """Open the list of jobs at *url* and type the API key in."""
    page.goto(url)
    page.fill("#key", key)
    page.click("text=Use this key")
    page.wait_for_selector("#work:not([hidden])")


def drop_file(page: Page, name: str, content: bytes) -> None:
    """Drop a file on the list of jobs, and wait until the service has accepted it."""
    transfer = page.evaluate_handle(MAKE_TRANSFER, [name, base64.b64encode(content).decode()])
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    page.wait_for_selector("#message:has-text('is being analysed')")


def open_newest_report(page: Page) -> None:
    """Open the report of the job at the top of the list."""
    page.click("#jobs tr:first-child button")
    page.wait_for_url("**/report?**")


def wait_for_result(page: Page, timeout_ms: float = SCAN_TIMEOUT_MS) -> None:
    """Wait until a report that is live shows the result."""
    page.wait_for_selector("#report[data-final=yes]", timeout=timeout_ms)


def wait_for_faces(page: Page) -> None:
    """Wait until every face of a report has been cut out of the media."""
    for number in range(page.locator(".face").count()):
        page.wait_for_selector(f".face[data-drawn] >> nth={number}")
