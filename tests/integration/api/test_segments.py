"""Jobs with many segments: their documents, and the pages of segments."""

import uuid

import pytest
from sqlalchemy import event, insert, update

from shared.cursors import write_cursor
from shared.documents.webhooks import JobPayload
from shared.jobs.queries import get_job
from shared.jobs.segments import read_segments, summarize_result
from shared.models import Job, Segment
from tests.integration.test_segments import RESULT

MANY = 1150


@pytest.fixture
def many(make_api):
    """Return an api, headers with a key, and a running job of many segments, two of which are open."""
    api = make_api()
    headers, key = api.key()
    job_id = uuid.UUID(api.submit(headers).json["id"])
    add_segments(api, job_id, MANY)
    return api, headers, key, job_id


def add_segments(api, job_id, count):
    """Add *count* segments to a job."""
    row = {"job_id": job_id, "status": "scored", "fake_score": 0.25, "result": RESULT, **summarize_result(RESULT)}
    rows = [{**row, "index": index, "start_s": index, "end_s": index + 1} for index in range(count)]
    for last in rows[-2:]:
        last |= {"status": "pending", "fake_score": None, "result": None, **dict.fromkeys(summarize_result(RESULT))}
    with api.sessions.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(status="running", segments_total=count))
        session.execute(insert(Segment), rows)


def get(api, headers, path):
    """Return the document at *path*."""
    answer = api.call("GET", path, headers)
    assert answer.status_code == 200, answer.json
    return answer.json


def test_a_job_lists_its_first_segments_and_a_cursor_for_the_others(many):
    api, headers, _, job_id = many
    job = get(api, headers, f"/v1/jobs/{job_id}")
    assert [segment["index"] for segment in job["segments"]] == list(range(100))
    assert job["progress"] == {"segments_total": MANY, "segments_done": MANY - 2, "fraction": 0.9983}
    listed = get(api, headers, "/v1/jobs")["items"][0]
    assert listed["progress"] == job["progress"]
    path = f"/v1/jobs/{job_id}/segments?view=summary&limit=1000&cursor="
    second = get(api, headers, path + job["segments_next_cursor"])
    third = get(api, headers, path + second["next_cursor"])
    rest = second["items"] + third["items"]
    assert third["next_cursor"] is None
    assert [segment["index"] for segment in rest] == list(range(100, MANY))
    assert rest[0] | {"index": 0, "start_s": 0, "end_s": 1} == job["segments"][0]
    assert rest[-1] | {"people": 0, "reasons": [], "engine": None, "status": "pending"} == rest[-1]


def test_segments_with_faces_have_smaller_pages(many):
    api, headers, _, job_id = many
    page = get(api, headers, f"/v1/jobs/{job_id}/segments?limit=100")
    assert len(page["items"]) == 100
    assert page["items"][0]["people"] == RESULT["people"]
    assert len(get(api, headers, f"/v1/jobs/{job_id}/segments?view=summary")["items"]) == 20
    for wrong in ("limit=101", "view=full&limit=101", "view=summary&limit=1001", "view=small"):
        answer = api.call("GET", f"/v1/jobs/{job_id}/segments?{wrong}", headers)
        assert (answer.status_code, answer.json["code"]) == (422, "invalid_request"), wrong


def test_cancellation_and_webhook_list_no_more_segments(many):
    api, headers, _, job_id = many
    answer = api.call("POST", f"/v1/jobs/{job_id}/cancel", headers)
    assert answer.status_code == 200
    assert len(answer.json["segments"]) == 100
    assert answer.json["segments_next_cursor"] == write_cursor(99)
    with api.sessions.transaction() as session:
        job = get_job(session, job_id)
        payload = JobPayload.from_job("job.cancelled", job, read_segments(session, job)).to_json()
    assert payload["data"] == answer.json == get(api, headers, f"/v1/jobs/{job_id}")


def statements(api, call):
    """Return the SQL statements of a call."""
    engine = api.app.extensions["deepfakestream"].sessions.engine
    seen = []

    def note(_connection, _cursor, statement, *_):
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        call()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return seen


def test_reading_and_erasing_take_a_constant_number_of_statements(many):
    api, headers, _, job_id = many
    looks = statements(api, lambda: get(api, headers, f"/v1/jobs/{job_id}"))
    assert len(looks) <= 6
    assert not [sql for sql in looks if "count(" in sql]
    erasing = statements(api, lambda: api.call("DELETE", f"/v1/jobs/{job_id}", headers))
    assert len([sql for sql in erasing if sql.startswith("DELETE FROM segments")]) == 1
    assert not [sql for sql in erasing if "segments.result" in sql]
