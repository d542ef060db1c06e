"""The page about inputs: it asks for a key with the scope admin, and shows what the service was given."""

import json
import subprocess
import sys

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.chromium import PHONE
from tests.inside import environment_of


def admin_key(stack):
    command = [sys.executable, "-m", "api.keys", "create", "--owner", "operators", "--name", "inputs", "--json"]
    done = subprocess.run(
        [*command, "--scope", "admin"], env=environment_of(stack), capture_output=True, check=True, text=True
    )
    return json.loads(done.stdout)["key"]


def test_an_operator_sees_what_was_judged_and_others_are_refused(stack, key, scan, open_tab):
    tab = open_tab(viewport=PHONE)
    page = tab.page
    page.goto(f"{stack.url}/inputs")
    page.fill("#key", key)
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-error:not(:empty)")
    assert "lacks the scope admin" in page.text_content("#key-error")
    assert page.evaluate("document.activeElement.id") == "key"
    # Chromium writes of every refusal.
    assert [problem for problem in tab.problems if "403" not in problem] == []
    tab.problems.clear()
    page.fill("#key", admin_key(stack))
    page.keyboard.press("Enter")
    page.wait_for_selector("#inputs article")
    assert page.locator("h2", has_text="swap-lite2, videos").count() == 1
    assert "are too few" in page.text_content("#inputs")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for summary in page.locator("summary").all():
        summary.focus()
        page.keyboard.press("Enter")
    assert page.locator("#inputs tbody tr").count() > 30
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"]) for one in found if one["impact"] in {"serious", "critical"}] == []
    shown = page.text_content("#inputs .about")
    page.select_option("#period", "30")
    expect(page.locator("#inputs .about")).not_to_have_text(shown)
    assert scan.job_id not in page.content()
