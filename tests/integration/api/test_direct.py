"""
Direct uploads: begun, uploaded, claimed by a job, and ingested, wherever the service keeps files.

What is particular to those that the api takes itself is in ``test_received_uploads``.
"""

import hashlib
import uuid
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import delete, func, update

from shared.config import StorageSettings
from shared.jobs.ending import cancel_job
from shared.jobs.leases import Step, acquire
from shared.jobs.queries import get_job, lock_job
from shared.models import DirectUpload, Job, Media, Segment
from shared.storage import open_storage
from tests.clips import noise_picture
from tests.integration.api.conftest import api_maker
from tests.integration.api.finished import finish_job
from tests.integration.rows import lose_commits
from worker.tasks.ingest import ingest
from worker.tasks.upkeep import tidy

OWN = "http://localhost"
"""Where the client of these tests believes the api to be."""


@pytest.fixture(scope="module")
def make_api(postgres_url, template_url, tmp_path_factory):
    """One database for all tests, each of which has a storage and owners of its own."""
    with api_maker(postgres_url, template_url, tmp_path_factory.mktemp("unused")) as make:
        yield make


@pytest.fixture(params=["folder", *[pytest.param(name, marks=pytest.mark.merge) for name in ("S3", "S3 inside")]])
def storage_settings(request, tmp_path):
    """Settings of a folder, of S3 that clients reach, and of S3 that only the service reaches."""
    if request.param == "folder":
        return StorageSettings(url=f"file://{tmp_path}/files")
    settings = request.getfixturevalue("s3_settings")
    return settings if request.param == "S3" else settings.model_copy(update={"public_endpoint_url": None})


@pytest.fixture
def api(make_api, storage_settings):
    return make_api(storage=storage_settings)


@pytest.fixture
def owner(api):
    return new_owner(api)


def new_owner(api):
    """Return headers of an owner who has nothing yet."""
    return api.key(uuid.uuid4().hex)[0]


@pytest.fixture
def storage(storage_settings):
    return open_storage(storage_settings)


def begin_upload(api, headers, size_bytes):
    return api.call("POST", "/v1/uploads", headers, json={"size_bytes": size_bytes})


def put(api, upload, content):
    method, url, headers = (upload.json[name] for name in ("method", "url", "headers"))
    if url.startswith(f"{OWN}/"):
        return api.call(method, url.removeprefix(OWN), headers, data=content)
    return httpx.request(method, url, headers=headers, content=content)


def submit(api, headers, upload, **given):
    return api.call("POST", "/v1/jobs", headers, json={"upload_id": upload.json["id"], **given})


def upload_file(api, headers, content):
    upload = begin_upload(api, headers, len(content))
    assert upload.status_code == 201
    assert put(api, upload, content).status_code == 200
    return upload


def keys(storage):
    return sorted(key for prefix in ("media", "incoming") for key, _ in storage.list(prefix))


def test_a_file_goes_to_storage_and_becomes_the_media_of_its_job(api, owner, storage, worker):
    picture = noise_picture(1)
    job = submit(api, owner, upload_file(api, owner, picture), metadata={"mine": 1})
    assert (job.status_code, job.json["media"], job.json["metadata"]) == (202, None, {"mine": 1})
    ingest(worker, uuid.UUID(job.json["id"]))
    document = api.call("GET", f"/v1/jobs/{job.json['id']}", owner).json
    assert document["media"]["sha256"] == hashlib.sha256(picture).hexdigest()
    assert (document["media"]["kind"], document["progress"]["segments_total"]) == ("image", 1)
    [key] = keys(storage)
    assert key.startswith("media/")


@pytest.mark.parametrize("explain", [True, False])
def test_a_direct_upload_can_request_an_explanation(api, owner, worker, explain):
    job_id = submit(api, owner, upload_file(api, owner, noise_picture(1)), explain=explain).json["id"]
    ingest(worker, uuid.UUID(job_id))
    found = api.call("GET", f"/v1/jobs/{job_id}/explanations", owner)
    assert (found.status_code, found.json.get("status")) == ((200, "pending") if explain else (404, 404))
    with api.sessions.transaction() as session:
        session.execute(delete(Segment).where(Segment.job_id == uuid.UUID(job_id)))
    finish_job(api, job_id)
    with api.sessions.transaction() as session:
        taken = acquire(session, Step.EXPLAIN, (uuid.UUID(job_id),), 60.0, max_attempts=2)
    assert (taken is not None) == explain


