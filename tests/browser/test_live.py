"""The page of a live stream in a real browser: line, people, alerts, the source, its end, and who may stop it."""

import contextlib
import threading

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe

from api.embedded.demo_videos import make_demo_videos
from tests.browser.chromium import DESKTOP, PHONE, enter_key, wait_for_result
from tests.browser.test_access import CONTROLS, DESCRIBE_FOCUS, LIST_VISIBLE, SERIOUS
from tests.browser.test_pages import HOSTILE, SHOWN
from tests.clips import run
from tests.live import Playlist, join_parts, serving, wait_until

SEGMENT_S = 2.0
TIMEOUT_MS = 90_000
REFUSED = "Failed to load resource: the server responded with a status of 503 (Service Unavailable)"
COUNT_POINTS = "document.querySelectorAll('#live-points circle').length"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Six seconds of real faces, six of swapped ones, and four of real ones."""
    folder = tmp_path_factory.mktemp("live")
    real, swapped = make_demo_videos(folder)
    parts = [(real, 5.0), (real, 1.0), (swapped, 5.0), (swapped, 1.0), (real, 4.0)]
    return join_parts(folder, parts)


@pytest.fixture
def source(clip, tmp_path):
    (tmp_path / "source").mkdir()
    return Playlist(clip, tmp_path / "source")


@pytest.fixture
def address(source, tmp_path):
    with serving(source, tmp_path / "source") as url:
        yield url


@pytest.fixture(scope="module")
def api(stack):
    headers = {"Authorization": f"Bearer {stack.api_key_file.read_text().strip()}"}
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False, timeout=30) as client:
        yield client


def begin(api, url, **options):
    answer = api.post("/v1/streams", json={"url": url, "segment_seconds": SEGMENT_S, **options})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def link_to(api, stream_id):
    return api.post(f"/v1/jobs/{stream_id}/shares", json={}).json()["url"]


def wait_for_points(page, count):
    page.wait_for_selector(f"#live-points circle >> nth={count - 1}", timeout=TIMEOUT_MS)


@contextlib.contextmanager
def filming(source, api, stream_id, until=None):
    """Publish the source up to the part *until*, as fast as it is scored: segments would be dropped otherwise."""
    stopping = threading.Event()

    def film():
        while source.published < (until or source.parts) and not stopping.is_set():
            found = api.get(f"/v1/streams/{stream_id}").json()
            if found["last_seq"] * found["options"]["segment_seconds"] + 8 > source.published:
                source.publish()
            stopping.wait(0.2)

    camera = threading.Thread(target=film)
    camera.start()
    try:
        yield
    finally:
        stopping.set()
        camera.join()


@pytest.fixture(scope="module")
def running(api, clip, tmp_path_factory):
    """The link to a stream that runs for as long as the tests of this module do: the clip, again and again."""
    folder = tmp_path_factory.mktemp("running")
    long, served = folder / "long.ts", folder / "source"
    run("-stream_loop", "29", "-i", str(clip), "-c", "copy", str(long))
    served.mkdir()
    source, stopping = Playlist(long, served), threading.Event()

    def film():
        while not stopping.wait(1.0) and source.published < source.parts:
            source.publish(kept=30)

    source.publish(6)
    camera = threading.Thread(target=film)
    with serving(source, served) as url:
        stream_id = begin(api, url, last_faces=True, metadata={"filename": HOSTILE * 10})
        camera.start()
        try:
            wait_until(lambda: api.get(f"/v1/streams/{stream_id}").json()["people"], timeout_s=60)
            yield link_to(api, stream_id)
        finally:
            stopping.set()
            camera.join()
            api.delete(f"/v1/streams/{stream_id}")


def test_a_stream_is_watched_live_until_its_report(api, source, address, open_tab):
    source.publish(4)
    stream_id = begin(api, address, last_faces=True)
    tab = open_tab()
    page = tab.page
    page.goto(link_to(api, stream_id))
    report = f"/jobs/{stream_id}/report"
    with filming(source, api, stream_id):
        wait_for_points(page, 1)
        page.wait_for_selector("#source:has-text('The source is connected.')")
        before = page.evaluate(COUNT_POINTS)
        # Both at once: a quick machine has cleared the alert soon after.
        alert = "#present.verdict-fake #present-title:text-is('Alert: signs of a swapped face')"
        page.wait_for_selector(alert, timeout=TIMEOUT_MS)
        page.wait_for_selector("#said:has-text('alert about person')", state="attached")
        assert page.evaluate(COUNT_POINTS) > before, "the line moved"
        assert "alert about person" in page.inner_text("#alerts li:first-child")
        assert page.get_attribute("#live-limit", "visibility") == "visible"
        assert page.locator("#live-areas .alert-time").count() >= 1
        assert page.get_attribute("#live-areas .alert-time", "height") == "100"
        face = page.locator("#live-people img.face").first
        face.wait_for()
        assert face.evaluate("(one) => one.decode().then(() => one.naturalWidth)") == 112
        shown = face.get_attribute("src")
    source.is_away = True
    page.wait_for_selector("#source:has-text('away')", timeout=TIMEOUT_MS)
    page.wait_for_selector("#said:has-text('away')", state="attached")
    source.is_away = False
    while source.published < source.parts:
        source.publish()
    source.finish()
    wait_for_result(page)
    assert tab.requested.count(report) == 2, "the page was loaded for the stream and again for its report"
    assert f"{report}/live" in tab.requested
    assert f"{report}/live/state" not in tab.requested, "events were pushed, not polled"
    assert "live stream" in page.inner_text("#media")
    assert page.locator("img.face, canvas.face").count() == 0
    # What was kept while it ran is erased.
    assert httpx.get(f"{page.url.split('/jobs/')[0]}{shown}", trust_env=False).status_code == 404
    people = api.get(f"/v1/streams/{stream_id}").json()["people"]
    for person in people:
        assert api.get(f"/v1/streams/{stream_id}/faces/{person['person']}").status_code == 404


def test_events_are_polled_where_event_streams_are_refused(api, source, address, open_tab):
    source.publish(4)
    stream_id = begin(api, address)
    tab = open_tab()
    tab.page.route("**/report/live?**", lambda route: route.fulfill(status=503))
    tab.page.goto(link_to(api, stream_id))
    wait_for_points(tab.page, 1)
    assert tab.page.locator("#live-people img").count() == 0, "no face is kept unless asked for"
    before = tab.page.evaluate(COUNT_POINTS)
    source.publish(4)
    wait_for_points(tab.page, before + 1)
    source.finish()
    wait_for_result(tab.page)
    assert f"/jobs/{stream_id}/report/live/state" in tab.requested
    assert set(tab.problems) == {REFUSED}
    tab.problems.clear()


def test_a_lost_connection_goes_on_after_the_last_event(running, open_tab):
    page = open_tab().page
    seen = []
    page.on("request", lambda request: seen.append(request) if "/report/live?" in request.url else None)
    page.goto(running)
    wait_for_points(page, 2)
    # As the service does when all of its connections are taken: the answer ends, and the browser connects again.
    page.context.set_offline(True)
    page.context.set_offline(False)
    before = page.evaluate(COUNT_POINTS)
    wait_for_points(page, before + 1)
    times = page.eval_on_selector_all("#live-points title", "(all) => all.map((one) => one.textContent)")
    assert len(times) == len(set(times)), "no event was shown twice"


def test_only_the_owner_can_stop_a_stream(api, source, address, stack, key, open_tab):
    source.publish(4)
    stream_id = begin(api, address)
    other = open_tab().page
    other.goto(link_to(api, stream_id))
    wait_for_points(other, 1)
    assert other.is_hidden("#stop")
    page = open_tab().page
    enter_key(page, stack.url, key)
    page.wait_for_selector("#jobs tr:first-child .result:has-text('live')")
    page.click("#jobs tr:first-child button")
    page.wait_for_url("**/report?**")
    page.wait_for_selector("#stop")
    page.click("#stop")
    page.click("#go-on")
    assert page.evaluate("document.activeElement.id") == "stop"
    page.click("#stop")
    assert api.get(f"/v1/streams/{stream_id}").json()["why"] is None, "it asks first"
    page.click("#stop:has-text('now')")
    wait_for_result(page)
    wait_for_result(other)
    assert api.get(f"/v1/streams/{stream_id}").json()["why"] == "request"


def test_a_stream_is_begun_and_stopped_in_the_list(api, source, address, stack, key, open_tab):
    source.publish(4)
    tab = open_tab(viewport=PHONE)
    page = tab.page
    enter_key(page, stack.url, key)
    page.click("#watch summary")
    page.fill("#stream-url", "ftp://camera.example/")
    page.click("#watch-begin")
    page.wait_for_selector("#message:has-text('URL')")
    tab.problems.remove("Failed to load resource: the server responded with a status of 422 (UNPROCESSABLE ENTITY)")
    page.fill("#stream-url", address)
    page.fill("#stream-name", HOSTILE)
    page.fill("#stream-user", "viewer")
    page.fill("#stream-password", "hush-hush-4711")
    page.check("#stream-faces")
    page.click("#watch-begin")
    page.wait_for_selector("#message:has-text('is being watched')")
    assert page.input_value("#stream-password") == ""
    assert page.inner_text("#jobs tr:first-child .name") == SHOWN
    [made] = api.get("/v1/streams", params={"limit": 1}).json()["items"]
    with filming(source, api, made["id"]):
        page.wait_for_selector(
            "#jobs tr:first-child .result:text-matches('live, (no alert|ALERT)')", timeout=TIMEOUT_MS
        )
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert [one for one in Axe().run(page).response["violations"] if one["impact"] in SERIOUS] == []
    assert (made["options"]["last_faces"], made["options"]["record"]) == (True, "none")
    page.click("#jobs tr:first-child button:text-is('Actions')")
    page.click("#live #stop")
    page.wait_for_selector("#job-message:has-text('being stopped')")
    page.click("#close")
    page.wait_for_selector("#jobs tr:first-child .result:not(:has-text('live'))", timeout=TIMEOUT_MS)
    assert page.inner_text("#jobs tr:first-child .name") == SHOWN


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_live_page_fits_and_has_no_serious_findings(running, open_tab, scheme, viewport):
    page = open_tab(color_scheme=scheme, viewport=viewport).page
    page.goto(running)
    wait_for_points(page, 2)
    page.locator("#live-people img.face").first.wait_for()
    page.click("#live-table summary")
    page.wait_for_selector("#live-table tbody td")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"]) for one in found if one["impact"] in SERIOUS] == []
    assert page.text_content(".about .name") == SHOWN * 10
    assert page.locator("script:not([src])").count() == 0


def test_the_live_page_is_reached_by_the_keyboard_and_says_little(running, open_tab):
    page = open_tab().page
    page.goto(running)
    wait_for_points(page, 2)
    expected = set(page.eval_on_selector_all(CONTROLS, LIST_VISIBLE))
    reached = set()
    for _ in range(2 * len(expected) + 5):
        page.keyboard.press("Tab")
        index, is_marked = page.evaluate(DESCRIBE_FOCUS)
        # The page as a whole has the focus between its last control and its first.
        assert is_marked or index < 0
        reached.add(index)
    assert expected <= reached
    # Scores change all the time: a screen reader is given alerts and the source alone.
    live = page.eval_on_selector_all("[aria-live], [role=status], [role=alert]", "(all) => all.map((one) => one.id)")
    assert set(live) == {"said", "stop-message"}
    assert "score" not in page.text_content("#said").lower().replace("mean score", "")


def test_the_live_page_prints_and_needs_no_scripts(running, open_tab):
    page = open_tab(java_script_enabled=False).page
    page.goto(running)
    text = page.inner_text("body")
    assert "Live." in text
    assert "The source is connected." in text
    assert "Person 0" in text
    assert "segments read" in text
    scripted = open_tab(color_scheme="dark").page
    scripted.goto(running)
    wait_for_points(scripted, 2)
    assert 1 <= scripted.pdf(format="A4").count(b"/Type /Page\n") <= 3
    scripted.emulate_media(media="print")
    assert scripted.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert scripted.is_hidden("#stopping")
