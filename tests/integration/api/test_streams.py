"""Live streams over HTTP: begin, follow, stop and erase; what a reader would do is done by the functions it calls."""

import json
import threading
import time
import uuid

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import undefer

from shared.jobs.ending import end_job
from shared.jobs.leases import Step, acquire
from shared.jobs.queries import lock_job
from shared.models import AuditEvent, Job, Segment, Stream, StreamEvent
from shared.states import JobStatus, StreamEventKind
from shared.streams.claims import claim_streams
from shared.streams.cleanup import find_stream
from shared.streams.events import add_event

SECRET = "hush-hush-4711"
URL = "rtsp://cameras.example:8554/hall/key-98765"
BODY = {"url": URL, "secret": {"username": "viewer", "password": SECRET}}


@pytest.fixture
def api(make_api):
    return make_api()


@pytest.fixture
def headers(api):
    return api.key("owner")[0]


def begin(api, headers, **changes):
    answer = api.call("POST", "/v1/streams", headers, json={**BODY, **changes})
    assert answer.status_code == 202, answer.text
    return answer.json


def add(api, stream_id, kind=StreamEventKind.SEGMENT, **payload):
    with api.sessions.transaction() as session:
        lock_job(session, uuid.UUID(stream_id))
        add_event(session, find_stream(session, uuid.UUID(stream_id)), kind, payload)


def end(api, stream_id):
    with api.sessions.transaction() as session:
        end_job(session, lock_job(session, uuid.UUID(stream_id)), JobStatus.CANCELLED)


def parse(text):
    """The events of a stream of events: (id, kind, data)."""
    lines = [[line for line in block.splitlines() if not line.startswith(":")] for block in text.split("\n\n")]
    blocks = [dict(line.split(": ", 1) for line in block) for block in lines]
    return [(int(one["id"]), one["event"], json.loads(one["data"])) for one in blocks if "id" in one]


def test_a_new_stream_waits_for_a_reader_and_shows_no_secret(api, headers, capfd):
    made = begin(api, headers, alert_threshold=0.8, metadata={"room": 7})
    assert (made["status"], made["state"], made["source"]) == ("queued", "waiting", "rtsp://cameras.example:8554/…")
    assert made["options"]["segment_seconds"] == 5.0
    assert made["poll_after_s"] == api.call("GET", f"/v1/streams/{made['id']}", headers).json["poll_after_s"] == 2.0
    assert made["options"]["record"] == "none"
    shown = [
        api.call("GET", f"/v1/streams/{made['id']}", headers).text,
        api.call("GET", "/v1/streams", headers).text,
        api.call("GET", f"/v1/jobs/{made['id']}", headers).text,
        api.call("POST", f"/v1/streams/{made['id']}/stop", headers).text,
        json.dumps(made),
        *capfd.readouterr(),
    ]
    assert all(SECRET not in text and "key-98765" not in text for text in shown)


def test_the_secret_is_given_to_the_reader_and_erased_at_the_end(api, headers):
    made = begin(api, headers)
    with api.sessions.transaction() as session:
        [claim] = claim_streams(session, 5, lease_s=30, max_attempts=3)
    assert (claim.url, claim.username, claim.password) == (URL, "viewer", SECRET)
    assert SECRET not in repr(claim)
    assert "98765" not in repr(claim)
    with api.sessions.transaction() as session:
        assert claim_streams(session, 5, lease_s=30, max_attempts=3) == []
    end(api, made["id"])
    with api.sessions.transaction() as session:
        found = session.scalars(select(Stream).options(undefer(Stream.secret), undefer(Stream.rolling))).one()
        assert (found.secret, found.rolling) == (None, None)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"url": "ftp://cameras.example/x"}, "forbidden_url"),
        ({"url": "udp://@:5000"}, "forbidden_url"),
        ({"url": f"rtsp://viewer:{SECRET}@cameras.example/x"}, "forbidden_url"),
        ({"url": "whep://cameras.example/x"}, "forbidden_url"),
        ({"webhook_url": "http://receiver.example/"}, "forbidden_url"),
        ({"duration_limit_s": 10**6}, "invalid_request"),
        ({"segment_seconds": 0.1}, "invalid_request"),
        ({"record": "everything"}, "invalid_request"),
        ({"model": "unknown"}, "unknown_model"),
        ({"secret": {"password": SECRET * 100}}, "invalid_request"),
        ({"secret": {"passwort": SECRET}}, "unknown_option"),
        ({"secret": {"username": "viewer\0"}}, "invalid_request"),
        ({"secret": {"username": "viewer", "password": f"{SECRET}\0"}}, "invalid_request"),
        ({"secret": {"password": f"{SECRET}\ud800"}}, "invalid_request"),
    ],
)
def test_what_cannot_be_watched_is_refused_without_repeating_secrets(api, headers, changes, code):
    answer = api.call("POST", "/v1/streams", headers, json={**BODY, **changes})
    assert (answer.status_code, answer.json["code"]) == (422, code)
    assert SECRET not in answer.text
    with api.sessions.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


