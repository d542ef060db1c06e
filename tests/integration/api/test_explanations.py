"""Explanations of jobs: their request, their images in storage, and what erases them."""

import uuid
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, select, update

from shared.config import Broker
from shared.db import Message
from shared.errors import JobCancelledError, ObjectMissingError
from shared.jobs.ending import Failure, cancel_job, end_job
from shared.jobs.explanations import find_explanation, new_images_key, store_images
from shared.jobs.leases import RetryPolicy, Step, acquire
from shared.jobs.queries import lock_job
from shared.jobs.results import record_explanation
from shared.models import Explanation, Job, Media, Removal, Segment
from shared.queues import ALL_LISTS, EXPLAIN, GPU_QUEUE, Sender, make_celery
from shared.states import ExplanationStatus, JobStatus
from shared.storage import FileStorage
from tests.clips import noise_picture
from tests.integration.api.explained import worker_context
from tests.integration.api.finished import finish_job
from tests.integration.api.test_pdf_reports import all_taken
from worker.config import WorkerSettings
from worker.tasks.context import Context
from worker.tasks.explain import read_faces
from worker.tasks.sweep import sweep
from worker.tasks.upkeep import tidy, upkeep

IMAGES = {"person-0-crop.webp": b"first image", "person-0-map.webp": b"second"}
LEASE_S = 60.0


@pytest.fixture
def context(api):
    settings = WorkerSettings(
        database={"url": api.settings.database.url},
        broker=Broker(url="memory://"),
        storage=api.settings.storage,
        webhooks={},
    )
    sender = Sender(make_celery(settings.broker, settings.jobs))
    return Context(settings, api.sessions, FileStorage(api.storage.as_uri()), sender, RetryPolicy(2, 0.0))


def finished(api, headers, **options):
    """Submit a job, and end it as its steps do."""
    answer = api.submit(headers, query_string={"explain": "true", **options})
    assert answer.status_code == 202, answer.text
    finish_job(api, answer.json["id"])
    return answer.json["id"]


def take(api, job_id, max_attempts=2):
    with api.sessions.transaction() as session:
        return acquire(session, Step.EXPLAIN, (uuid.UUID(job_id),), LEASE_S, max_attempts=max_attempts)


def record(api, context, job_id):
    """Store images and record them as the step does; return their storage key."""
    lease, key = take(api, job_id), new_images_key()
    places = store_images(context.storage, key, IMAGES)
    with api.sessions.transaction() as session:
        record_explanation(session, lease, {"note": "", "model": {}, "people": [], "images": places}, key)
    return key


def explained(api, headers, context):
    job_id = finished(api, headers)
    return job_id, record(api, context, job_id)


def stored(context):
    return {key for key, _ in context.storage.list("explanations")}


def row(api, job_id):
    with api.sessions.transaction() as session:
        found = find_explanation(session, uuid.UUID(job_id))
        if found is not None:
            session.expunge(found)
        return found


def where(job_id, name=""):
    return f"/v1/jobs/{job_id}/explanations" + (f"/{name}" if name else "")


def expire_lease(api):
    with api.sessions.transaction() as session:
        session.execute(update(Explanation).values(leased_until=func.now() - timedelta(seconds=1)))


def run_sweep(api, context):
    return sweep(api.sessions, context.settings.jobs, context.policy, dict.fromkeys(ALL_LISTS, 0))[Step.EXPLAIN]


def test_deletion_removes_the_images_from_storage(api, headers, context):
    job_id, key = explained(api, headers, context)
    assert stored(context) == {key}
    assert api.call("DELETE", f"/v1/jobs/{job_id}", headers).status_code == 204
    tidy(context)
    assert (stored(context), row(api, job_id)) == (set(), None)
    for method, path in (("GET", where(job_id)), ("POST", where(job_id)), ("GET", where(job_id, "person-0-map.webp"))):
        answer = api.call(method, path, headers)
        assert (answer.status_code, answer.json["code"]) == (404, "not_found")


