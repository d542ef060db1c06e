"""The pages for everybody: no findings of axe-core, both colour schemes, narrow screens, the keyboard alone."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.chromium import DESKTOP, PHONE, enter_key, wait_for_faces

SERIOUS = {"serious", "critical"}
CONTROLS = "a[href], button, input, summary, video"
DESCRIBE_FOCUS = """() => {
  const one = document.activeElement;
  const all = [...document.querySelectorAll("a[href], button, input, summary, video")];
  const style = getComputedStyle(one.querySelector(".hit") || one);
  const isOutlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  return [all.indexOf(one), isOutlined || (style.stroke && style.stroke !== "none")];
}"""
LIST_VISIBLE = """(all) => all.flatMap((one, index) => (one.checkVisibility() ? [index] : []))"""


@pytest.fixture
def pages(stack, key, scan, open_tab):
    """A function that opens the list of jobs and the report, each in a tab of its own."""

    def open_both(**options):
        jobs, report = open_tab(**options).page, open_tab(**options).page
        enter_key(jobs, stack.url, key)
        jobs.wait_for_selector("#jobs tr")
        report.goto(scan.url)
        wait_for_faces(report)
        return {"jobs": jobs, "report": report}

    return open_both


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_pages_fit_and_have_no_serious_findings(pages, scheme, viewport):
    for name, page in pages(color_scheme=scheme, viewport=viewport).items():
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], name
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], f"{name}, unfolded"
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"]) for one in found if one["impact"] in SERIOUS] == [], name
        is_dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert is_dark == (scheme == "dark")


def test_the_keyboard_reaches_everything_with_a_visible_focus(pages):
    for name, page in pages().items():
        expected = set(page.eval_on_selector_all(CONTROLS, LIST_VISIBLE))
        reached = {}
        for _ in range(4 * len(expected) + 20):
            page.keyboard.press("Tab")
            index, is_marked = page.evaluate(DESCRIBE_FOCUS)
            # Within the video, its buttons mark the focus themselves.
            reached[index] = reached.get(index) or is_marked
            if expected <= set(reached):
                break
        assert expected <= set(reached), name
        assert [index for index in expected if not reached[index]] == [], f"{name}: focus is not visible"


def test_a_bar_is_chosen_by_the_keyboard(pages):
    page = pages()["report"]
    page.focus(".timeline a >> nth=2")
    page.keyboard.press("Enter")
    page.wait_for_selector("#cursor.moved[x1^='50']", state="attached")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.dataset.time") == "10.0", "the focus stayed on the bar"
