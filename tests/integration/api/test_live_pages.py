"""The page of a live stream that runs: what a link shows of it, in what order, and what it does not."""

import json
import threading
import uuid

import pytest

from api.web.pages import POLICY
from shared.jobs.ending import end_job
from shared.jobs.queries import lock_job
from shared.models import Job, StreamFace
from shared.states import JobStatus, StreamEventKind, StreamState
from shared.streams.cleanup import find_stream
from tests.clips import noise_picture
from tests.integration.api.test_reports import HOSTILE, look, share
from tests.integration.api.test_streams import add, begin, end, parse

PERSON = {
    "person": 0,
    "fake_score": 0.9,
    "faces": 12,
    "verdict": "fake",
    "real_below": 0.3,
    "fake_from": 0.6,
    "is_alerting": True,
    "is_held_back": False,
    "raised_s": 10.0,
    "seen_s": 15.0,
    "face_s": 14.5,
}
RAISED = {
    "action": "raised",
    "person": 0,
    "time_s": 10.0,
    "start_s": 5.0,
    "fake_score": 0.9,
    "faces": 10,
    "limit": 0.7,
}
SCORES = [{"person": 0, "fake_score": 0.9, "faces": 10, "rolling_score": 0.9, "fake_from": 0.7}]
JPEG = b"\xff\xd8 no picture, but the bytes that were stored"


@pytest.fixture
def api(make_api):
    return make_api()


@pytest.fixture
def headers(api):
    return api.key("owner")[0]


@pytest.fixture
def stream_id(api, headers):
    return begin(api, headers, last_faces=True, metadata={"filename": HOSTILE})["id"]


@pytest.fixture
def url(api, headers, stream_id):
    return share(api, headers, stream_id)["url"]


def change(api, stream_id, **values):
    """Change the stream as its reader would."""
    with api.sessions.transaction() as session:
        lock_job(session, uuid.UUID(stream_id))
        stream = find_stream(session, uuid.UUID(stream_id))
        for name, value in values.items():
            setattr(stream, name, value)


def add_segment(api, stream_id, index, **data):
    times = {"index": index, "start_s": 5.0 * index, "end_s": 5.0 * index + 5, "status": "scored"}
    add(api, stream_id, **times, **{"fake_score": 0.9, "reasons": [], "people": 1, "scores": SCORES, **data})


