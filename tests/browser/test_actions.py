"""What can be done with a job from the list: links, a review, downloads, scoring again and what changed."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.chromium import DESKTOP, PHONE, enter_key, open_newest_report
from tests.browser.test_access import SERIOUS
from tests.clips import noise_picture


@pytest.fixture
def job(client, tmp_path, request):
    (tmp_path / "picture.jpg").write_bytes(noise_picture(len(request.node.name)))
    made = client.submit(tmp_path / "picture.jpg", metadata={"filename": "<b>picture</b>.jpg"})
    return client.wait(made.id, timeout_s=120)


def open_actions(page, stack, key):
    enter_key(page, stack.url, key)
    page.click("#jobs tr:first-child button:text-is('Actions')")
    page.wait_for_selector("#checkpoint option", state="attached")


def test_opening_a_report_twice_makes_one_link(job, client, stack, key, open_tab):
    page = open_tab().page
    enter_key(page, stack.url, key)
    open_newest_report(page)
    first = page.url
    page.goto(stack.url)
    page.wait_for_selector("#jobs tr")
    open_newest_report(page)
    assert page.url == first
    (share,) = client.shares(job.id)
    client.revoke_share(job.id, share.id)
    page.goto(stack.url)
    page.wait_for_selector("#jobs tr")
    open_newest_report(page)
    assert page.url != first, "a link that was revoked elsewhere is replaced"


def test_a_link_is_shown_and_revoked(job, client, stack, key, open_tab):
    page = open_tab().page
    open_actions(page, stack, key)
    page.click("#share")
    page.wait_for_selector("#links li")
    assert f"/jobs/{job.id}/report?token=" in page.input_value("#address")
    page.click("#links button")
    page.wait_for_selector("#job-message:has-text('revoked')")
    assert client.shares(job.id) == ()


def test_a_late_answer_about_one_job_changes_nothing_in_the_dialog_of_another(
    job, client, stack, key, open_tab, tmp_path
):
    (tmp_path / "other.jpg").write_bytes(noise_picture(77))
    other = client.wait(client.submit(tmp_path / "other.jpg").id, timeout_s=120)
    page = open_tab().page
    open_actions(page, stack, key)
    held = []
    page.route(
        f"**/v1/jobs/{other.id}/shares",
        lambda route: held.append(route) if route.request.method == "POST" else route.continue_(),
    )
    with page.expect_request(lambda request: request.method == "POST"):
        page.click("#share")
    page.keyboard.press("Escape")
    page.click("#jobs tr:nth-child(2) button:text-is('Actions')")
    page.wait_for_selector("#job-title:has-text('picture')")
    assert client.shares(job.id) == ()
    with page.expect_response(lambda response: response.request.method == "POST"):
        held[0].continue_()
    page.wait_for_selector("#share:enabled")
    assert page.is_hidden("#new-link")
    assert page.inner_text("#links") == ""
    assert len(client.shares(other.id)) == 1


def test_a_finding_is_recorded_and_withdrawn(job, client, stack, key, open_tab):
    page = open_tab().page
    open_actions(page, stack, key)
    assert page.inner_text("#job-title") == "<b>picture</b>.jpg"
    page.select_option("#finding", "disputed")
    page.fill("#note", "blurred")
    page.click("#record")
    page.wait_for_selector("#job-message:has-text('recorded')")
    review = client.get(job.id).review
    assert (review.finding, review.note) == ("disputed", "blurred")
    page.click("#withdraw")
    page.wait_for_selector("#job-message:has-text('withdrawn')")
    assert client.get(job.id).review is None


def test_the_report_is_downloaded(job, stack, key, open_tab):
    page = open_tab().page
    open_actions(page, stack, key)
    with page.expect_download() as started:
        page.click("[data-name='report.html']")
    assert started.value.suggested_filename == f"report-{job.id}.html"


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_job_is_scored_again_and_compared(job, client, stack, key, open_tab, viewport):
    page = open_tab(viewport=viewport, color_scheme="dark").page
    open_actions(page, stack, key)
    page.select_option("#checkpoint", "swap-lite0")
    page.click("#rescore")
    page.wait_for_selector("#job-message:has-text('new job')")
    newest = client.wait(next(iter(client.list())).id, timeout_s=120)
    assert newest.parent_id == job.id
    page.keyboard.press("Escape")
    page.reload()
    page.click("#jobs tr:first-child button:text-is('Actions')")
    page.select_option("#other", job.id)
    page.click("#show-differences")
    page.wait_for_selector("#differences:not([hidden])")
    assert "swap-lite0" in page.inner_text("#sides")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"]) for one in found if one["impact"] in SERIOUS] == []