@pytest.mark.parametrize("secret", [{}, {"password": None}, {"username": None}, None])
def test_a_source_without_credentials_needs_none(api, headers, secret):
    answer = api.call("POST", "/v1/streams", headers, json={"url": URL, "secret": secret})
    assert answer.status_code == 202, answer.text


def test_a_repeated_request_gives_the_same_stream(api, headers):
    keyed = {**headers, "Idempotency-Key": "one"}
    first, second = (api.call("POST", "/v1/streams", keyed, json=BODY) for _ in range(2))
    assert first.json["id"] == second.json["id"]
    assert second.headers["Idempotent-Replayed"] == "true"
    other = api.call("POST", "/v1/streams", keyed, json={**BODY, "record": "suspicious"})
    assert (other.status_code, other.json["code"]) == (409, "idempotency_conflict")
    job = api.call(
        "POST", "/v1/jobs", {**keyed, "Content-Type": "application/json"}, json={"url": "https://a.example/b"}
    )
    assert job.status_code == 409


def test_an_owner_has_only_so_many_open_streams(make_api):
    api = make_api(streams={"max_open_per_owner": 2})
    headers, _ = api.key("owner")
    made = [begin(api, headers) for _ in range(2)]
    answer = api.call("POST", "/v1/streams", headers, json=BODY)
    assert (answer.status_code, answer.json["code"]) == (429, "too_many_open_jobs")
    begin(api, api.key("another")[0])
    end(api, made[0]["id"])
    begin(api, headers)


def test_streams_are_listed_in_pages_and_only_for_their_owner(api, headers):
    made = [begin(api, headers)["id"] for _ in range(3)]
    api.submit(headers)
    first = api.call("GET", "/v1/streams?limit=2", headers).json
    second = api.call("GET", f"/v1/streams?limit=2&cursor={first['next_cursor']}", headers).json
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None
    assert api.call("GET", "/v1/streams?status=failed", headers).json["items"] == []
    assert api.call("GET", "/v1/streams", api.key("another")[0]).json["items"] == []


def test_a_job_that_is_no_stream_is_not_found_as_one(api, headers):
    job_id = api.submit(headers).json["id"]
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/stop"), ("DELETE", "")):
        assert api.call(method, f"/v1/streams/{job_id}{path}", headers).status_code == 404


def test_events_come_after_a_number_and_are_waited_for(api, headers):
    stream_id = begin(api, headers)["id"]
    for index in range(3):
        add(api, stream_id, index=index)
    path = f"/v1/streams/{stream_id}"
    assert api.call("GET", path, headers).json["events"] == []
    found = api.call("GET", f"{path}?after=1", headers).json
    assert [(event["seq"], event["data"]["index"]) for event in found["events"]] == [(2, 1), (3, 2)]
    assert found["last_seq"] == 3
    later = threading.Timer(0.5, add, (api, stream_id), {"index": 3})
    later.start()
    began = time.monotonic()
    found = api.call("GET", f"{path}?after=3&wait_s=10", headers).json
    assert [event["seq"] for event in found["events"]] == [4]
    assert 0.3 < time.monotonic() - began < 9
    later.join()
    end(api, stream_id)
    began = time.monotonic()
    found = api.call("GET", f"{path}?after=5&wait_s=10", headers).json
    assert time.monotonic() - began < 9
    assert (found["state"], found["events"]) == ("ended", [])


def test_server_sent_events_go_on_after_the_last_one(api, headers):
    stream_id = begin(api, headers)["id"]
    add(api, stream_id, index=0)
    add(api, stream_id, StreamEventKind.ALERT, action="raised", note="a\nb\n\ndata: c")
    later = threading.Timer(0.4, end, (api, stream_id))
    later.start()
    path = f"/v1/streams/{stream_id}/events"
    answer = api.call("GET", path, headers)
    later.join()
    assert answer.mimetype == "text/event-stream"
    got = parse(answer.text)
    assert [(seq, kind) for seq, kind, _ in got] == [(1, "segment"), (2, "alert"), (3, "ended")]
    assert got[1][2]["data"]["note"] == "a\nb\n\ndata: c"
    resumed = parse(api.call("GET", path, {**headers, "Last-Event-ID": "2"}).text)
    assert [seq for seq, _, _ in resumed] == [3]
    assert api.call("GET", path, {**headers, "Last-Event-ID": "3"}).status_code == 204
    services = api.app.extensions["deepfakestream"]
    assert services.waiting._value == services.settings.api.waiting
    assert services.streaming._value == services.settings.api.streaming


