from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from shared.jobs.deliveries import (
    Attempt,
    is_switched_off,
    lease_delivery,
    list_deliveries,
    record_attempt,
    redeliver,
    take_due,
)
from shared.jobs.ending import cancel_job
from shared.jobs.queries import lock_job
from shared.models import Delivery
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
        delivery_id = cancel_job(session, lock_job(session, job.id))
        return job.id, delivery_id, job.owner, job.webhook_url


def attempt(sessions, delivery_id, outcome):
    with sessions.transaction() as session:
        _, token = lease_delivery(session, delivery_id, 30)
    with sessions.transaction() as session:
        record_attempt(session, delivery_id, token, outcome, SCHEDULE)


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
        assert lease_delivery(session, delivery_id, 30) is not None
    with sessions.transaction() as session:
        assert lease_delivery(session, delivery_id, 30) is None


def test_a_failure_schedules_the_next_attempt_under_the_same_event_until_the_schedule_ends(sessions, announced):
    job_id, delivery_id, _, _ = announced
    for number, wait in ((2, 10.0), (3, 100.0)):
        attempt(sessions, delivery_id, FAILED)
        following = log(sessions, job_id)[-1]
        assert (following.number, following.status) == (number, "pending")
        assert wait * 0.9 < wait_s(sessions, following) <= wait * 1.2
        with sessions.transaction() as session:
            assert lease_delivery(session, following.id, 30) is None, "it is not due yet"
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
        assert lease_delivery(session, delivery_id, -1) is not None
        session.execute(
            update(Delivery).where(Delivery.id == delivery_id).values(sent_at=func.now() - timedelta(seconds=60))
        )
    with sessions.transaction() as session:
        assert delivery_id in take_due(session, 10, 100)
    with sessions.transaction() as session:
        assert lease_delivery(session, delivery_id, 30) is not None


def test_a_late_record_of_a_lost_attempt_changes_nothing(sessions, announced):
    job_id, delivery_id, _, _ = announced
    with sessions.transaction() as session:
        _, old = lease_delivery(session, delivery_id, -1)
    with sessions.transaction() as session:
        lease_delivery(session, delivery_id, 30)
    with sessions.transaction() as session:
        record_attempt(session, delivery_id, old, FAILED, SCHEDULE)
    assert [row.status for row in log(sessions, job_id)] == ["sending"]