def test_overwriting_an_upload_after_ingest_changes_nothing(api, owner, storage, worker):
    first, second = noise_picture(1), noise_picture(2)
    size = max(len(first), len(second))
    first, second = first.ljust(size, b"\0"), second.ljust(size, b"\0")
    upload = upload_file(api, owner, first)
    job_id = uuid.UUID(submit(api, owner, upload).json["id"])
    ingest(worker, job_id)
    # Only storage itself takes another file then, which is removed as an orphan.
    assert put(api, upload, second).status_code == (404 if upload.json["url"].startswith(OWN) else 200)
    with worker.sessions.transaction() as session:
        key = get_job(session, job_id).media.storage_key
    with storage.open(key) as stream:
        assert stream.read() == first


def test_an_upload_can_be_used_for_one_job(api, owner):
    upload = upload_file(api, owner, noise_picture(1))
    assert submit(api, owner, upload).status_code == 202
    assert (submit(api, owner, upload).status_code, submit(api, owner, upload).json["code"]) == (404, "not_found")


def test_a_repeated_request_gets_the_same_job(api, owner, worker):
    headers = {**owner, "Idempotency-Key": "once"}
    upload = upload_file(api, owner, noise_picture(1))
    first = submit(api, headers, upload)
    ingest(worker, uuid.UUID(first.json["id"]))
    again = submit(api, headers, upload)
    assert (again.status_code, again.json["id"]) == (202, first.json["id"])
    other = upload_file(api, owner, noise_picture(2))
    assert submit(api, headers, other).json["code"] == "idempotency_conflict"
    # The upload of the conflicting request can still be used for another job.
    assert submit(api, owner, other).status_code == 202


def test_a_request_repeated_with_another_upload_of_the_same_file_gets_the_same_job(api, owner):
    headers = {**owner, "Idempotency-Key": "once more"}
    picture = noise_picture(1)
    sha256 = hashlib.sha256(picture).hexdigest()
    first = submit(api, headers, upload_file(api, owner, picture), sha256=sha256)
    again = submit(api, headers, upload_file(api, owner, picture), sha256=sha256)
    assert (again.status_code, again.json["id"]) == (202, first.json["id"])
    other = submit(api, headers, upload_file(api, owner, picture), sha256="0" * 64)
    assert other.json["code"] == "idempotency_conflict"


def test_a_wrong_checksum_fails_the_job(api, owner, storage, worker):
    picture = noise_picture(1)
    job = submit(api, owner, upload_file(api, owner, picture), sha256="0" * 64)
    ingest(worker, uuid.UUID(job.json["id"]))
    document = api.call("GET", f"/v1/jobs/{job.json['id']}", owner).json
    assert (document["status"], document["error"]["code"]) == ("failed", "checksum_mismatch")
    tidy(worker)
    assert keys(storage) == []
    right = submit(api, owner, upload_file(api, owner, picture), sha256=hashlib.sha256(picture).hexdigest())
    ingest(worker, uuid.UUID(right.json["id"]))
    assert api.call("GET", f"/v1/jobs/{right.json['id']}", owner).json["media"] is not None
    assert submit(api, owner, upload_file(api, owner, picture), sha256="ABC").status_code == 422


def test_an_upload_of_another_owner_cannot_be_used(api, owner):
    upload = upload_file(api, owner, noise_picture(1))
    stranger = new_owner(api)
    assert submit(api, stranger, upload).status_code == 404
    assert submit(api, owner, upload).status_code == 202


def test_an_incomplete_upload_creates_no_job(api, owner):
    picture = noise_picture(1)
    upload = begin_upload(api, owner, len(picture))
    assert submit(api, owner, upload).json["code"] == "upload_incomplete"
    assert put(api, upload, picture).status_code == 200
    assert submit(api, owner, upload).status_code == 202


def test_an_upload_that_is_not_media_is_refused_and_kept_until_it_expires(api, owner, storage, worker):
    upload = upload_file(api, owner, b"no picture at all" * 10)
    assert submit(api, owner, upload).json["code"] == "not_media"
    assert len(keys(storage)) == 1
    with worker.sessions.transaction() as session:
        session.execute(update(DirectUpload).values(expires_at=func.now()))
    assert submit(api, owner, upload).status_code == 404


@pytest.mark.parametrize("size_bytes", [0, -1, "10", 2**60, None])
def test_an_impossible_size_is_refused(api, owner, size_bytes):
    assert begin_upload(api, owner, size_bytes).status_code == 422


def test_a_size_over_the_limit_is_refused(api, owner):
    assert begin_upload(api, owner, api.settings.limits.max_upload_bytes + 1).json["code"] == "too_large"


def test_a_known_file_is_stored_once(api, owner, storage, worker):
    picture = noise_picture(1)
    ids = [uuid.UUID(submit(api, owner, upload_file(api, owner, picture)).json["id"]) for _ in range(2)]
    for job_id in ids:
        ingest(worker, job_id)
    assert len(keys(storage)) == 1
    with worker.sessions.transaction() as session:
        assert len({get_job(session, job_id).media_id for job_id in ids}) == 1


