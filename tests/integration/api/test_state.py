"""Gauges of the service's state, with real rows and a real Redis."""

import uuid

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, text, update

from api.state_metrics import MIN_JOBS
from shared.manifests import DEFAULT_CHECKPOINT
from shared.models import Explanation, Job, Segment
from shared.queues import CPU_QUEUE
from tests.clips import noise_picture


@pytest.fixture
def owner(api):
    return api.key("owner")[0]


def gauges(api):
    """Return (name, labels) → value of every sample."""
    answer = api.call("GET", "/metrics", {})
    assert answer.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name.startswith("deepfakestream_")
    }


def of(found, name, **labels):
    return found.get((f"deepfakestream_{name}", tuple(sorted(labels.items()))))


def change(api, job_id, **values):
    with api.sessions.transaction() as session:
        session.execute(update(Job).where(Job.id == uuid.UUID(job_id)).values(**values))


def test_an_idle_service_has_nothing_open(api):
    found = gauges(api)
    assert of(found, "open_jobs", status="queued") == of(found, "open_segments", status="running") == 0
    assert of(found, "oldest_seconds", step="score") == of(found, "stored_bytes") == 0
    assert of(found, "messages", queue=CPU_QUEUE) == 0


def test_a_live_stream_is_counted_and_is_no_waiting_file(api, owner):
    stream_id = api.call("POST", "/v1/streams", owner, json={"url": "https://a.example/live.m3u8"}).json["id"]
    change(api, stream_id, created_at=func.now() - text("interval '90 minutes'"))
    found = gauges(api)
    assert (of(found, "open_streams", state="waiting"), of(found, "open_streams", state="away")) == (1, 0)
    assert of(found, "unread_streams") == 1
    assert of(found, "oldest_seconds", step="ingest") == 0
    change(api, stream_id, leased_until=func.now() + text("interval '5 seconds'"), lease_token=uuid.uuid4())
    assert of(gauges(api), "unread_streams") == 0
    change(api, stream_id, segments_total=3, status="running")
    assert of(gauges(api), "oldest_seconds", step="score") == 0


def test_open_work_is_counted_with_the_age_of_the_oldest(api, owner):
    job_id = api.submit(owner, noise_picture(1)).json["id"]
    found = gauges(api)
    assert of(found, "open_jobs", status="queued") == 1
    assert of(found, "messages", queue=CPU_QUEUE) == 1
    assert of(found, "stored_bytes") == len(noise_picture(1))
    change(api, job_id, created_at=func.now() - text("interval '90 seconds'"))
    assert 89 < of(gauges(api), "oldest_seconds", step="ingest") < 120
    with api.sessions.transaction() as session:
        session.add_all(
            [
                Segment(job_id=uuid.UUID(job_id), index=0, start_s=0, end_s=5, status="running"),
                Segment(job_id=uuid.UUID(job_id), index=1, start_s=5, end_s=9),
            ]
        )
    change(api, job_id, status="running", segments_total=2)
    found = gauges(api)
    assert of(found, "open_jobs", status="running") == 1
    assert of(found, "open_segments", status="pending") == of(found, "open_segments", status="running") == 1
    assert of(found, "oldest_seconds", step="ingest") == 0
    assert of(found, "oldest_seconds", step="score") > 89


def test_an_explanation_ages_from_the_moment_it_can_be_made(api, owner):
    job_id = api.submit(owner, noise_picture(1), query_string={"explain": "true"}).json["id"]
    waited = func.now() - text("interval '90 seconds'")
    with api.sessions.transaction() as session:
        session.execute(update(Explanation).values(send_after=waited))
    assert of(gauges(api), "oldest_seconds", step="explain") == 0
    change(api, job_id, status="succeeded", segments_total=0)
    assert 89 < of(gauges(api), "oldest_seconds", step="explain") < 120


def scored(api, owner, scores):
    """Add succeeded jobs with the given scores."""
    template = uuid.UUID(api.submit(owner, noise_picture(1)).json["id"])
    with api.sessions.transaction() as session:
        session.execute(
            text(
                "insert into jobs (id, owner, api_key_id, status, model, sample_fps, segment_seconds, metadata,"
                " request_sha256, reasons, attempts, fake_score, finished_at)"
                " select gen_random_uuid(), owner, api_key_id, 'succeeded', model, sample_fps, segment_seconds,"
                " metadata, request_sha256, reasons, 1, score, now()"
                " from jobs, unnest(cast(:scores as double precision[])) as score where id = :id"
            ),
            {"scores": scores, "id": template},
        )


def test_drift_is_reported_once_there_are_enough_scores(api, owner):
    scored(api, owner, [0.05] * (MIN_JOBS - 1))
    assert of(gauges(api), "score_psi", model=DEFAULT_CHECKPOINT) is None
    scored(api, owner, [0.15])
    near = gauges(api)
    assert of(near, "scores_compared", model=DEFAULT_CHECKPOINT) == MIN_JOBS
    scored(api, owner, [0.95] * 10 * MIN_JOBS)
    far = gauges(api)
    # The packaged checkpoint gives most real media of its validation scores below 0.2.
    near_index, far_index = (of(found, "score_psi", model=DEFAULT_CHECKPOINT) for found in (near, far))
    assert far_index > 2 * near_index > 0


def test_without_redis_the_other_gauges_remain(api, owner):
    api.submit(owner, noise_picture(1))
    api.redis.stop()
    found = gauges(api)
    assert of(found, "open_jobs", status="queued") == 1
    assert of(found, "messages", queue=CPU_QUEUE) is None
