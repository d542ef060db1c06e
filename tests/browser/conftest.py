"""Fixtures: an installed Chromium, and the demonstration's swapped video scanned through the pages by it."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from api.embedded.demo_videos import make_demo_videos
from api.embedded.stack import EmbeddedStack
from tests.browser.chromium import (
    PROGRAMS,
    Tab,
    drop_file,
    enter_key,
    find_chromium,
    open_newest_report,
    opened_tab,
    running_chromium,
    wait_for_result,
)


@dataclass(frozen=True)
class Scan:
    """What a person saw while the swapped video was scanned."""

    url: str
    """The link to the report that the page made."""
    job_id: str
    live_heading: str
    live_page: str
    """The page as HTML, before there was a result."""
    requested: list[str]
    problems: list[str]


@pytest.fixture(scope="session", autouse=True)
def chromium() -> str:
    """The path of an installed Chromium. Used by every test, so that without one no stack is started in vain."""
    path = find_chromium()
    if path is None:
        reason = f"no Chromium is installed: none of {', '.join(PROGRAMS)} is in PATH"
        if os.environ.get("DEEPFAKESTREAM_CHROMIUM_REQUIRED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


# Not for the whole session: while playwright runs, other tests of the process could not start an event loop.
@pytest.fixture(scope="package")
def browser(chromium: str) -> Iterator[Browser]:
    """A running Chromium."""
    with running_chromium(chromium) as running:
        yield running


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Callable[..., Tab]]:
    """A function that opens tabs, which are closed at the end; fails if one of them had a problem."""
    tabs = []
    with ExitStack() as opened:

        def open_one(**options: Any) -> Tab:
            tabs.append(opened.enter_context(opened_tab(browser, **options)))
            return tabs[-1]

        yield open_one
    assert [problem for tab in tabs for problem in tab.problems] == []


@pytest.fixture
def key(stack: EmbeddedStack) -> str:
    """The stack's first API key."""
    return stack.api_key_file.read_text().strip()


@pytest.fixture(scope="package")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's video of swapped faces: four scenes of five seconds, the last without a face."""
    return make_demo_videos(tmp_path_factory.mktemp("demo"))[1]


@pytest.fixture(scope="package")
def scan(stack: EmbeddedStack, browser: Browser, swapped: Path) -> Scan:
    """The swapped video, dropped on the list of jobs and watched until its report shows the result."""
    with opened_tab(browser) as tab:
        enter_key(tab.page, stack.url, stack.api_key_file.read_text().strip())
        drop_file(tab.page, swapped.name, swapped.read_bytes())
        open_newest_report(tab.page)
        heading, live_page = tab.page.inner_text("h1"), tab.page.content()
        tab.page.wait_for_selector("#total:text-is('4')")
        wait_for_result(tab.page)
        job_id = tab.page.url.split("/jobs/")[1].split("/")[0]
        return Scan(tab.page.url, job_id, heading, live_page, tab.requested, tab.problems)