def test_deleting_a_job_removes_its_upload(api, owner, storage):
    job = submit(api, owner, upload_file(api, owner, noise_picture(1)))
    assert api.call("DELETE", f"/v1/jobs/{job.json['id']}", owner).status_code == 204
    assert keys(storage) == []


def test_an_interrupted_ingest_is_repeated(api, owner, storage, worker, monkeypatch):
    job_id = uuid.UUID(submit(api, owner, upload_file(api, owner, noise_picture(1))).json["id"])
    with monkeypatch.context() as patch:
        patch.setattr("worker.tasks.ingest.record_source", lambda *_: 1 / 0)
        ingest(worker, job_id)
    # The upload still exists, the copy does not.
    assert [key.split("/")[0] for key in keys(storage)] == ["incoming"]
    with worker.sessions.transaction() as session:
        lock_job(session, job_id).send_after = func.now()
    ingest(worker, job_id)
    with worker.sessions.transaction() as session:
        assert get_job(session, job_id).media.facts is not None


def test_an_unconfirmed_commit_keeps_the_file(api, owner, worker, monkeypatch):
    job_id = uuid.UUID(submit(api, owner, upload_file(api, owner, noise_picture(1))).json["id"])
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


def test_a_claimed_upload_counts_until_it_is_media(make_api, storage_settings):
    picture = noise_picture(1)
    api = make_api(storage=storage_settings, max_stored_bytes_per_owner=2 * len(picture) - 1)
    headers = new_owner(api)
    assert submit(api, headers, upload_file(api, headers, picture)).status_code == 202
    assert begin_upload(api, headers, len(picture)).json["code"] == "storage_quota_exceeded"


def test_quotas_include_open_uploads(make_api, storage_settings):
    api = make_api(storage=storage_settings, max_stored_bytes_per_owner=1000, max_open_jobs_per_owner=3)
    headers = new_owner(api)
    assert begin_upload(api, headers, 900).status_code == 201
    assert begin_upload(api, headers, 101).json["code"] == "storage_quota_exceeded"
    assert begin_upload(api, headers, 50).status_code == 201
    assert begin_upload(api, headers, 50).status_code == 201
    refused = begin_upload(api, headers, 1)
    assert (refused.status_code, refused.json["code"]) == (429, "too_many_open_uploads")
    assert "Retry-After" in refused.headers


def test_the_file_of_a_cancelled_job_is_removed_at_once(api, owner, storage):
    job = submit(api, owner, upload_file(api, owner, noise_picture(1)))
    assert keys(storage)
    assert api.call("POST", f"/v1/jobs/{job.json['id']}/cancel", owner).status_code == 200
    assert keys(storage) == []


def test_leftovers_are_removed_and_open_uploads_stay(api, owner, storage, worker, monkeypatch):
    waiting = submit(api, owner, upload_file(api, owner, noise_picture(1)))
    announced = upload_file(api, owner, noise_picture(2))
    cancelled = submit(api, owner, upload_file(api, owner, noise_picture(3)))
    with worker.sessions.transaction() as session:
        cancel_job(session, lock_job(session, uuid.UUID(cancelled.json["id"])))
    forgotten = upload_file(api, owner, noise_picture(4))
    with worker.sessions.transaction() as session:
        session.execute(
            update(DirectUpload).where(DirectUpload.id == uuid.UUID(forgotten.json["id"])).values(expires_at=func.now())
        )
    monkeypatch.setattr("worker.tasks.upkeep.ORPHAN_AGE", -timedelta(days=1))
    monkeypatch.setattr("worker.tasks.upkeep.ORPHAN_WINDOW", timedelta(days=3))
    tidy(worker)
    with worker.sessions.transaction() as session:
        job = session.get_one(Job, uuid.UUID(waiting.json["id"]))
        kept = {job.source_key, f"incoming/{announced.json['id']}"}
        assert session.query(Media).filter(Media.owner == job.owner).count() == 0
    assert set(keys(storage)) == kept


def test_an_unclaimed_upload_is_removed_when_it_expires(api, owner, storage, worker, monkeypatch):
    """In a bucket only the objects of the last days are searched for orphans."""
    upload_file(api, owner, noise_picture(1))
    with worker.sessions.transaction() as session:
        session.execute(update(DirectUpload).values(expires_at=func.now()))
    monkeypatch.setattr("worker.tasks.upkeep.find_orphans", lambda *_: [])
    assert keys(storage)
    tidy(worker)
    assert keys(storage) == []
