import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from shared.db import due
from shared.errors import DeepfakeStreamError, JobCancelledError
from shared.jobs.deliveries import Attempt, is_switched_off, list_deliveries, redeliver
from shared.jobs.ending import cancel_job, delete_job
from shared.jobs.leases import Policy, Step, fail_exhausted, lease, release, send_owed
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
def announced(sessions):
    """A cancelled job with a receiver of its own, and its first delivery."""
    with sessions.transaction() as session:
        job = add_job(session)
        job.webhook_url = f"https://receiver.example/{job.id}"
        session.flush()
        cancel_job(session, lock_job(session, job.id))
        [message] = due(session).messages
        assert message.task == DELIVER_WEBHOOK
        delivery_id = dict(message.ids)["delivery_id"]
        return job.id, delivery_id, job.owner, job.webhook_url


def begin(session, delivery_id, lease_s=30):
    return lease(session, Step.DELIVER, (delivery_id,), lease_s, max_attempts=9)


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


def test_one_worker_at_a_time_makes_an_attempt(sessions, announced):
    _, delivery_id, _, _ = announced
    with sessions.transaction() as session:
        assert begin(session, delivery_id) is not None
    with sessions.transaction() as session:
        assert begin(session, delivery_id) is None


def test_a_failure_schedules_the_next_attempt_under_the_same_event_until_the_schedule_ends(sessions, announced):
    job_id, delivery_id, _, _ = announced
    for number, wait in ((2, 10.0), (3, 100.0)):
        attempt(sessions, delivery_id, FAILED)
        following = log(sessions, job_id)[-1]
        assert (following.number, following.status) == (number, "pending")
        assert wait * 0.9 < wait_s(sessions, following) <= wait * 1.2
        with sessions.transaction() as session:
            assert begin(session, following.id) is None, "it is not due yet"
        delivery_id = following.id
        make_due(sessions, delivery_id)
    attempt(sessions, delivery_id, FAILED)
    rows = log(sessions, job_id)
    assert [row.status for row in rows] == ["failed"] * 3
    assert len({row.event_id for row in rows}) == 1


def test_retry_after_is_honoured(sessions, announced):
    job_id, delivery_id, _, _ = announced
    attempt(sessions, delivery_id, Attempt(delivered=False, response_status=503, retry_after_s=500.0))
    assert 490 < wait_s(sessions, log(sessions, job_id)[-1]) <= 500


def test_a_success_schedules_nothing(sessions, announced):
    job_id, delivery_id, _, _ = announced
    attempt(sessions, delivery_id, Attempt(delivered=True, response_status=200))
    assert [row.status for row in log(sessions, job_id)] == ["succeeded"]


def test_410_switches_the_receiver_off_until_a_redelivery_succeeds(sessions, announced):
    job_id, delivery_id, owner, url = announced
    attempt(sessions, delivery_id, Attempt(delivered=False, response_status=410, is_final=True))
    assert len(log(sessions, job_id)) == 1
    with sessions.transaction() as session:
        assert is_switched_off(session, owner, url)
        assert not is_switched_off(session, "another owner", url)
        again = redeliver(session, list_deliveries(session, job_id)[0])
    attempt(sessions, again.id, Attempt(delivered=True, response_status=200))
    with sessions.transaction() as session:
        assert not is_switched_off(session, owner, url)


def test_a_redelivery_that_fails_is_not_repeated(sessions, announced):
    job_id, delivery_id, _, _ = announced
    attempt(sessions, delivery_id, Attempt(delivered=True, response_status=200))
    with sessions.transaction() as session:
        again = redeliver(session, list_deliveries(session, job_id)[0])
    attempt(sessions, again.id, FAILED)
    assert [row.status for row in log(sessions, job_id)] == ["succeeded", "failed"]


