from collections import defaultdict
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from shared.config import Jobs
from shared.db import SessionFactory
from shared.errors import DecodeError, JobCancelledError
from shared.jobs.deliveries import list_deliveries
from shared.jobs.ending import cancel_job
from shared.jobs.leases import RetryPolicy, Step, release, renew
from shared.jobs.leases import acquire as lease_step
from shared.jobs.queries import get_job, get_segments, lock_job
from shared.jobs.results import record_segment
from shared.models import Job, Media, Removal, Segment
from shared.observability import JOBS_ENDED
from shared.queues import ALL_LISTS, DELIVER_WEBHOOK, FINISH, INGEST, SCORE_SEGMENT
from tests.counters import counted
from tests.integration.rows import add_job
from tests.integration.test_jobs import RESULT, lease, planned_job
from worker.tasks.expiry import expire
from worker.tasks.sweep import sweep

SETTINGS = Jobs(max_attempts=2)
LONG_AGO = func.now() - timedelta(seconds=SETTINGS.resend_after_s + 1)


POLICY = RetryPolicy(SETTINGS.max_attempts, backoff_s=0.0)


class Collected(SessionFactory):
    """A session factory that records the effects of its transactions instead of running them."""

    def __init__(self, engine):
        super().__init__(engine, lambda _, pending: self.keep(pending))
        self.messages = []

    def keep(self, pending):
        self.messages += pending.messages
        for increment in pending.counts:
            increment()


def run_sweep(sessions, *, depth=0):
    """Run the sweep and return the keys of rows whose messages were sent again, by task."""
    collected = Collected(sessions.engine)
    sweep(collected, SETTINGS, POLICY, dict.fromkeys(ALL_LISTS, depth))
    found = defaultdict(list)
    for message in collected.messages:
        found[message.task].append(tuple(value for _, value in message.ids))
    return found


@pytest.fixture(autouse=True)
def _end_open_rows(sessions):
    """End what other tests left open, since the sweep handles all rows."""
    with sessions.transaction() as session:
        open_jobs = select(Job.id).where(Job.status.in_(("queued", "running")))
        for job_id in session.scalars(open_jobs).all():
            job = lock_job(session, job_id)
            # None of one that a test has erased meanwhile.
            if job is not None:
                cancel_job(session, job)


def test_a_job_whose_message_was_lost_is_sent_again_once(sessions):
    with sessions.transaction() as session:
        job = add_job(session)
        job.sent_at = LONG_AGO
        job_id = job.id
    assert run_sweep(sessions, depth=1)[INGEST] == []
    assert run_sweep(sessions)[INGEST] == [(job_id,)]
    assert run_sweep(sessions)[INGEST] == []


def test_a_job_with_a_recent_message_is_left_alone(sessions):
    with sessions.transaction() as session:
        add_job(session).sent_at = func.now()
    assert run_sweep(sessions)[INGEST] == []


def test_pending_segments_whose_messages_were_lost_are_sent_again(sessions):
    job_id = planned_job(sessions)
    assert run_sweep(sessions)[SCORE_SEGMENT] == []
    with sessions.transaction() as session:
        session.execute(update(Segment).where(Segment.job_id == job_id).values(sent_at=LONG_AGO))
    assert run_sweep(sessions, depth=3)[SCORE_SEGMENT] == []
    assert run_sweep(sessions)[SCORE_SEGMENT] == [(job_id, 0), (job_id, 1)]


def test_a_segment_whose_worker_died_is_sent_again_even_if_the_queue_is_full(sessions):
    job_id = planned_job(sessions)
    lease(sessions, job_id, 1, lease_s=-1)
    assert run_sweep(sessions, depth=9)[SCORE_SEGMENT] == [(job_id, 1)]
    with sessions.transaction() as session:
        assert [segment.status for segment in get_segments(session, job_id)] == ["pending", "pending"]


def test_a_segment_that_killed_its_worker_too_often_fails(sessions):
    job_id = planned_job(sessions, segments=1)
    for _ in range(SETTINGS.max_attempts):
        lease(sessions, job_id, 0, lease_s=-1)
    found = run_sweep(sessions)
    assert (found[SCORE_SEGMENT], found[FINISH]) == ([], [(job_id,)])
    with sessions.transaction() as session:
        segment = get_segments(session, job_id)[0]
        assert (segment.status, segment.error_code) == ("failed", "attempts_exhausted")


def test_a_job_that_killed_its_ingest_too_often_fails(sessions):
    with sessions.transaction() as session:
        job_id = add_job(session, webhook_url="https://receiver.example/hook").id
        for _ in range(SETTINGS.max_attempts):
            assert lease_step(session, Step.INGEST, (job_id,), -1, max_attempts=9) is not None
    # Attempts that other tests scheduled may be due.
    sent = run_sweep(sessions)[DELIVER_WEBHOOK]
    with sessions.transaction() as session:
        job = get_job(session, job_id)
        [delivery] = list_deliveries(session, job_id)
        assert sent.count((delivery.id,)) == 1
        assert (job.status, job.error_code) == ("failed", "attempts_exhausted")


