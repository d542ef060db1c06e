import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from shared.db import after_commit
from shared.errors import DeepfakeStreamError, JobCancelledError
from shared.jobs.deliveries import Attempt, is_switched_off, list_deliveries, redeliver
from shared.jobs.ending import cancel_job, delete_job
from shared.jobs.leases import RetryPolicy, Step, acquire, fail_exhausted, release, send_due_messages
from shared.jobs.queries import lock_job
from shared.jobs.results import record_attempt
from shared.models import Delivery
from shared.observability import FAILURES, WEBHOOK_ATTEMPTS
from shared.queues import DELIVER_WEBHOOK
from tests.counters import counted
from tests.integration.rows import add_job

SCHEDULE = [10.0, 100.0]
FAILED = Attempt(delivered=False, response_status=500, error_code="receiver_refused")


@pytest.fixture
def scheduled(sessions):
    """Return a cancelled job with its own receiver, and its first delivery."""
    with sessions.transaction() as session:
        job = add_job(session)
        job.webhook_url = f"https://receiver.example/{job.id}"
        session.flush()
        cancel_job(session, lock_job(session, job.id))
        [message] = after_commit(session).messages
        assert message.task == DELIVER_WEBHOOK
        delivery_id = dict(message.ids)["delivery_id"]
        return job.id, delivery_id, job.owner, job.webhook_url


def begin(session, delivery_id, lease_s=30):
    return acquire(session, Step.DELIVER, (delivery_id,), lease_s, max_attempts=9)


def attempt(sessions, delivery_id, outcome):
    with sessions.transaction() as session:
        held = begin(session, delivery_id)
    with sessions.transaction() as session:
        record_attempt(session, held, outcome, SCHEDULE)


def log(sessions, job_id):
    with sessions.transaction() as session:
        return list_deliveries(session, job_id)


def wait_s(sessions, delivery):
    with sessions.transaction() as session:
        return (delivery.due_at - session.scalar(select(func.now()))).total_seconds()


def make_due(sessions, delivery_id):
    with sessions.transaction() as session:
        session.execute(
            update(Delivery).where(Delivery.id == delivery_id).values(due_at=func.now() - timedelta(seconds=1))
        )


def test_only_one_worker_at_a_time_makes_an_attempt(sessions, scheduled):
    _, delivery_id, _, _ = scheduled
    with sessions.transaction() as session:
        assert begin(session, delivery_id) is not None
    with sessions.transaction() as session:
        assert begin(session, delivery_id) is None


def test_a_failure_schedules_the_next_attempt_until_the_schedule_ends(sessions, scheduled):
    job_id, delivery_id, _, _ = scheduled
    for number, wait in ((2, 10.0), (3, 100.0)):
        attempt(sessions, delivery_id, FAILED)
        following = log(sessions, job_id)[-1]
        assert (following.number, following.status) == (number, "pending")
        assert wait * 0.9 < wait_s(sessions, following) <= wait * 1.2
        with sessions.transaction() as session:
            assert begin(session, following.id) is None, "the attempt is not due yet"
        delivery_id = following.id
        make_due(sessions, delivery_id)
    attempt(sessions, delivery_id, FAILED)
    rows = log(sessions, job_id)
    assert [row.status for row in rows] == ["failed"] * 3
    assert len({row.event_id for row in rows}) == 1


def test_retry_after_is_honoured(sessions, scheduled):
    job_id, delivery_id, _, _ = scheduled
    attempt(sessions, delivery_id, Attempt(delivered=False, response_status=503, retry_after_s=500.0))
    assert 490 < wait_s(sessions, log(sessions, job_id)[-1]) <= 500


def test_a_success_schedules_nothing(sessions, scheduled):
    job_id, delivery_id, _, _ = scheduled
    attempt(sessions, delivery_id, Attempt(delivered=True, response_status=200))
    assert [row.status for row in log(sessions, job_id)] == ["succeeded"]


def test_410_switches_the_receiver_off_until_a_redelivery_succeeds(sessions, scheduled):
    job_id, delivery_id, owner, url = scheduled
    attempt(sessions, delivery_id, Attempt(delivered=False, response_status=410, is_final=True))
    assert len(log(sessions, job_id)) == 1
    with sessions.transaction() as session:
        assert is_switched_off(session, owner, url)
        assert not is_switched_off(session, "another owner", url)
        again = redeliver(session, list_deliveries(session, job_id)[0])
    attempt(sessions, again.id, Attempt(delivered=True, response_status=200))
    with sessions.transaction() as session:
        assert not is_switched_off(session, owner, url)


