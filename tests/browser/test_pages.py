"""The pages in a real browser: upload, live progress, verdict, video, faces, print, links, hostile text."""

import re

import pytest

from api.web.pages import POLICY
from tests.browser.chromium import PHONE, drop_file, enter_key, wait_for_faces, wait_for_result
from tests.clips import noise_picture
from tests.integration.api.test_http import other_owner

HOSTILE = "</td><script>alert(1)</script>{{ 7 * 7 }}\u202egpj.mp4"
SHOWN = HOSTILE.replace("\u202e", r"\u202e")
A4_PX = (680, 1009)
"""Width and height of a page of A4 within margins of 15 mm, at 96 pixels per inch."""
COUNT_COLOURS = """(canvases) => canvases.map((one) => {
  const pixels = new Uint32Array(one.getContext("2d").getImageData(0, 0, one.width, one.height).data.buffer);
  return new Set(pixels).size;
})"""


def test_a_dropped_file_is_watched_live_until_its_verdict(scan, open_tab):
    assert scan.live_heading == "Being analysed"
    report = f"/jobs/{scan.job_id}/report"
    assert f"{report}/events" in scan.requested
    assert f"{report}/state" not in scan.requested, "progress was pushed, not polled"
    assert scan.requested.count(report) == 2, "the page was loaded for the progress and again for the result"
    assert scan.problems == []
    page = open_tab().page
    page.goto(scan.url)
    assert page.inner_text("h1") == "Signs of a swapped face"
    assert "swapped.mp4" in page.inner_text(".about")


def test_choosing_a_bar_moves_the_video(scan, open_tab):
    page = open_tab().page
    page.goto(scan.url)
    bars = page.locator(".timeline a")
    assert bars.count() == 4
    for number in (2, 1):
        bars.nth(number).click()
        # The position is a multiple of 5 s of 20 s.
        page.wait_for_selector(f"#cursor.moved[x1^='{25 * number}']", state="attached")
        assert page.evaluate("document.getElementById('player').currentTime") == pytest.approx(5.0 * number, abs=0.2)


def test_media_that_the_service_is_too_busy_to_send_is_requested_again(scan, open_tab):
    tab = open_tab()
    busy = {"status": 503, "headers": {"Retry-After": "1"}}
    tab.page.route("**/report/media?**", lambda route: route.fulfill(**busy), times=3)
    tab.page.goto(scan.url)
    wait_for_faces(tab.page)
    assert not tab.page.is_visible("#unplayable")
    tab.page.locator(".timeline a").nth(2).click()
    tab.page.wait_for_selector("#cursor.moved[x1^='50']", state="attached")
    refused = "Failed to load resource: the server responded with a status of 503 (Service Unavailable)"
    assert set(tab.problems) == {refused}
    tab.problems.clear()


def test_media_that_cannot_be_played_is_said_to_be_so(scan, open_tab):
    page = open_tab().page
    page.route("**/report/media?**", lambda route: route.fulfill(body=b"no video", content_type="video/mp4"))
    page.goto(scan.url)
    page.wait_for_selector("#unplayable:not([hidden])")


def test_faces_of_people_are_cut_out_of_the_video(scan, open_tab):
    page = open_tab().page
    page.goto(scan.url)
    wait_for_faces(page)
    colours = page.eval_on_selector_all(".face", COUNT_COLOURS)
    assert len(colours) == 2
    assert min(colours) > 500, "a blank or plain canvas has few colours"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_prints_to_a_few_pages_with_verdict_and_timeline_on_the_first(scan, open_tab, scheme):
    page = open_tab(color_scheme=scheme).page
    page.goto(scan.url)
    wait_for_faces(page)
    pages = re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))
    assert 2 <= len(pages) <= 4
    page.set_viewport_size({"width": A4_PX[0], "height": A4_PX[1]})
    page.emulate_media(media="print")
    for name in (".verdict", ".timeline", ".axis"):
        box = page.locator(name).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < A4_PX[1], name
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_revoked_link_shows_nothing(scan, client, open_tab):
    share = client.share(scan.job_id)
    tab = open_tab()
    assert tab.page.goto(share.url).status == 200
    client.revoke_share(scan.job_id, share.id)
    assert tab.page.goto(share.url).status == 404
    assert "revoked" in tab.page.inner_text("body")
    tab.problems.remove("Failed to load resource: the server responded with a status of 404 (NOT FOUND)")


