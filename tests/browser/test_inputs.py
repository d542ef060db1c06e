"""The page about inputs: it asks for a key with the scope admin, and shows what the service was given."""

import json
import subprocess
import sys

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from psycopg import sql

from api.competence import MIN_JOBS
from shared.models import InputCount
from tests.browser.chromium import PHONE, enter_key
from tests.inside import environment_of, postgres_of

pytestmark = pytest.mark.usefixtures("scan")


def admin_key(stack):
    command = [sys.executable, "-m", "api.keys", "create", "--owner", "operators", "--name", "inputs", "--json"]
    done = subprocess.run(
        [*command, "--scope", "admin"], env=environment_of(stack), capture_output=True, check=True, text=True
    )
    return json.loads(done.stdout)["key"]


def multiply(stack, times):
    """Make as many rows of every job that was judged."""
    columns = sql.SQL(", ").join(sql.Identifier(one.name) for one in InputCount.__table__.columns if one.name != "id")
    query = sql.SQL(
        "insert into inputs (id, {0}) select gen_random_uuid(), {0} from inputs, generate_series(2, %s)"
    ).format(columns)
    with postgres_of(stack) as connection:
        connection.execute(query, [times])


@pytest.fixture
def page_of_many(stack, open_tab):
    """A tab that shows what enough jobs gave."""
    tab = open_tab(viewport=PHONE)
    tab.page.goto(f"{stack.url}/inputs")
    tab.page.fill("#key", admin_key(stack))
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("#inputs article")
    if not tab.page.locator("#inputs figure").count():
        multiply(stack, MIN_JOBS)
    tab.page.select_option("#period", "30")
    expect(tab.page.locator("#message")).to_be_empty()
    assert tab.page.locator("#inputs figure").count()
    return tab.page


def test_another_key_is_refused_and_stays_that_of_the_other_pages(stack, key, open_tab):
    tab = open_tab()
    page = tab.page
    enter_key(page, stack.url, key)
    page.goto(f"{stack.url}/inputs")
    page.fill("#key", key)
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-error:not(:empty)")
    assert "lacks the scope admin" in page.text_content("#key-error")
    assert page.evaluate("document.activeElement.id") == "key"
    # Chromium writes of every refusal.
    assert [problem for problem in tab.problems if "403" not in problem] == []
    tab.problems.clear()
    page.goto(stack.url)
    page.wait_for_selector("#work:not([hidden])")


def test_nothing_is_shown_of_few_jobs(stack, open_tab):
    page = open_tab().page
    page.goto(f"{stack.url}/inputs")
    page.fill("#key", admin_key(stack))
    page.keyboard.press("Enter")
    page.wait_for_selector("#inputs article")
    assert "Fewer than 400 jobs" in page.text_content("#inputs")
    assert page.locator("#inputs figure").count() == 0


def test_an_operator_sees_what_was_judged(page_of_many, scan):
    page = page_of_many
    assert page.locator("h2", has_text="swap-lite2, videos").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for summary in page.locator("summary").all():
        summary.focus()
        page.keyboard.press("Enter")
    assert page.locator("#inputs tbody tr").count() > 30
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"]) for one in found if one["impact"] in {"serious", "critical"}] == []
    shown = page.text_content("#inputs .about")
    page.select_option("#period", "7")
    expect(page.locator("#inputs .about")).not_to_have_text(shown)
    assert scan.job_id not in page.content()


def test_a_late_answer_changes_nothing(page_of_many):
    page, held = page_of_many, []

    def hold(route):
        held.append(route)

    page.route("**/v1/inputs.html?days=1", hold)

    def ask_late():
        with page.expect_request("**/v1/inputs.html?days=1"):
            page.select_option("#period", "1")

    def answer_late():
        with page.expect_response("**/v1/inputs.html?days=1"):
            held.pop().continue_()
        page.wait_for_timeout(200)

    shown = page.text_content("#inputs .about")
    ask_late()
    with page.expect_response("**/v1/inputs.html?days=30"):
        page.select_option("#period", "30")
    expect(page.locator("#message")).to_be_empty()
    answer_late()
    assert page.text_content("#inputs .about") == shown
    ask_late()
    page.click("#forget")
    answer_late()
    assert page.text_content("#inputs") == ""
    assert page.is_visible("#key-form")
    assert page.text_content("#message") == ""


def test_an_answer_that_breaks_off_is_told(page_of_many):
    page_of_many.evaluate("() => { Response.prototype.text = () => Promise.reject(new TypeError('network error')) }")
    page_of_many.select_option("#period", "7")
    expect(page_of_many.locator("#message")).to_have_text("The service does not answer; try again.")