def test_expiry_of_media_erases_images_and_keeps_numbers(api, headers, context):
    job_id, _ = explained(api, headers, context)
    with api.sessions.transaction() as session:
        session.execute(update(Media).values(expires_at=func.now() - timedelta(days=1)))
    tidy(context)
    assert stored(context) == set()
    answer = api.call("GET", where(job_id), headers)
    assert (answer.status_code, answer.json["status"]) == (200, "succeeded")
    gone = api.call("GET", where(job_id, "person-0-map.webp"), headers)
    assert (gone.status_code, gone.json["code"]) == (410, "media_missing")
    # The numbers are all that is left, and they are no reason for an error.
    assert api.call("POST", where(job_id), headers).json["status"] == "succeeded"


def test_media_that_expired_before_the_request_is_gone(api, headers, context):
    answer = api.submit(headers)
    finish_job(api, answer.json["id"])
    with api.sessions.transaction() as session:
        session.execute(update(Media).values(expires_at=func.now() - timedelta(days=1)))
    tidy(context)
    gone = api.call("POST", where(answer.json["id"]), headers)
    assert (gone.status_code, gone.json["code"]) == (410, "media_missing")
    assert row(api, answer.json["id"]) is None


def test_images_do_not_outlive_media_that_is_erased_while_they_are_made(api, headers):
    job_id = finished(api, headers)
    lease = take(api, job_id)
    with api.sessions.transaction() as session:
        session.execute(update(Media).values(storage_key=None))
    with pytest.raises(ObjectMissingError), api.sessions.transaction() as session:
        record_explanation(session, lease, {}, new_images_key())


@pytest.mark.parametrize("erase", [update(Job).values(deleted_at=func.now()), delete(Job)], ids=["tombstone", "row"])
def test_an_erasure_by_an_older_release_removes_the_images(api, headers, context, erase):
    job_id, key = explained(api, headers, context)
    with api.sessions.transaction() as session:
        session.execute(erase)
    with api.sessions.transaction() as session:
        assert session.scalars(select(Removal.storage_key)).all() == [key]
    tidy(context)
    assert (stored(context), row(api, job_id)) == (set(), None)


def test_a_worker_that_dies_between_images_and_row_leaves_nothing(api, headers, context, monkeypatch):
    job_id = finished(api, headers)
    assert take(api, job_id) is not None
    lost = new_images_key()
    store_images(context.storage, lost, IMAGES)
    assert run_sweep(api, context) == 0
    expire_lease(api)
    assert run_sweep(api, context) == 1
    kept = record(api, context, job_id)
    tidy(context)
    assert stored(context) == {lost, kept}
    monkeypatch.setattr("worker.tasks.upkeep.ORPHAN_AGE", -timedelta(days=1))
    tidy(context)
    assert stored(context) == {kept}


def test_many_explanations_do_not_delay_messages_of_scoring_that_were_lost(api, headers):
    job_id = uuid.UUID(api.submit(headers).json["id"])
    with api.sessions.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(status=JobStatus.RUNNING, segments_total=1))
        long_ago = func.now() - timedelta(seconds=30)
        session.add(Segment(job_id=job_id, index=0, start_s=0.0, end_s=5.0, sent_at=long_ago, send_after=long_ago))
    with worker_context(api) as context:
        for _ in range(3):
            context.sender.send(Message(EXPLAIN, (("job_id", uuid.uuid4()),)))
        assert context.sender.depth(GPU_QUEUE) == 3
        upkeep(context)
        assert context.sender.depth(GPU_QUEUE) == 4