def test_an_attempt_whose_worker_died_is_made_again(sessions, announced):
    _, delivery_id, _, _ = announced
    with sessions.transaction() as session:
        assert begin(session, delivery_id, -1) is not None
        session.execute(
            update(Delivery).where(Delivery.id == delivery_id).values(sent_at=func.now() - timedelta(seconds=60))
        )
    with sessions.transaction() as session:
        send_owed(session, Step.DELIVER, Policy(9, 1.0), 10, 100)
        assert delivery_id in [dict(message.ids)["delivery_id"] for message in due(session).messages]
    with sessions.transaction() as session:
        assert begin(session, delivery_id) is not None


def test_a_late_record_of_a_lost_attempt_changes_nothing(sessions, announced):
    job_id, delivery_id, _, _ = announced
    with sessions.transaction() as session:
        old = begin(session, delivery_id, -1)
    with sessions.transaction() as session:
        begin(session, delivery_id)
    with sessions.transaction() as session, pytest.raises(JobCancelledError):
        record_attempt(session, old, FAILED, SCHEDULE)
    assert [row.status for row in log(sessions, job_id)] == ["sending"]


def test_an_attempt_that_ends_in_a_defect_is_logged_and_the_schedule_goes_on(sessions, announced):
    job_id, delivery_id, _, _ = announced
    failures = counted(FAILURES, task="deliver_webhook", code="internal_error")
    with sessions.transaction() as session:
        held = begin(session, delivery_id)
    with sessions.transaction() as session:
        release(session, held, DeepfakeStreamError("a defect"), Policy(3, 1.0, SCHEDULE))
        pending = due(session)
    for increment in pending.counts:
        increment()
    first, second = log(sessions, job_id)
    assert (first.status, first.error_code, second.status) == ("failed", "internal_error", "pending")
    assert wait_s(sessions, second) > 9
    assert counted(FAILURES, task="deliver_webhook", code="internal_error") == failures + 1


def test_an_attempt_that_kills_its_workers_ends_and_is_counted(sessions, announced):
    job_id, delivery_id, _, _ = announced
    policy = Policy(3, 1.0, SCHEDULE)
    failed = counted(WEBHOOK_ATTEMPTS, outcome="failed")
    for attempts in range(1, 4):
        with sessions.transaction() as session:
            assert begin(session, delivery_id, -1).attempt == attempts
    with sessions.transaction() as session:
        fail_exhausted(session, Step.DELIVER, policy, 100)
        pending = due(session)
    for increment in pending.counts:
        increment()
    first, second = log(sessions, job_id)
    assert (first.status, first.error_code, second.number) == ("failed", "attempts_exhausted", 2)
    assert counted(WEBHOOK_ATTEMPTS, outcome="failed") == failed + 1


def test_numbers_are_given_in_turn_to_a_retry_and_a_redelivery_at_the_same_time(sessions, announced):
    """A redelivery holds the job's lock, and so does the record of an attempt."""
    job_id, delivery_id, _, _ = announced
    attempt(sessions, delivery_id, FAILED)
    second = log(sessions, job_id)[-1].id
    make_due(sessions, second)
    with sessions.transaction() as session:
        held = begin(session, second)
    with sessions.transaction() as session:
        lock_job(session, job_id)
        recording = threading.Thread(target=record, args=(sessions, held))
        recording.start()
        recording.join(0.2)
        assert recording.is_alive(), "it waits for the job"
        redeliver(session, list_deliveries(session, job_id)[0])
    recording.join(10)
    assert [row.number for row in log(sessions, job_id)] == [1, 2, 3, 4]


def record(sessions, held):
    with sessions.transaction() as session:
        record_attempt(session, held, FAILED, SCHEDULE)


def test_the_attempt_of_an_erased_job_is_dropped(sessions, announced):
    job_id, delivery_id, _, _ = announced
    with sessions.transaction() as session:
        held = begin(session, delivery_id)
    with sessions.transaction() as session:
        delete_job(session, lock_job(session, job_id))
    with sessions.transaction() as session, pytest.raises(JobCancelledError):
        record_attempt(session, held, FAILED, SCHEDULE)