def test_a_failed_redelivery_is_not_retried(sessions, scheduled):
    job_id, delivery_id, _, _ = scheduled
    attempt(sessions, delivery_id, Attempt(delivered=True, response_status=200))
    with sessions.transaction() as session:
        again = redeliver(session, list_deliveries(session, job_id)[0])
    attempt(sessions, again.id, FAILED)
    assert [row.status for row in log(sessions, job_id)] == ["succeeded", "failed"]


def test_an_attempt_whose_worker_died_is_repeated(sessions, scheduled):
    _, delivery_id, _, _ = scheduled
    with sessions.transaction() as session:
        assert begin(session, delivery_id, -1) is not None
        session.execute(
            update(Delivery).where(Delivery.id == delivery_id).values(sent_at=func.now() - timedelta(seconds=60))
        )
    with sessions.transaction() as session:
        send_due_messages(session, Step.DELIVER, RetryPolicy(9, 1.0), 10, 100)
        assert delivery_id in [dict(message.ids)["delivery_id"] for message in after_commit(session).messages]
    with sessions.transaction() as session:
        assert begin(session, delivery_id) is not None


def test_a_late_result_of_a_lost_attempt_is_dropped(sessions, scheduled):
    job_id, delivery_id, _, _ = scheduled
    with sessions.transaction() as session:
        old = begin(session, delivery_id, -1)
    with sessions.transaction() as session:
        begin(session, delivery_id)
    with sessions.transaction() as session, pytest.raises(JobCancelledError):
        record_attempt(session, old, FAILED, SCHEDULE)
    assert [row.status for row in log(sessions, job_id)] == ["sending"]


def test_an_internal_error_in_an_attempt_is_logged_and_the_schedule_continues(sessions, scheduled):
    job_id, delivery_id, _, _ = scheduled
    failures = counted(FAILURES, task="deliver_webhook", code="internal_error")
    with sessions.transaction() as session:
        held = begin(session, delivery_id)
    with sessions.transaction() as session:
        release(session, held, DeepfakeStreamError("a defect"), RetryPolicy(3, 1.0, SCHEDULE))
        pending = after_commit(session)
    for increment in pending.counts:
        increment()
    first, second = log(sessions, job_id)
    assert (first.status, first.error_code, second.status) == ("failed", "internal_error", "pending")
    assert wait_s(sessions, second) > 9
    assert counted(FAILURES, task="deliver_webhook", code="internal_error") == failures + 1


def test_an_attempt_that_kills_its_workers_fails_and_is_counted(sessions, scheduled):
    job_id, delivery_id, _, _ = scheduled
    policy = RetryPolicy(3, 1.0, SCHEDULE)
    failed = counted(WEBHOOK_ATTEMPTS, outcome="failed")
    for attempts in range(1, 4):
        with sessions.transaction() as session:
            assert begin(session, delivery_id, -1).attempt == attempts
    with sessions.transaction() as session:
        fail_exhausted(session, Step.DELIVER, policy, 100)
        pending = after_commit(session)
    for increment in pending.counts:
        increment()
    first, second = log(sessions, job_id)
    assert (first.status, first.error_code, second.number) == ("failed", "attempts_exhausted", 2)
    assert counted(WEBHOOK_ATTEMPTS, outcome="failed") == failed + 1


def test_a_concurrent_retry_and_redelivery_get_consecutive_numbers(sessions, scheduled):
    """A redelivery locks the job, and so does the recording of an attempt."""
    job_id, delivery_id, _, _ = scheduled
    attempt(sessions, delivery_id, FAILED)
    second = log(sessions, job_id)[-1].id
    make_due(sessions, second)
    with sessions.transaction() as session:
        held = begin(session, second)
    with sessions.transaction() as session:
        lock_job(session, job_id)
        recording = threading.Thread(target=record_delivered, args=(sessions, held))
        recording.start()
        recording.join(0.2)
        assert recording.is_alive(), "recording waits for the lock of the job"
        redeliver(session, list_deliveries(session, job_id)[0])
    recording.join(10)
    assert [row.number for row in log(sessions, job_id)] == [1, 2, 3, 4]


def record_delivered(sessions, held):
    with sessions.transaction() as session:
        record_attempt(session, held, FAILED, SCHEDULE)


def test_the_attempt_of_an_erased_job_is_dropped(sessions, scheduled):
    job_id, delivery_id, _, _ = scheduled
    with sessions.transaction() as session:
        held = begin(session, delivery_id)
    with sessions.transaction() as session:
        delete_job(session, lock_job(session, job_id))
    with sessions.transaction() as session, pytest.raises(JobCancelledError):
        record_attempt(session, held, FAILED, SCHEDULE)