def test_a_job_without_open_segments_is_sent_to_finish(sessions):
    job_id = planned_job(sessions, segments=1)
    held = lease(sessions, job_id, 0)
    with sessions.transaction() as session:
        record_segment(session, held, fake_score=0.5, result=RESULT)
        session.execute(update(Job).where(Job.id == job_id).values(sent_at=LONG_AGO))
    assert run_sweep(sessions)[FINISH] == [(job_id,)]


def test_segments_of_a_cancelled_job_are_left_alone(sessions):
    job_id = planned_job(sessions)
    with sessions.transaction() as session:
        session.execute(update(Segment).where(Segment.job_id == job_id).values(sent_at=LONG_AGO))
        cancel_job(session, lock_job(session, job_id))
    assert run_sweep(sessions)[SCORE_SEGMENT] == []


def test_expired_media_of_an_ended_job_is_erased_and_its_result_kept(sessions):
    job_id = planned_job(sessions)
    with sessions.transaction() as session:
        media = get_job(session, job_id).media
        media.expires_at, media.provenance = LONG_AGO, {"state": "valid"}
        key, media_id = media.storage_key, media.id
    expire(sessions, Jobs(result_retention_days=1))
    with sessions.transaction() as session:
        assert session.get(Removal, key) is None
        cancel_job(session, lock_job(session, job_id))
    expire(sessions, Jobs(result_retention_days=1))
    with sessions.transaction() as session:
        assert session.get(Removal, key) is not None
        assert session.get_one(Media, media_id).storage_key is None
        assert session.scalars(select(Media.id).where(Media.id == media_id, Media.provenance.is_(None))).all()
        assert get_job(session, job_id).status == "cancelled"


def test_results_past_their_retention_are_erased(sessions):
    job_id = planned_job(sessions)
    with sessions.transaction() as session:
        cancel_job(session, lock_job(session, job_id))
    with sessions.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=func.now() - timedelta(days=2)))
    assert expire(sessions, Jobs(result_retention_days=1))[1] >= 1
    with sessions.transaction() as session:
        assert get_job(session, job_id) is None


def test_a_job_that_killed_its_finish_too_often_fails_and_is_counted(sessions):
    job_id = planned_job(sessions, segments=1)
    with sessions.transaction() as session:
        session.execute(update(Segment).where(Segment.job_id == job_id).values(status="unscorable"))
    ended = counted(JOBS_ENDED, status="failed")
    for attempt in range(1, SETTINGS.max_attempts + 1):
        assert run_sweep(sessions)[FINISH] == ([] if attempt == 1 else [(job_id,)])
        with sessions.transaction() as session:
            held = lease_step(session, Step.FINISH, (job_id,), -1, max_attempts=9)
            assert held.attempt == attempt
    assert run_sweep(sessions)[FINISH] == []
    with sessions.transaction() as session:
        job = get_job(session, job_id)
        assert (job.status, job.error_code) == ("failed", "attempts_exhausted")
    assert counted(JOBS_ENDED, status="failed") == ended + 1


def test_a_row_without_attempts_left_is_not_leased_again(sessions, monkeypatch):
    """There are more such rows than one transaction of the sweep handles."""
    monkeypatch.setattr("worker.tasks.sweep.BATCH", 1)
    job_id = planned_job(sessions, segments=2)
    for index in (0, 1):
        for _ in range(SETTINGS.max_attempts):
            lease(sessions, job_id, index, lease_s=-1)
    assert run_sweep(sessions)[SCORE_SEGMENT] == []
    with sessions.transaction() as session:
        assert lease_step(session, Step.SCORE, (job_id, 1), 30, max_attempts=SETTINGS.max_attempts) is None
    assert run_sweep(sessions)[FINISH] == [(job_id,)]


def test_a_lease_that_is_renewed_during_the_sweep_does_not_fail(sessions):
    job_id = planned_job(sessions, segments=1)
    for _ in range(SETTINGS.max_attempts):
        held = lease(sessions, job_id, 0, lease_s=-1)
    with sessions.transaction() as session:
        assert renew(session, held, 30)
        with pytest.raises(JobCancelledError):
            release(session, held, DecodeError("late"), POLICY, expired=True)
    assert run_sweep(sessions)[FINISH] == []


def test_all_expired_jobs_are_erased_in_one_run_of_short_transactions(sessions, monkeypatch):
    monkeypatch.setattr("worker.tasks.expiry.JOBS_BATCH", 2)
    ids = [planned_job(sessions) for _ in range(5)]
    with sessions.transaction() as session:
        for job_id in ids:
            cancel_job(session, lock_job(session, job_id))
        session.execute(update(Job).where(Job.id.in_(ids)).values(finished_at=func.now() - timedelta(days=2)))
    expire(sessions, Jobs(result_retention_days=1))
    with sessions.transaction() as session:
        assert [get_job(session, job_id) for job_id in ids] == [None] * 5
