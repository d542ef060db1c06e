"""Uploads that go to storage past the api: announced, put, claimed, taken over by ingest."""

import hashlib
import uuid
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import func, update

from shared.jobs.ending import cancel_job
from shared.jobs.queries import get_job, lock_job
from shared.models import DirectUpload, Job, Media
from shared.queues import Sender, make_celery
from shared.storage import open_storage
from tests.clips import noise_picture
from tests.integration.rows import lose_commits
from worker.config import WorkerSettings
from worker.tasks.context import Context
from worker.tasks.ingest import ingest
from worker.tasks.upkeep import tidy


@pytest.fixture
def api(make_api, s3_settings):
    return make_api(storage=s3_settings)


@pytest.fixture
def owner(api):
    return api.key("owner")[0]


@pytest.fixture
def storage(s3_settings):
    return open_storage(s3_settings)


@pytest.fixture
def worker(api):
    """What a cpu worker works with."""
    settings = WorkerSettings(
        database=api.settings.database, broker=api.settings.broker, storage=api.settings.storage, webhooks={}
    )
    context = Context.connect(settings, Sender(make_celery(settings.broker, settings.jobs)))
    yield context
    context.sessions.engine.dispose()


def announce(api, headers, size_bytes):
    return api.call("POST", "/v1/uploads", headers, json={"size_bytes": size_bytes})


def put(upload, content):
    return httpx.request(upload.json["method"], upload.json["url"], headers=upload.json["headers"], content=content)


def submit(api, headers, upload, **given):
    return api.call("POST", "/v1/jobs", headers, json={"upload_id": upload.json["id"], **given})


def sent(api, headers, content):
    upload = announce(api, headers, len(content))
    assert upload.status_code == 201
    assert put(upload, content).status_code == 200
    return upload


def keys(storage):
    return sorted(key for prefix in ("media", "incoming") for key, _ in storage.list(prefix))


def test_a_file_goes_to_storage_and_becomes_the_media_of_its_job(api, owner, storage, worker):
    picture = noise_picture(1)
    job = submit(api, owner, sent(api, owner, picture), metadata={"mine": 1})
    assert (job.status_code, job.json["media"], job.json["metadata"]) == (202, None, {"mine": 1})
    ingest(worker, uuid.UUID(job.json["id"]))
    document = api.call("GET", f"/v1/jobs/{job.json['id']}", owner).json
    assert document["media"]["sha256"] == hashlib.sha256(picture).hexdigest()
    assert (document["media"]["kind"], document["progress"]["segments_total"]) == ("image", 1)
    [key] = keys(storage)
    assert key.startswith("media/")


def test_what_is_put_there_after_ingest_changes_nothing(api, owner, storage, worker):
    first, second = noise_picture(1), noise_picture(2)
    size = max(len(first), len(second))
    first, second = first.ljust(size, b"\0"), second.ljust(size, b"\0")
    upload = sent(api, owner, first)
    job_id = uuid.UUID(submit(api, owner, upload).json["id"])
    ingest(worker, job_id)
    assert put(upload, second).status_code == 200
    with worker.sessions.transaction() as session:
        key = get_job(session, job_id).media.storage_key
    with storage.open(key) as stream:
        assert stream.read() == first


def test_an_upload_makes_one_job(api, owner):
    upload = sent(api, owner, noise_picture(1))
    assert submit(api, owner, upload).status_code == 202
    assert (submit(api, owner, upload).status_code, submit(api, owner, upload).json["code"]) == (404, "not_found")


def test_a_repeated_request_gets_the_same_job(api, owner, worker):
    headers = {**owner, "Idempotency-Key": "once"}
    upload = sent(api, owner, noise_picture(1))
    first = submit(api, headers, upload)
    ingest(worker, uuid.UUID(first.json["id"]))
    again = submit(api, headers, upload)
    assert (again.status_code, again.json["id"]) == (202, first.json["id"])
    other = sent(api, owner, noise_picture(2))
    assert submit(api, headers, other).json["code"] == "idempotency_conflict"
    # The one that was in conflict is still there for another job.
    assert submit(api, owner, other).status_code == 202