def test_exhausted_attempts_fail_the_explanation_and_not_the_job(api, headers, context):
    job_id = finished(api, headers)
    before = api.call("GET", f"/v1/jobs/{job_id}", headers).json
    for _ in range(context.policy.max_attempts):
        assert take(api, job_id) is not None
        expire_lease(api)
        run_sweep(api, context)
    assert take(api, job_id) is None
    found = row(api, job_id)
    assert (found.status, found.error_code) == (ExplanationStatus.FAILED, "attempts_exhausted")
    after = api.call("GET", f"/v1/jobs/{job_id}", headers).json
    assert {**after, "explanation": None} == {**before, "explanation": None}
    refused = api.call("POST", where(job_id), headers)
    assert (refused.status_code, refused.json["code"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert row(api, job_id).status == ExplanationStatus.FAILED
    with api.sessions.transaction() as session:
        session.execute(update(Explanation).values(finished_at=Explanation.finished_at - timedelta(seconds=61)))
    assert api.call("POST", where(job_id), headers).json["status"] == "pending"
    assert take(api, job_id).attempt == 1


def test_open_explanations_of_an_owner_are_limited_as_open_jobs(make_api):
    api = make_api(max_open_jobs_per_owner=1)
    (headers, _), (other, _) = api.key(), api.key("another")
    jobs = []
    for number in range(2):
        jobs.append(api.submit(headers, noise_picture(number)).json["id"])
        finish_job(api, jobs[-1])
    assert api.call("POST", where(jobs[0]), headers).status_code == 202
    refused = api.call("POST", where(jobs[1]), headers)
    assert (refused.status_code, refused.json["code"]) == (429, "too_many_open_jobs")
    assert int(refused.headers["Retry-After"]) > 0
    assert row(api, jobs[1]) is None
    # Repeating a request adds nothing, and other owners have limits of their own.
    assert api.call("POST", where(jobs[0]), headers).status_code == 202
    another = api.submit(other, noise_picture(3)).json["id"]
    finish_job(api, another)
    assert api.call("POST", where(another), other).status_code == 202


def test_an_explanation_that_is_not_final_says_when_to_ask_again(api, headers, context):
    job_id = finished(api, headers)
    for method in ("POST", "GET"):
        answer = api.call(method, where(job_id), headers)
        assert (answer.json["status"], answer.json["poll_after_s"]) == ("pending", 2.0)
    record(api, context, job_id)
    for method in ("POST", "GET"):
        answer = api.call(method, where(job_id), headers)
        assert (answer.json["status"], answer.json["poll_after_s"]) == ("succeeded", None)


def test_requests_of_explanations_count_as_submissions(make_api):
    api = make_api(requests_per_minute=100, submissions_per_minute=2)
    headers, _ = api.key()
    job_id = api.submit(headers).json["id"]
    finish_job(api, job_id)
    assert [api.call("POST", where(job_id), headers).status_code for _ in range(3)] == [202, 202, 429]
    assert api.call("GET", where(job_id), headers).status_code == 200


@pytest.mark.parametrize("status", [None, JobStatus.FAILED, JobStatus.CANCELLED])
def test_jobs_without_a_result_are_not_explained_and_drop_their_request(api, headers, status):
    job_id = api.submit(headers, query_string={"explain": "true"}).json["id"]
    with api.sessions.transaction() as session:
        job = lock_job(session, uuid.UUID(job_id))
        if status == JobStatus.FAILED:
            end_job(session, job, status, failure=Failure("decode_failed", "it cannot be decoded"))
        elif status == JobStatus.CANCELLED:
            cancel_job(session, job)
    answer = api.call("POST", where(job_id), headers)
    is_final = status in (JobStatus.FAILED, JobStatus.CANCELLED)
    assert (answer.status_code, answer.json["code"]) == (409, "job_already_final" if is_final else "job_not_final")
    assert (row(api, job_id) is None) == (status is not None)
    assert take(api, job_id) is None


def test_a_rescoring_inherits_the_request_and_a_reused_result_is_explained(api, headers, context):
    parent, _ = explained(api, headers, context)
    again = api.call("POST", f"/v1/jobs/{parent}/rescore", headers, json={"model": "swap-lite0"}).json
    assert again["explanation"] == {"status": "pending"}
    without = api.call("POST", f"/v1/jobs/{parent}/rescore", headers, json={"model": "swap-lite0", "explain": False})
    assert without.json.get("explanation") is None
    reused = api.submit(headers, query_string={"explain": "true", "reuse": "true"}).json
    assert (reused["reused_from"], reused["status"]) == (parent, "succeeded")
    assert take(api, reused["id"]) is not None


@pytest.mark.parametrize("explain", [True, False])
def test_a_submission_by_url_can_request_it(api, headers, explain):
    body = {"url": "https://example.com/clip.mp4", "explain": explain}
    answer = api.call("POST", "/v1/jobs", headers, json=body)
    assert answer.status_code == 202, answer.text
    found = row(api, answer.json["id"])
    assert (found is not None and found.status == ExplanationStatus.PENDING) == explain
    # Nothing is explained before the job has succeeded.
    assert take(api, answer.json["id"]) is None


@pytest.mark.parametrize(
    "name",
    ["..%2F..%2Fmedia", "%2Fetc%2Fpasswd", "person-0-crop.webp%00", "person-0-overlay.webp", "note", "__class__"],
)
def test_only_images_of_the_job_itself_are_read(api, headers, context, name):
    job_id, _ = explained(api, headers, context)
    assert api.call("GET", where(job_id, "person-0-map.webp"), headers).data == b"second"
    assert api.call("GET", where(job_id, name), headers).status_code in (404, 422)
    stranger = api.key("stranger")[0]
    assert api.call("GET", where(job_id, "person-0-map.webp"), stranger).status_code == 404
    assert api.call("POST", where(job_id), stranger).status_code == 404


def test_a_link_gives_the_images_of_its_job_until_it_is_revoked(api, headers, context):
    (job_id, _), other = explained(api, headers, context), api.submit(headers, query_string={"reuse": "false"}).json
    share = api.call("POST", f"/v1/jobs/{job_id}/shares", headers, json={}).json
    token = share["url"].partition("?")[2]
    path = f"/jobs/{job_id}/report/explanations/person-0-map.webp"
    assert api.call("GET", f"{path}?{token}", {}).data == b"second"
    assert api.call("GET", f"{path.replace(job_id, other['id'])}?{token}", {}).status_code == 404
    assert api.call("GET", f"{path.replace('person-0-map.webp', '..%2Fmap')}?{token}", {}).status_code == 404
    assert api.call("DELETE", f"/v1/jobs/{job_id}/shares/{share['id']}", headers).status_code == 204
    assert api.call("GET", f"{path}?{token}", {}).status_code == 404


def test_images_of_a_report_wait_for_each_other_and_not_for_media(api, headers, context, monkeypatch):
    monkeypatch.setattr("api.web.explained_routes.IMAGE_WAIT_S", 0.01)
    job_id, _ = explained(api, headers, context)
    token = api.call("POST", f"/v1/jobs/{job_id}/shares", headers, json={}).json["url"].partition("?")[2]
    path = f"/jobs/{job_id}/report/explanations/person-0-map.webp?{token}"
    services = api.app.extensions["deepfakestream"]
    with all_taken(services.viewing):
        assert api.call("GET", path, {}).data == b"second"
    with all_taken(services.viewing_images):
        refused = api.call("GET", path, {})
        assert (refused.status_code, refused.json["code"]) == (503, "overloaded")
        assert int(refused.headers["Retry-After"]) > 0
    # Each request gives its slot back.
    for _ in range(services.settings.api.viewing + 1):
        assert api.call("GET", path, {}).data == b"second"


def test_reading_the_faces_of_a_job_ends_once_its_lease_is_lost(api, headers, context):
    job_id = uuid.UUID(finished(api, headers))
    choice, plan = read_faces(context, job_id, lambda: False)
    assert len(plan) == 3
    assert choice.choose(plan)
    with pytest.raises(JobCancelledError):
        read_faces(context, job_id, lambda: True)
