"""
Leases: the right to work on one step of a job, until it runs out unrenewed. One code for every step.

A step waits in a row: ingest and finish in the job's, scoring in a segment's, an attempt to call a webhook in a
delivery's. Whatever the step, its attempts are counted when it is leased, what is recorded needs a lease that
is held still, and the last attempt that is allowed ends the row with a code: nothing is sent again without end.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, func, select, tuple_, update
from sqlalchemy.orm import Session

from shared.db import after_commit
from shared.errors import AttemptsExhaustedError, DeepfakeStreamError, JobCancelledError
from shared.jobs.deliveries import Attempt, end_attempt
from shared.jobs.ending import Failure, end_job, end_segment
from shared.jobs.queries import lock_job
from shared.models import Delivery, Job, Segment
from shared.observability import FAILURES, RESENT
from shared.queues import DELIVER_WEBHOOK, FINISH, INGEST, QUEUE_OF_TASK, SCORE_SEGMENT
from shared.states import OPEN_JOB_STATUSES, OPEN_SEGMENT_STATUSES, DeliveryStatus, JobStatus, SegmentStatus

Row = Job | Segment | Delivery
Key = tuple[uuid.UUID] | tuple[uuid.UUID, int]
"""The primary key of a row: of a job, of a segment with its index, of a delivery."""


class Step(StrEnum):
    """What workers do for a job; the values name the steps in metrics and logs."""

    INGEST = "ingest"
    SCORE = "score_segment"
    FINISH = "finish"
    DELIVER = "deliver_webhook"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one step, until it runs out unrenewed."""

    step: Step
    key: Key
    job_id: uuid.UUID
    token: uuid.UUID
    attempt: int
    """1 for the first."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how soon, a failed step is tried again."""

    max_attempts: int
    backoff_s: float
    webhook_schedule_s: Sequence[float] = ()
    """Waits between the attempts to call a webhook, each of which is a row of its own."""

    def delay_after(self, attempt: int) -> timedelta:
        """The wait after the *attempt*-th failure: it doubles each time."""
        return timedelta(seconds=self.backoff_s * 2 ** (attempt - 1))


class LockedRows(NamedTuple):
    """The rows of a lease that is held still, both locked; of ingest and finish they are the same."""

    job: Job
    row: Row


@dataclass(frozen=True)
class _StepTable:
    """Where a step waits."""

    row: type[Row]
    key: tuple[Any, ...]
    """Columns of the primary key, and below the names that they have in messages."""
    key_names: tuple[str, ...]
    job_id: Any
    due_at: Any
    """Not before then."""
    is_open: tuple[ColumnElement[bool], ...]
    """The row waits for this step, or somebody is at it."""
    task: str
    failure_text: str
    """What could not be done, for the sentence that says so."""
    on_acquire: Mapping[str, Any] = field(default_factory=dict)
    """What leasing it sets."""
    on_release: Mapping[str, Any] = field(default_factory=dict)
    """What giving it back sets."""

    def matches(self, key: Key) -> tuple[ColumnElement[bool], ...]:
        return tuple(column == value for column, value in zip(self.key, key, strict=True))


_NO_LEASE: Mapping[str, Any] = {"lease_token": None, "leased_until": None}
_OPEN_SEGMENT = select(Segment.index).where(Segment.job_id == Job.id, Segment.status.in_(OPEN_SEGMENT_STATUSES))
_IS_RUNNING = (Job.status == JobStatus.RUNNING, Job.deleted_at.is_(None))
_RUNNING_JOB = select(Job.id).where(Job.id == Segment.job_id, *_IS_RUNNING)

_job_step = partial(_StepTable, row=Job, key=(Job.id,), key_names=("job_id",), job_id=Job.id, due_at=Job.send_after)