def messages(text):
    """The states in server-sent events: the messages without a name."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return [json.loads(block[0].removeprefix("data: ")) for block in blocks if block and block[0].startswith("data: ")]


def test_a_stream_that_runs_is_shown_as_one_without_its_address(api, stream_id, url):
    waiting = look(api, url).text
    assert "Waiting for the first pictures" in waiting
    assert "The source has sent no picture yet." in waiting
    add(api, stream_id, StreamEventKind.ALERT, **RAISED)
    change(api, stream_id, state=StreamState.CONNECTED, people=[PERSON], segments=3, dropped=2)
    answer = look(api, url)
    assert "Alert: signs of a swapped face" in answer.text
    assert "Alert since 0:10.0: signs of a swap. Over the last 30 s: mean score 90.0, 12 faces" in answer.text
    assert "0:10.0: alert about person 0. Mean score 90.0 over 10 faces since 0:05.0; the limit is 70.0." in answer.text
    assert "3 segments read, 2 left out since scoring could not keep up, 0 gaps, 0 new connections." in answer.text
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert "<script>alert" not in answer.text
    # A link shows the stream, and not where it is from.
    state = look(api, url, "/live/state").text
    for text in (waiting, answer.text, state):
        assert "cameras.example" not in text


def test_a_link_that_does_not_work_shows_nothing_live(api, headers, url):
    wrong = url[:-1] + ("a" if url[-1] != "a" else "b")
    for under in ("/live", "/live/state", "/live/faces/0"):
        assert look(api, wrong, under).status_code == 404
    # A job that is no stream has nothing live, whatever its link.
    other = share(api, headers, api.submit(headers, noise_picture(1)).json["id"])["url"]
    for under in ("/live", "/live/state", "/live/faces/0"):
        assert look(api, other, under).status_code == 404
    assert 'id="present"' not in look(api, other).text


def test_events_and_states_come_until_the_end_and_go_on_after_the_last(api, stream_id, url):
    add_segment(api, stream_id, 0)
    add_segment(api, stream_id, 1, scores=[], reasons=["gap"], fake_score=None)
    change(api, stream_id, people=[PERSON])

    def film():
        add(api, stream_id, StreamEventKind.ALERT, **RAISED)
        end(api, stream_id)

    later = threading.Timer(0.5, film)
    later.start()
    answer = look(api, url, "/live")
    later.join()
    assert answer.mimetype == "text/event-stream"
    got = parse(answer.text)
    assert [(seq, kind) for seq, kind, _ in got] == [(1, "segment"), (2, "segment"), (3, "alert"), (4, "ended")]
    assert got[0][2]["scores"] == SCORES
    assert got[2][2]["words"].startswith("0:10.0: alert about person 0.")
    states = messages(answer.text)
    assert (states[0]["is_final"], states[0]["fake_from"], states[-1]["is_final"]) == (False, 0.6, True)
    resumed = look(api, url, "/live", **{"Last-Event-ID": "3"})
    assert [seq for seq, _, _ in parse(resumed.text)] == [4]
    polled = look(api, url + "&after=2", "/live/state").json
    assert ([event["kind"] for event in polled["events"]], polled["present"]["is_final"]) == (["alert", "ended"], True)
    services = api.app.extensions["deepfakestream"]
    assert services.waiting._value == services.settings.api.waiting
    assert services.streaming._value == services.settings.api.streaming


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "", "²", "9" * 19])
def test_numbers_of_events_that_are_none_are_refused(api, url, after):
    for answer in (
        look(api, f"{url}&after={after}", "/live/state"),
        look(api, url, "/live", **{"Last-Event-ID": after}) if after and after.isascii() else None,
    ):
        if answer is not None:
            assert (answer.status_code, answer.json["code"]) == (422, "invalid_request")


def test_more_events_than_one_answer_holds_come_in_order(api, stream_id, url):
    for index in range(120):
        add_segment(api, stream_id, index)
    end(api, stream_id)
    got = parse(look(api, url, "/live").text)
    assert [seq for seq, _, _ in got][:101] == list(range(1, 102)) or len(got) == 100
    rest = parse(look(api, url, "/live", **{"Last-Event-ID": str(got[-1][0])}).text)
    assert [seq for seq, _, _ in got + rest] == list(range(1, 122))


def test_a_page_without_a_slot_gets_the_news_and_connects_again(api, stream_id, url):
    add_segment(api, stream_id, 0)
    services = api.app.extensions["deepfakestream"]
    while services.streaming.acquire(blocking=False):
        pass
    answer = look(api, url, "/live")
    assert [kind for _, kind, _ in parse(answer.text)] == ["segment"]
    assert len(messages(answer.text)) == 1
    assert "retry: 2000" in answer.text
    assert services.waiting._value == services.settings.api.waiting


def test_the_newest_face_is_shown_to_the_owner_and_by_the_link_until_the_end(api, headers, stream_id, url):
    assert look(api, url, "/live/faces/0").status_code == 404
    with api.sessions.transaction() as session:
        session.add(StreamFace(job_id=uuid.UUID(stream_id), index=0, within=0, person=0, time_s=14.5, jpeg=JPEG))
    change(api, stream_id, people=[PERSON])
    owned = f"/v1/streams/{stream_id}/faces/0"
    for answer in (look(api, url, "/live/faces/0"), api.call("GET", owned, headers)):
        assert (answer.status_code, answer.mimetype, answer.data) == (200, "image/jpeg", JPEG)
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert f'src="/jobs/{stream_id}/report/live/faces/0?' in look(api, url).text
    assert api.call("GET", f"/v1/streams/{stream_id}", headers).json["people"][0]["face_s"] == 14.5
    assert api.call("GET", owned, api.key("another")[0]).status_code == 404
    assert look(api, url, f"/live/faces/{2**40}").status_code == 404
    end(api, stream_id)
    assert look(api, url, "/live/faces/0").status_code == 404
    assert api.call("GET", owned, headers).status_code == 404


def test_rows_and_events_of_the_release_before_are_shown(api, stream_id, url):
    add(api, stream_id, index=0, start_s=0.0, end_s=5.0, status="scored", fake_score=0.9, reasons=[], people=1)
    known = ("person", "fake_score", "faces", "is_alerting", "raised_s", "seen_s")
    change(api, stream_id, people=[{name: PERSON[name] for name in known}])
    assert "Over the last 30 s: mean score 90.0, 12 faces." in look(api, url).text
    found = look(api, url, "/live/state").json
    assert found["present"]["fake_from"] is None
    assert "scores" not in found["events"][0]


def test_an_untrained_detector_decides_nothing(api, stream_id, url):
    with api.sessions.transaction() as session:
        job = session.get_one(Job, uuid.UUID(stream_id))
        job.manifest = {**job.manifest, "trained": False}
    change(api, stream_id, people=[{**PERSON, "is_alerting": False, "verdict": "inconclusive"}], segments=1)
    text = look(api, url).text
    assert "Nothing is decided" in text
    assert "its scores mean nothing" in text
    assert "limit of an alert 60" not in text


def test_the_report_of_a_stream_that_has_ended_is_an_ordinary_one(api, headers, stream_id, url):
    change(api, stream_id, people=[PERSON], segments=1)
    with api.sessions.transaction() as session:
        end_job(session, lock_job(session, uuid.UUID(stream_id)), JobStatus.CANCELLED)
    text = look(api, url).text
    assert 'id="present"' not in text
    assert "This was a live stream" in text
    assert "Cancelled" in text
    assert "live stream" in api.call("GET", f"/v1/jobs/{stream_id}/report.html", headers).text
