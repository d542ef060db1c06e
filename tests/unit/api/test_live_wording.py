"""What the page of a live stream says while it runs."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from api.web.live_wording import count_parts, explain_event, explain_present, explain_rolling, explain_source
from shared.documents.base import ErrorDocument
from shared.documents.streams import PushDocument, StreamCounters, StreamOptionsDocument, StreamSummary

PERSON = {"person": 3, "fake_score": 0.1, "faces": 12, "verdict": "real", "fake_from": 0.6, "is_alerting": False}
OPTIONS = StreamOptionsDocument(
    model="m",
    sample_fps=2,
    segment_seconds=5,
    duration_limit_s=60,
    alert_threshold=None,
    record="none",
    last_faces=False,
    webhook_url=None,
    webhook_events=None,
)


def stream_of(segments=3, **changes):
    values = {
        "id": UUID(int=1),
        "status": "running",
        "state": "connected",
        "source": "rtsp://camera.example/…",
        "push": None,
        "source_error": None,
        "created_at": datetime.now(UTC),
        "started_at": None,
        "finished_at": None,
        "why": None,
        "options": OPTIONS,
        "metadata": {},
        "counters": StreamCounters(segments=segments, dropped=1, gaps=1, reconnects=2),
        "verdict": None,
        "fake_score": None,
        "reasons": [],
        "error": None,
        "last_seq": 0,
    }
    return StreamSummary(**{**values, **changes})


@pytest.mark.parametrize(
    ("stream", "people", "title"),
    [
        ({}, [PERSON], "No alert at present"),
        ({}, [PERSON, {**PERSON, "is_alerting": True}], "Alert: signs of a swapped face"),
        # An alert stands until it is cleared, and without one it matters whether anything is judged.
        ({"state": "away"}, [{**PERSON, "is_alerting": True}], "Alert: signs of a swapped face"),
        ({"state": "away"}, [PERSON], "The source is away"),
        ({}, [{**PERSON, "is_held_back": True}], "Signs of a swapped face again"),
        ({}, [], "No face at present"),
        ({}, [{**PERSON, "fake_score": None}], "No face at present"),
        ({"segments": 0}, [], "Waiting for the first pictures"),
    ],
)
def test_the_title_clears_nobody_whom_nothing_judges(stream, people, title):
    assert explain_present(stream_of(**stream), people, is_trained=True)[0] == title
    assert explain_present(stream_of(**stream), people, is_trained=False)[0] == "Nothing is decided"


def test_people_with_alerts_are_named():
    people = [{**PERSON, "person": number, "is_alerting": True} for number in (0, 4)]
    assert "persons 0, 4 score" in explain_present(stream_of(), people, is_trained=True)[1]
    assert "person 4 score" in explain_present(stream_of(), people[1:], is_trained=True)[1]


def test_why_the_source_is_away_is_on_one_line():
    error = ErrorDocument(code="source_unreachable", detail="the source is\ngone \u202e<b>")
    assert explain_source(stream_of(state="away", source_error=error)) == (
        r"The source is away, and is connected again as soon as it answers. The source is gone \u202e<b>."
    )
    push = PushDocument(protocol="rtmp", address="rtmp://here.example/live", key=None)
    assert explain_source(stream_of(state="away", push=push)).startswith("The publisher is away, and the stream goes")
    assert explain_source(stream_of(state="waiting")) == "The source has sent no picture yet."
    assert explain_source(stream_of(source_error=error)) == "The source is connected.", "why it was away is over"
    assert explain_source(stream_of(state="ending", why="duration")).startswith("The stream has reached its longest")
    assert "segments read, 1 left out" in count_parts(stream_of())
    assert count_parts(stream_of(segments=1)).startswith("1 segment read")


def test_a_person_is_described_by_the_window_and_by_newer_faces():
    assert explain_rolling(PERSON, 30.0, is_trained=True) == (
        "No signs of a swap at present. Over the last 30 s: mean score 10.0, 12 faces, limit of an alert 60.0."
    )
    alerting = {**PERSON, "is_alerting": True, "raised_s": 65.0}
    words = explain_rolling(alerting, 30.0, is_trained=True)
    assert words.startswith("Alert since 1:05.0: signs of a swap.")
    assert words.endswith("The newest faces alone are above their limit.")
    assert explain_rolling({**PERSON, "fake_score": None}, 30.0, is_trained=True).startswith("No face was scored")
    assert "limit" not in explain_rolling(PERSON, 30.0, is_trained=False)
    assert explain_rolling({**PERSON, "verdict": "new"}, 30.0, is_trained=True).startswith("No alert.")


def test_only_what_is_announced_has_words():
    cleared = {"action": "cleared", "person": 1, "time_s": 60.0, "start_s": 50.0, "faces": 0, "limit": 0.5}
    assert explain_event("segment", {}) is None
    assert explain_event("ended", {}) is None
    assert "not seen any more" in explain_event("alert", {**cleared, "fake_score": None})
    assert explain_event("alert", {**cleared, "fake_score": 0.2}).endswith("is over. Mean score 20.0.")
    assert explain_event("source", {"state": "connected", "error": None}) == "The source is connected."
    away = {"state": "away", "error": {"code": "c", "detail": "it closed"}}
    assert explain_event("source", away) == "The source is away. It closed."
    assert explain_event("source", {"state": "waiting", "error": None}) == "The source is away."
