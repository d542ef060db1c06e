"""Streams that are published to the service, over HTTP: their address, and a key that is shown once."""

import uuid

import pytest
from sqlalchemy import func, select

from shared.models import Job, Stream
from shared.streams.keys import digest_key
from shared.streams.pushing import claim_pushed, find_pushed

ADDRESS = "rtmp://live.example:1935"


@pytest.fixture
def api(make_api):
    return make_api(streams={"push_address": ADDRESS})


def begin(api, headers, **body):
    answer = api.call("POST", "/v1/streams", headers, json={"push": "rtmp", **body})
    assert answer.status_code == 202, answer.text
    return answer


def test_the_answer_has_the_address_and_the_key_which_nothing_else_shows(api, headers, capfd):
    answer = begin(api, headers, metadata={"room": 7})
    made = answer.json
    key = made["push"]["key"]
    assert made["push"] == {"protocol": "rtmp", "address": f"{ADDRESS}/live", "key": key}
    assert (made["state"], made["source"], len(key)) == ("waiting", f"{ADDRESS}/live", 52)
    assert answer.headers["Cache-Control"] == "private, no-store"
    shown = [
        api.call("GET", f"/v1/streams/{made['id']}", headers),
        api.call("GET", "/v1/streams", headers),
        api.call("GET", f"/v1/jobs/{made['id']}", headers),
        api.call("POST", f"/v1/streams/{made['id']}/stop", headers),
    ]
    assert shown[0].json["push"] == {"protocol": "rtmp", "address": f"{ADDRESS}/live", "key": None}
    assert all(key not in text for text in (*(one.text for one in shown), *capfd.readouterr()))


def test_only_the_digest_of_the_key_is_stored(api, headers):
    made = begin(api, headers).json
    key = made["push"]["key"]
    with api.sessions.transaction() as session:
        row = session.execute(select(func.row_to_json(Stream.__table__.table_valued()))).scalar_one()
        assert key not in str(row)
        assert session.scalar(select(Stream.push_key_sha256)) == digest_key(key)
        assert find_pushed(session, key) == uuid.UUID(made["id"])
        assert find_pushed(session, key + "x") is None


def test_a_repeated_request_replaces_the_key_until_somebody_publishes(api, headers):
    keyed = {**headers, "Idempotency-Key": "one"}
    first, second = begin(api, keyed).json, begin(api, keyed).json
    assert first["id"] == second["id"]
    assert first["push"]["key"] != second["push"]["key"]
    with api.sessions.transaction() as session:
        assert find_pushed(session, first["push"]["key"]) is None
        job_id = find_pushed(session, second["push"]["key"])
        claim_pushed(session, job_id, lease_s=30, max_attempts=3)
    assert begin(api, keyed).json["push"]["key"] is None
    with api.sessions.transaction() as session:
        assert find_pushed(session, second["push"]["key"]) == job_id


def test_a_stopped_stream_has_no_key_any_more(api, headers):
    made = begin(api, headers).json
    api.call("POST", f"/v1/streams/{made['id']}/stop", headers)
    with api.sessions.transaction() as session:
        assert find_pushed(session, made["push"]["key"]) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "either url or push"),
        ({"push": "rtmp", "url": "rtsp://camera.example/hall"}, "either url or push"),
        ({"push": "srt"}, "rtmp"),
        ({"push": "rtmp", "secret": {"password": "hush-hush"}}, "secret belongs to url"),
    ],
    ids=["neither", "both", "other protocol", "with secret"],
)
def test_what_cannot_be_published_is_refused(api, headers, body, said):
    answer = api.call("POST", "/v1/streams", headers, json=body)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_request")
    assert said in answer.text
    assert "hush-hush" not in answer.text
    with api.sessions.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_a_service_without_an_address_for_publishers_says_so(make_api):
    api = make_api()
    headers, _ = api.key("owner")
    answer = api.call("POST", "/v1/streams", headers, json={"push": "rtmp"})
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_request")
    assert "streams.push_address" in answer.json["detail"]