_TABLES: Mapping[Step, _StepTable] = {
    Step.INGEST: _job_step(
        is_open=(Job.status.in_(OPEN_JOB_STATUSES), Job.deleted_at.is_(None), Job.segments_total.is_(None)),
        task=INGEST,
        failure_text="the file could not be inspected",
        # The job is running from its first lease on.
        on_acquire={"status": JobStatus.RUNNING, "started_at": func.coalesce(Job.started_at, func.now())},
    ),
    Step.SCORE: _StepTable(
        row=Segment,
        key=(Segment.job_id, Segment.index),
        key_names=("job_id", "index"),
        job_id=Segment.job_id,
        due_at=Segment.send_after,
        is_open=(Segment.status.in_(OPEN_SEGMENT_STATUSES), _RUNNING_JOB.exists()),
        task=SCORE_SEGMENT,
        failure_text="the segment could not be scored",
        on_acquire={"status": SegmentStatus.RUNNING, "started_at": func.coalesce(Segment.started_at, func.now())},
        on_release={"status": SegmentStatus.PENDING},
    ),
    Step.FINISH: _job_step(
        is_open=(*_IS_RUNNING, Job.segments_total.is_not(None), ~_OPEN_SEGMENT.exists()),
        task=FINISH,
        failure_text="the job could not be judged",
    ),
    Step.DELIVER: _StepTable(
        row=Delivery,
        key=(Delivery.id,),
        key_names=("delivery_id",),
        job_id=Delivery.job_id,
        due_at=Delivery.due_at,
        is_open=(Delivery.status.in_((DeliveryStatus.PENDING, DeliveryStatus.SENDING)),),
        task=DELIVER_WEBHOOK,
        failure_text="the webhook could not be called",
        on_acquire={"status": DeliveryStatus.SENDING, "started_at": func.now()},
        on_release={"status": DeliveryStatus.PENDING},
    ),
}


def queue_for_step(step: Step) -> str:
    """The queue in which messages of *step* wait."""
    return QUEUE_OF_TASK[_TABLES[step].task]


