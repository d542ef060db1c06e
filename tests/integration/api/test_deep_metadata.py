"""Metadata from older releases that is nested deeper than this release accepts and pydantic writes."""

import json
import uuid

import pytest
from sqlalchemy import update

from shared.documents.webhooks import JobPayload
from shared.jobs.queries import get_job
from shared.jobs.segments import read_segments
from shared.models import Job

LEVELS = 400


@pytest.fixture
def stored(make_api):
    """Return an api, headers with a key, the id of a job with deep metadata, and the metadata."""
    api = make_api()
    headers, _ = api.key()
    job_id = uuid.UUID(api.submit(headers).json["id"])
    metadata = json.loads('{"a":' * LEVELS + "1" + "}" * LEVELS)
    with api.sessions.transaction() as session:
        # An older release or a manual change may have written these values.
        values = {"client_metadata": metadata, "fake_score": 1.0000000000000002}
        session.execute(update(Job).where(Job.id == job_id).values(**values))
    return api, headers, job_id, metadata


def test_a_job_with_deep_metadata_can_be_listed_read_cancelled_and_delivered(stored):
    api, headers, job_id, metadata = stored
    for method, path in (("GET", f"/v1/jobs/{job_id}"), ("POST", f"/v1/jobs/{job_id}/cancel"), ("GET", "/v1/jobs")):
        answer = api.call(method, path, headers)
        assert answer.status_code == 200, answer.json
        job = answer.json["items"][0] if path == "/v1/jobs" else answer.json
        assert (job["metadata"], job["fake_score"]) == (metadata, 1.0000000000000002)
    with api.sessions.transaction() as session:
        found = get_job(session, job_id)
        payload = JobPayload.from_job("job.cancelled", found, read_segments(session, found)).to_json()
    # The worker writes the body in this way.
    body = json.dumps(payload, separators=(",", ":"), sort_keys=True)
    assert json.loads(body)["data"] == api.call("GET", f"/v1/jobs/{job_id}", headers).json