def test_progress_is_polled_where_event_streams_are_refused(scan, open_tab):
    tab = open_tab()
    # The job has ended. The first load shows its page as it was before, which has to find that out.
    headers = {"Content-Type": "text/html", "Content-Security-Policy": POLICY}
    tab.page.route("**/report?**", lambda route: route.fulfill(body=scan.live_page, headers=headers), times=1)
    tab.page.route("**/report/events?**", lambda route: route.fulfill(status=503))
    tab.page.goto(scan.url)
    wait_for_result(tab.page, timeout_ms=60_000)
    assert tab.page.inner_text("h1") == "Signs of a swapped face"
    report = f"/jobs/{scan.job_id}/report"
    assert f"{report}/state" in tab.requested
    assert tab.requested.count(report) == 2
    tab.problems.remove("Failed to load resource: the server responded with a status of 503 (Service Unavailable)")


def test_the_report_says_everything_without_scripts(scan, client, open_tab):
    page = open_tab(java_script_enabled=False).page
    page.goto(scan.url)
    text = page.inner_text("body")
    job = client.get(scan.job_id)
    for words in ("Signs of a swapped face", f"Score {100 * job.fake_score:.1f}", "Person 0", "Person 1", "Suspicious"):
        assert words in text
    page.click("text=Scores of all segments as a table")
    table = page.locator("details", has_text="Scores of all segments as a table")
    rows = table.locator("tbody tr").all_inner_texts()
    scores = [segment.fake_score for segment in job.segments]
    assert [row.split()[1] for row in rows] == ["none" if score is None else f"{100 * score:.1f}" for score in scores]


def test_hostile_names_are_shown_as_text(stack, client, open_tab, tmp_path):
    (tmp_path / "picture.jpg").write_bytes(noise_picture(72))
    key = other_owner(stack)[0]["Authorization"].removeprefix("Bearer ")
    tab = open_tab(viewport=PHONE)
    page = tab.page
    enter_key(page, stack.url, key)
    assert page.is_visible("#empty")
    drop_file(page, HOSTILE, noise_picture(72))
    assert page.inner_text("#message") == f"{SHOWN} is being analysed."
    assert page.inner_text("#jobs tr:first-child .name") == SHOWN
    drop_file(page, "x" * 4000, noise_picture(73))
    assert page.locator("#jobs tr").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    # Metadata of other programs may be longer, or no text at all.
    names = [HOSTILE * 80, {"filename": 1}, "", ["<img src=x onerror=alert(2)>"]]
    for name in names:
        job = client.submit(tmp_path / "picture.jpg", metadata={"filename": name})
        page.goto(client.share(job.id).url)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        if name == names[0]:
            assert len(name) > 3000
            assert page.text_content(".about .name") == SHOWN * 80
        else:
            assert page.locator(".about .name").count() == 0
    assert page.locator("script:not([src])").count() == 0


def test_a_key_is_asked_for_again_if_it_is_refused_or_changed(stack, key, open_tab):
    tab = open_tab()
    page = tab.page
    page.goto(stack.url)
    page.fill("#key", "dfs_wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-error:not(:empty)")
    assert not page.is_visible("#work")
    tab.problems.remove("Failed to load resource: the server responded with a status of 401 (UNAUTHORIZED)")
    enter_key(page, stack.url, key)
    assert not page.is_visible("#key-form")
    page.reload()
    page.wait_for_selector("#work:not([hidden])")
    page.click("text=Use another key")
    assert page.is_visible("#key-form")
    assert page.evaluate("sessionStorage.length") == 0