def acquire(session: Session, step: Step, key: Key, lease_s: float, *, max_attempts: int) -> Lease | None:
    """
    Begin *step* of the row *key*, unless somebody is at it, it is done or not due, or the job has ended.

    Args:
        max_attempts: A row whose worker died in the last of them is not on_acquire again; the sweep fails it.
    """
    table = _TABLES[step]
    row, token = table.row, uuid.uuid4()
    if step is Step.SCORE and not _is_running(session, key[0]):
        return None
    is_free = row.leased_until.is_(None) | _has_expired(row, max_attempts)
    found = session.execute(
        update(row)
        .where(*table.matches(key), *table.is_open, is_free, table.due_at <= func.now())
        .values(
            attempts=row.attempts + 1,
            lease_token=token,
            leased_until=_seconds_from_now(lease_s),
            sent_at=func.coalesce(row.sent_at, func.now()),
            **table.on_acquire,
        )
        .returning(table.job_id, row.attempts)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return None if found is None else Lease(step, key, found[0], token, found[1])


def _is_running(session: Session, job_id: uuid.UUID) -> bool:
    """Whether the job is running, and stays so until this transaction ends."""
    query = select(Job.id).where(Job.id == job_id, *_IS_RUNNING)
    return session.scalar(query.with_for_update(read=True, key_share=True)) is not None


def _has_expired(row: type[Row], max_attempts: int) -> ColumnElement[bool]:
    """Whether its worker is gone, and another may try."""
    return (row.leased_until < func.now()) & (row.attempts < max_attempts)


def renew(session: Session, lease: Lease, lease_s: float) -> bool:
    """Hold the lease for longer; False if it was lost or the job is not running any more."""
    table = _TABLES[lease.step]
    renewed = session.execute(
        update(table.row)
        .where(*table.matches(lease.key), table.row.lease_token == lease.token)
        .values(leased_until=_seconds_from_now(lease_s))
        .returning(table.job_id)
    ).first()
    if renewed is None or lease.step is Step.DELIVER:
        return renewed is not None
    return session.scalar(select(Job.status).where(Job.id == lease.job_id)) == JobStatus.RUNNING


def lock_rows(session: Session, lease: Lease, *, expired: bool = False) -> LockedRows:
    """
    Lock the rows of a lease, to record something.

    Args:
        expired: Hold it only if it has run out.

    Raises:
        JobCancelledError: The lease was lost, or the job has ended.
    """
    table = _TABLES[lease.step]
    # The job's row first, always: that orders whoever changes a job, and gives the numbers of its deliveries in turn.
    with session.no_autoflush:
        job = lock_job(session, lease.job_id)
    if job is None or (lease.step is not Step.DELIVER and job.status != JobStatus.RUNNING):
        raise JobCancelledError("the job has ended")
    conditions = [*table.matches(lease.key), table.row.lease_token == lease.token]
    if expired:
        conditions.append(table.row.leased_until < func.now())
    query = select(table.row).where(*conditions).with_for_update().execution_options(populate_existing=True)
    row = cast("Row | None", session.scalars(query).one_or_none())
    if row is None:
        raise JobCancelledError("another worker has taken over")
    return LockedRows(job, row)


def release(
    session: Session, lease: Lease, error: DeepfakeStreamError, policy: RetryPolicy, *, expired: bool = False
) -> None:
    """
    Give a step back after *error*: to be tried again, or failed for good once its attempts are used up.

    A segment that fails for good leaves the job running for the sake of its other segments; ingest and finish that do
    fail the job. A failed attempt to call a webhook has failed for good, and the schedule makes the next one.

    Args:
        expired: Do so only if the lease has run out.

    Raises:
        JobCancelledError: The lease was lost or the job has ended, so there is nothing to give back.
    """
    job, row = lock_rows(session, lease, expired=expired)
    after_commit(session).count(FAILURES.labels(task=lease.step.value, code=error.code).inc)
    failure = Failure.from_error(error)
    if isinstance(row, Delivery):
        end_attempt(session, row, Attempt(delivered=False, error_code=failure.code), policy.webhook_schedule_s)
    elif error.retryable and lease.attempt < policy.max_attempts:
        row.send_after = func.now() + policy.delay_after(lease.attempt)
        for name, value in {**_TABLES[lease.step].on_release, **_NO_LEASE, "sent_at": None}.items():
            setattr(row, name, value)
    elif isinstance(row, Segment):
        end_segment(session, job, row, SegmentStatus.FAILED, failure=failure)
    else:
        end_job(session, job, JobStatus.FAILED, failure=failure)
    session.flush()


def fail_exhausted(session: Session, step: Step, policy: RetryPolicy, limit: int) -> None:
    """Fail rows of *step* whose worker died under them for the last time that is allowed, *limit* at most."""
    table = _TABLES[step]
    row = table.row
    found = session.execute(
        select(table.job_id, row.lease_token, row.attempts, *table.key)
        .where(*table.is_open, row.leased_until < func.now(), row.attempts >= policy.max_attempts)
        # By job, which is what is locked: in the order in which others lock several.
        .order_by(table.job_id, *table.key)
        .limit(limit)
    ).all()
    for job_id, token, attempts, *key in found:
        error = AttemptsExhaustedError(f"{table.failure_text} in {attempts} attempts; the worker of the last one died")
        try:
            release(session, Lease(step, tuple(key), job_id, token, attempts), error, policy, expired=True)
        except JobCancelledError:
            continue


def resend_messages(session: Session, step: Step, policy: RetryPolicy, message_timeout_s: float, limit: int) -> int:
    """
    Send the messages of rows whose worker is gone, that have no message out, or whose message seems lost.

    Args:
        message_timeout_s: A message that nobody took for so long counts as lost.
        limit: Rows at most.

    Returns:
        How many.
    """
    table = _TABLES[step]
    row = table.row
    lost = row.sent_at.is_(None) | (row.sent_at < func.now() - timedelta(seconds=message_timeout_s))
    waits = row.leased_until.is_(None) & (table.due_at <= func.now()) & lost
    keys = session.execute(
        select(*table.key)
        .where(*table.is_open, waits | _has_expired(row, policy.max_attempts))
        .order_by(*table.key)
        .limit(limit)
        .with_for_update(of=row, skip_locked=True)
    ).all()
    if not keys:
        return 0
    session.execute(
        update(row)
        .where(tuple_(*table.key).in_([tuple(key) for key in keys]))
        .values(sent_at=func.now(), **_NO_LEASE, **table.on_release)
        .execution_options(synchronize_session=False)
    )
    for key in keys:
        after_commit(session).send(table.task, **dict(zip(table.key_names, key, strict=True)))
    after_commit(session).count(lambda: RESENT.labels(kind=step.value).inc(len(keys)))
    return len(keys)


def _seconds_from_now(seconds: float) -> ColumnElement[Any]:
    return func.now() + timedelta(seconds=seconds)
