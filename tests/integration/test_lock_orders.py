"""Transactions that lock several rows, in the worst order of two of them: they wait for each other, one at a time."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import delete, func, select

from shared.errors import UnsettledKeyError
from shared.jobs import batches, creation, ending
from shared.jobs.batches import NewBatch, create_batch, lock_jobs_of
from shared.jobs.creation import MAX_ATTEMPTS, create_job
from shared.jobs.ending import cancel_job, delete_job
from shared.jobs.leases import RetryPolicy, Step, acquire, fail_exhausted
from shared.jobs.queries import lock_job
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, find_manifest
from shared.media.files import StoredFile
from shared.models import Batch, BatchItem, Media
from shared.queues import Sender, make_celery
from tests.integration.rows import add_job, new_job_of, wait_until_blocked
from worker.config import WorkerSettings
from worker.tasks.context import Context
from worker.tasks.ingest import _store_source

MANIFEST = find_manifest(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT)
POLICY = RetryPolicy(max_attempts=1, backoff_s=0.0)


@pytest.fixture
def context(migrated_url, tmp_path):
    settings = WorkerSettings(
        database={"url": migrated_url},
        broker={"url": "redis://127.0.0.1:1/0"},
        storage={"url": f"file://{tmp_path}"},
    )
    context = Context.connect(settings, Sender(make_celery(settings.broker, settings.jobs)))
    yield context
    context.sessions.engine.dispose()


def new_batch_of(job, key=None):
    return NewBatch(job.owner, job.api_key_id, None, None, {}, key, "0" * 64)


def put_together(session, *jobs):
    """Make a batch of *jobs*; return its id."""
    batch, _ = create_batch(session, new_batch_of(jobs[0]))
    session.add_all(BatchItem(batch_id=batch.id, index=index, job_id=job.id) for index, job in enumerate(jobs))
    session.flush()
    return batch.id


def test_a_batch_is_erased_while_one_of_its_urls_turns_out_to_be_the_file_of_another(sessions, context):
    with sessions.transaction() as session:
        known = add_job(session)
        job, _ = create_job(
            session, replace(new_job_of(session, MANIFEST, owner=known.owner), source_url="https://a/b")
        )
        batch_id, sha256, media_id = put_together(session, known, job), known.media.sha256, known.media_id
        lease = acquire(session, Step.INGEST, (job.id,), 30, max_attempts=9)
        known_id, owner = known.id, known.owner

    def store(key):
        upload = context.storage.create(key)
        upload.write(b"file")
        upload.commit()
        return StoredFile(key, sha256, 4)

    with ThreadPoolExecutor() as threads:
        with sessions.transaction() as session:
            # As the request to erase the batch does it.
            jobs = lock_jobs_of(session, batch_id)
            ingesting = threads.submit(_store_source, context, lease, owner, store)
            wait_until_blocked(sessions, ingesting.done)
            session.scalars(select(Media).where(Media.id == media_id).with_for_update()).one()
            for each in jobs:
                if each.id == known_id:
                    delete_job(session, each)
        assert ingesting.result() is not None
    with sessions.transaction() as session:
        cancel_job(session, lock_job(session, lease.job_id))


def meet(monkeypatch, sessions, module, name):
    """Let two threads wait for each other after each has called the function *name* of *module* for the first time."""
    function, arrived = getattr(module, name), set()

    def call(*arguments):
        found = function(*arguments)
        if threading.get_ident() not in arrived:
            arrived.add(threading.get_ident())
            # Or else the other one waits for a lock of this one.
            wait_until_blocked(sessions, lambda: len(arrived) == 2)
        return found

    monkeypatch.setattr(module, name, call)


def fail_all(sessions, step):
    with sessions.transaction() as session:
        fail_exhausted(session, step, POLICY, 100)


def test_two_sweeps_that_fail_jobs_of_the_same_batches_do_not_deadlock(sessions, monkeypatch):
    with sessions.transaction() as session:
        jobs = [add_job(session) for _ in range(4)]
        # One sweep has the first and the last job, the other one those in between.
        batch_ids = [put_together(session, jobs[0], jobs[2]), put_together(session, jobs[1], jobs[3])]
        for job in jobs:
            assert acquire(session, Step.INGEST, (job.id,), -1, max_attempts=9) is not None
        for job in jobs[1:3]:
            job.segments_total = 0
    meet(monkeypatch, sessions, ending, "end_batch_of")
    with ThreadPoolExecutor() as threads:
        for failing in [threads.submit(fail_all, sessions, step) for step in (Step.INGEST, Step.FINISH)]:
            failing.result()
    with sessions.transaction() as session:
        assert session.scalar(select(func.count(Batch.ended_at)).where(Batch.id.in_(batch_ids))) == 2


@pytest.mark.parametrize("what", ["job", "batch"])
def test_a_repetition_of_what_is_erased_meanwhile_is_accepted_anew(sessions, monkeypatch, what):
    key = uuid.uuid4().hex
    with sessions.transaction() as session:
        new = replace(new_job_of(session, MANIFEST), source_url="https://a/b", idempotency_key=key)
        job, _ = create_job(session, new)
        batch, _ = create_batch(session, new_batch_of(job, key))
        first_ids = {"job": job.id, "batch": batch.id}
    module, name = {"job": (creation, "find_replayed_job"), "batch": (batches, "find_replayed_batch")}[what]
    find, asked = getattr(module, name), []

    def find_after_the_erasure(*arguments):
        # The row with the same key was there when this one was inserted.
        if not asked:
            with sessions.transaction() as other:
                if what == "job":
                    delete_job(other, lock_job(other, first_ids[what]))
                else:
                    other.delete(other.get_one(Batch, first_ids[what]))
        asked.append(True)
        return find(*arguments)

    monkeypatch.setattr(module, name, find_after_the_erasure)
    with sessions.transaction() as session:
        made, is_new = create_job(session, new) if what == "job" else create_batch(session, new_batch_of(job, key))
        assert is_new
        assert made.id != first_ids[what]
        if what == "job":
            cancel_job(session, lock_job(session, made.id))
    with sessions.transaction() as session:
        left = lock_job(session, first_ids["job"])
        if left is not None:
            cancel_job(session, left)
        session.execute(delete(Batch).where(Batch.owner == new.owner))


@pytest.mark.parametrize("what", ["job", "batch"])
def test_a_key_that_stays_taken_and_is_never_found_ends_in_an_error(sessions, monkeypatch, what):
    key = uuid.uuid4().hex
    with sessions.transaction() as session:
        new = replace(new_job_of(session, MANIFEST), source_url="https://a/b", idempotency_key=key)
        job, _ = create_job(session, new)
        create_batch(session, new_batch_of(job, key))
    module, name = {"job": (creation, "find_replayed_job"), "batch": (batches, "find_replayed_batch")}[what]
    asked = []
    monkeypatch.setattr(module, name, lambda *_: asked.append(True))
    with pytest.raises(UnsettledKeyError, match=key), sessions.transaction() as session:
        create_job(session, new) if what == "job" else create_batch(session, new_batch_of(job, key))
    assert len(asked) == MAX_ATTEMPTS
    with sessions.transaction() as session:
        cancel_job(session, lock_job(session, job.id))
        session.execute(delete(Batch).where(Batch.owner == new.owner))