def test_a_request_repeated_with_another_upload_of_the_same_file_gets_the_same_job(api, owner):
    headers = {**owner, "Idempotency-Key": "once more"}
    picture = noise_picture(1)
    sha256 = hashlib.sha256(picture).hexdigest()
    first = submit(api, headers, sent(api, owner, picture), sha256=sha256)
    again = submit(api, headers, sent(api, owner, picture), sha256=sha256)
    assert (again.status_code, again.json["id"]) == (202, first.json["id"])
    other = submit(api, headers, sent(api, owner, picture), sha256="0" * 64)
    assert other.json["code"] == "idempotency_conflict"


def test_what_is_not_the_file_that_was_promised_fails_the_job(api, owner, storage, worker):
    picture = noise_picture(1)
    job = submit(api, owner, sent(api, owner, picture), sha256="0" * 64)
    ingest(worker, uuid.UUID(job.json["id"]))
    document = api.call("GET", f"/v1/jobs/{job.json['id']}", owner).json
    assert (document["status"], document["error"]["code"]) == ("failed", "checksum_mismatch")
    tidy(worker)
    assert keys(storage) == []
    right = submit(api, owner, sent(api, owner, picture), sha256=hashlib.sha256(picture).hexdigest())
    ingest(worker, uuid.UUID(right.json["id"]))
    assert api.call("GET", f"/v1/jobs/{right.json['id']}", owner).json["media"] is not None
    assert submit(api, owner, sent(api, owner, picture), sha256="ABC").status_code == 422


def test_nobody_takes_anothers_upload(api, owner):
    upload = sent(api, owner, noise_picture(1))
    stranger = api.key("stranger")[0]
    assert submit(api, stranger, upload).status_code == 404
    assert submit(api, owner, upload).status_code == 202


def test_a_file_that_has_not_arrived_makes_no_job_yet(api, owner):
    picture = noise_picture(1)
    upload = announce(api, owner, len(picture))
    assert submit(api, owner, upload).json["code"] == "upload_incomplete"
    assert put(upload, picture).status_code == 200
    assert submit(api, owner, upload).status_code == 202


def test_what_is_no_media_is_refused_and_the_upload_stays_until_it_runs_out(api, owner, storage, worker):
    upload = sent(api, owner, b"no picture at all" * 10)
    assert submit(api, owner, upload).json["code"] == "not_media"
    assert len(keys(storage)) == 1
    with worker.sessions.transaction() as session:
        session.execute(update(DirectUpload).values(expires_at=func.now()))
    assert submit(api, owner, upload).status_code == 404


@pytest.mark.parametrize("size_bytes", [0, -1, "10", 2**60, None])
def test_a_size_that_cannot_be_is_refused(api, owner, size_bytes):
    assert announce(api, owner, size_bytes).status_code == 422


def test_more_than_a_file_may_have_is_refused(api, owner):
    assert announce(api, owner, api.settings.limits.max_upload_bytes + 1).json["code"] == "too_large"


def test_a_known_file_is_stored_once(api, owner, storage, worker):
    picture = noise_picture(1)
    ids = [uuid.UUID(submit(api, owner, sent(api, owner, picture)).json["id"]) for _ in range(2)]
    for job_id in ids:
        ingest(worker, job_id)
    assert len(keys(storage)) == 1
    with worker.sessions.transaction() as session:
        assert len({get_job(session, job_id).media_id for job_id in ids}) == 1


def test_a_deleted_job_takes_its_upload_along(api, owner, storage):
    job = submit(api, owner, sent(api, owner, noise_picture(1)))
    assert api.call("DELETE", f"/v1/jobs/{job.json['id']}", owner).status_code == 204
    assert keys(storage) == []


def test_a_step_that_dies_half_way_is_done_again(api, owner, storage, worker, monkeypatch):
    job_id = uuid.UUID(submit(api, owner, sent(api, owner, noise_picture(1))).json["id"])
    with monkeypatch.context() as patch:
        patch.setattr("worker.tasks.ingest.record_source", lambda *_: 1 / 0)
        ingest(worker, job_id)
    # The source is still there, and the copy is not.
    assert [key.split("/")[0] for key in keys(storage)] == ["incoming"]
    with worker.sessions.transaction() as session:
        lock_job(session, job_id).send_after = func.now()
    ingest(worker, job_id)
    with worker.sessions.transaction() as session:
        assert get_job(session, job_id).media.facts is not None