def test_too_many_followers_are_refused_and_hold_no_slot(api, headers):
    stream_id = begin(api, headers)["id"]
    services = api.app.extensions["deepfakestream"]
    while services.waiting.acquire(blocking=False):
        pass
    answer = api.call("GET", f"/v1/streams/{stream_id}/events", headers)
    assert (answer.status_code, answer.json["code"]) == (503, "overloaded")
    assert services.streaming._value == services.settings.api.streaming
    # A long poll is answered at once instead.
    assert api.call("GET", f"/v1/streams/{stream_id}?after=0&wait_s=30", headers).status_code == 200


def test_a_stream_that_nobody_reads_is_stopped_and_erased(api, headers):
    stream_id = begin(api, headers, webhook_url="https://receiver.example/hook")["id"]
    for _ in range(2):
        stopped = api.call("POST", f"/v1/streams/{stream_id}/stop", headers).json
        assert (stopped["status"], stopped["state"], stopped["why"]) == ("cancelled", "ended", "request")
        assert stopped["poll_after_s"] is None
    log = api.call("GET", f"/v1/jobs/{stream_id}/deliveries", headers).json["items"]
    assert [item["event"] for item in log] == ["stream.ended"]
    assert api.call("DELETE", f"/v1/streams/{stream_id}", headers).status_code == 204
    assert api.call("GET", f"/v1/streams/{stream_id}", headers).status_code == 404
    with api.sessions.transaction() as session:
        for table in (Stream, StreamEvent):
            assert session.scalar(select(func.count()).select_from(table)) == 0
        actions = session.scalars(select(AuditEvent.action).where(AuditEvent.job_id == uuid.UUID(stream_id))).all()
    assert sorted(actions) == ["stream.begun", "stream.erased", "stream.stopped"]


def test_a_stream_that_is_read_is_left_to_its_reader(api, headers):
    stream_id = begin(api, headers)["id"]
    with api.sessions.transaction() as session:
        assert acquire(session, Step.STREAM, (uuid.UUID(stream_id),), 30, max_attempts=3)
    stopped = api.call("POST", f"/v1/streams/{stream_id}/stop", headers).json
    assert (stopped["status"], stopped["state"]) == ("running", "waiting")
    with api.sessions.transaction() as session:
        assert find_stream(session, uuid.UUID(stream_id)).stop_requested_at is not None
    cancelled = api.call("POST", f"/v1/jobs/{stream_id}/cancel", headers).json
    assert cancelled["status"] == "cancelled"
    assert api.call("GET", f"/v1/streams/{stream_id}", headers).json["state"] == "ended"


def test_recorded_segments_are_listed_and_sent(api, headers):
    kept = begin(api, headers, record="suspicious")["id"]
    other = begin(api, headers)["id"]
    storage = api.app.extensions["deepfakestream"].storage
    for stream_id in (kept, other):
        for index in range(3):
            key = f"live/{uuid.uuid4()}"
            upload = storage.create(key)
            upload.write(b"piece %d" % index)
            upload.commit()
            with api.sessions.transaction() as session:
                row = Segment(job_id=uuid.UUID(stream_id), index=index, start_s=2.0 * index, end_s=2.0 * index + 2)
                row.storage_key, row.lead_s = (None if index == 1 else key), 0.5
                session.add(row)
    path = f"/v1/streams/{kept}/recordings"
    first = api.call("GET", f"{path}?limit=1", headers).json
    assert first["items"] == [{"index": 0, "start_s": 0.0, "end_s": 2.0, "lead_s": 0.5}]
    second = api.call("GET", f"{path}?limit=1&cursor={first['next_cursor']}", headers).json
    assert ([item["index"] for item in second["items"]], second["next_cursor"]) == ([2], None)
    answer = api.call("GET", f"{path}/2", headers)
    assert (answer.data, answer.mimetype) == (b"piece 2", "video/x-matroska")
    assert api.call("GET", f"{path}/1", headers).status_code == 404
    # What another stream has in storage waits to be scored, and is not kept.
    assert api.call("GET", f"/v1/streams/{other}/recordings", headers).json["items"] == []
    assert api.call("GET", f"/v1/streams/{other}/recordings/0", headers).status_code == 404
    services = api.app.extensions["deepfakestream"]
    assert services.viewing._value == services.settings.api.viewing
    api.call("DELETE", f"/v1/streams/{kept}", headers)
    assert api.call("GET", f"{path}/2", headers).status_code == 404
    assert len(api.files()) == 3 + 1, "those of the other stream, and of the segment that had lost its key"


def test_a_stream_has_reports_and_no_media_to_score_again(api, headers):
    stream_id = begin(api, headers)["id"]
    end(api, stream_id)
    assert api.call("GET", f"/v1/jobs/{stream_id}/report.html", headers).status_code == 200
    assert api.call("POST", f"/v1/jobs/{stream_id}/rescore", headers, json={}).json["code"] == "media_missing"