def test_a_commit_whose_answer_is_lost_keeps_the_file(api, owner, worker, monkeypatch):
    job_id = uuid.UUID(submit(api, owner, sent(api, owner, noise_picture(1))).json["id"])
    with monkeypatch.context() as patch:
        lost = lose_commits(patch, worker.sessions.engine, of="insert into media")
        ingest(worker, job_id)
        assert lost == [True]
    with worker.sessions.transaction() as session:
        key = get_job(session, job_id).media.storage_key
        session.execute(update(Job).where(Job.id == job_id).values(send_after=func.now()))
    assert worker.storage.size(key) > 0
    ingest(worker, job_id)
    with worker.sessions.transaction() as session:
        assert get_job(session, job_id).segments_total == 1


def test_a_claimed_upload_counts_until_it_is_media(make_api, s3_settings):
    picture = noise_picture(1)
    api = make_api(storage=s3_settings, max_stored_bytes_per_owner=2 * len(picture) - 1)
    headers = api.key("owner")[0]
    assert submit(api, headers, sent(api, headers, picture)).status_code == 202
    assert announce(api, headers, len(picture)).json["code"] == "storage_quota_exceeded"


def test_a_service_whose_storage_no_sender_reaches_offers_none(make_api, s3_settings):
    api = make_api(storage=s3_settings.model_copy(update={"public_endpoint_url": None}))
    answer = announce(api, api.key("owner")[0], 10)
    assert (answer.status_code, answer.json["code"]) == (409, "no_direct_uploads")


def test_quotas_count_what_is_announced(make_api, s3_settings):
    api = make_api(storage=s3_settings, max_stored_bytes_per_owner=1000, max_open_jobs_per_owner=3)
    headers = api.key("owner")[0]
    assert announce(api, headers, 900).status_code == 201
    assert announce(api, headers, 101).json["code"] == "storage_quota_exceeded"
    assert announce(api, headers, 50).status_code == 201
    assert announce(api, headers, 50).status_code == 201
    refused = announce(api, headers, 1)
    assert (refused.status_code, refused.json["code"]) == (429, "too_many_open_uploads")
    assert "Retry-After" in refused.headers


def test_the_file_of_a_cancelled_job_goes_at_once(api, owner, storage):
    job = submit(api, owner, sent(api, owner, noise_picture(1)))
    assert keys(storage)
    assert api.call("POST", f"/v1/jobs/{job.json['id']}/cancel", owner).status_code == 200
    assert keys(storage) == []


def test_leftovers_go_and_what_is_waited_for_stays(api, owner, storage, worker, monkeypatch):
    waiting = submit(api, owner, sent(api, owner, noise_picture(1)))
    announced = sent(api, owner, noise_picture(2))
    cancelled = submit(api, owner, sent(api, owner, noise_picture(3)))
    with worker.sessions.transaction() as session:
        cancel_job(session, lock_job(session, uuid.UUID(cancelled.json["id"])))
    forgotten = sent(api, owner, noise_picture(4))
    with worker.sessions.transaction() as session:
        session.execute(
            update(DirectUpload).where(DirectUpload.id == uuid.UUID(forgotten.json["id"])).values(expires_at=func.now())
        )
    monkeypatch.setattr("worker.tasks.upkeep.ORPHAN_AGE", -timedelta(days=1))
    monkeypatch.setattr("worker.tasks.upkeep.ORPHAN_WINDOW", timedelta(days=3))
    tidy(worker)
    with worker.sessions.transaction() as session:
        kept = {session.get_one(Job, uuid.UUID(waiting.json["id"])).source_key, f"incoming/{announced.json['id']}"}
        assert session.query(Media).count() == 0
    assert set(keys(storage)) == kept


def test_an_upload_that_nobody_asked_for_goes_with_its_address_however_old_it_is(
    api, owner, storage, worker, monkeypatch
):
    """In a bucket, files without a row are looked for among those of the last days alone."""
    sent(api, owner, noise_picture(1))
    with worker.sessions.transaction() as session:
        session.execute(update(DirectUpload).values(expires_at=func.now()))
    monkeypatch.setattr("worker.tasks.upkeep.find_orphans", lambda *_: [])
    assert keys(storage)
    tidy(worker)
    assert keys(storage) == []
