"""
Leases: the exclusive right to work on one step of a job until the lease expires. All steps share this code.

The state of a step is in a row: ingest, finish and the reading of a live stream in the job's, scoring in a segment's,
an attempt to call a webhook in a delivery's, explaining in that of the explanation. An attempt is counted when its
lease is acquired. Recording a result requires a valid lease. After the last allowed attempt the row fails with a code,
so that nothing is repeated for ever.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, false, func, select, tuple_, update
from sqlalchemy.orm import Session

from shared.db import after_commit
from shared.errors import AttemptsExhaustedError, DeepfakeStreamError, JobCancelledError
from shared.jobs.batches import lock_batches_of
from shared.jobs.deliveries import Attempt, end_attempt
from shared.jobs.ending import Failure, end_job, end_segment
from shared.jobs.explanations import fail_explanation
from shared.jobs.queries import lock_job
from shared.models import Delivery, Explanation, Job, Segment, Stream
from shared.observability import FAILURES, RESENT
from shared.queues import DELIVER_WEBHOOK, EXPLAIN, FINISH, INGEST, SCORE_LIVE, SCORE_SEGMENT, list_of_task
from shared.states import (
    OPEN_EXPLANATION_STATUSES,
    OPEN_JOB_STATUSES,
    OPEN_SEGMENT_STATUSES,
    DeliveryStatus,
    ExplanationStatus,
    JobStatus,
    SegmentStatus,
)

Row = Job | Segment | Delivery | Explanation
Key = tuple[uuid.UUID] | tuple[uuid.UUID, int]
"""The primary key of a row: the id of a job or a delivery, the job id of an explanation, or the job id and index of a
segment."""


class Step(StrEnum):
    """A step of a job that workers do; the values name the steps in metrics and logs."""

    INGEST = "ingest"
    SCORE = "score_segment"
    FINISH = "finish"
    EXPLAIN = "explain"
    DELIVER = "deliver_webhook"
    STREAM = "stream"
    """The reading of a live stream. There is no message: readers look for streams themselves."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The exclusive right to work on one step until it expires."""

    step: Step
    key: Key
    job_id: uuid.UUID
    token: uuid.UUID
    attempt: int
    """1 for the first."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after which wait a failed step is retried."""

    max_attempts: int
    backoff_s: float
    webhook_schedule_s: Sequence[float] = ()
    """Waits between attempts to call a webhook; each attempt is a row of its own."""

    def delay_after(self, attempt: int) -> timedelta:
        """Return the wait after the *attempt*-th failure; it doubles each time."""
        return timedelta(seconds=self.backoff_s * 2 ** (attempt - 1))


class LockedRows(NamedTuple):
    """The locked rows of a valid lease. For ingest, finish and streams both are the job's row."""

    job: Job
    row: Row


@dataclass(frozen=True)
class _StepColumns:
    """The table and the columns that hold the state of a step."""

    row: type[Row]
    key: tuple[Any, ...]
    """Columns of the primary key."""
    key_names: tuple[str, ...]
    """Names of the key columns in messages."""
    job_id: Any
    due_at: Any
    """The earliest time of the next attempt."""
    is_open: tuple[ColumnElement[bool], ...]
    """Conditions under which the step is pending or running."""
    task: str | None
    """The task of its messages; None for the step that has none."""
    failure_text: str
    """The beginning of the error message after the last attempt."""
    job_status: JobStatus | None = JobStatus.RUNNING
    """The status that the job must have while the step is done; None if it does not matter."""
    on_acquire: Mapping[str, Any] = field(default_factory=dict)
    """Columns that acquiring a lease sets."""
    on_release: Mapping[str, Any] = field(default_factory=dict)
    """Columns that releasing a lease sets."""
    live_task: str | None = None
    """The task for rows of live streams, if it is another one."""
    is_live: ColumnElement[bool] = field(default_factory=false)

    def matches(self, key: Key) -> tuple[ColumnElement[bool], ...]:
        return tuple(column == value for column, value in zip(self.key, key, strict=True))


_NO_LEASE: Mapping[str, Any] = {"lease_token": None, "leased_until": None}
_OPEN_SEGMENT = select(Segment.index).where(Segment.job_id == Job.id, Segment.status.in_(OPEN_SEGMENT_STATUSES))
_OPEN_STREAM = select(Stream.job_id).where(Stream.job_id == Job.id, Stream.ended_at.is_(None))
_IS_UNPLANNED = (Job.status.in_(OPEN_JOB_STATUSES), Job.deleted_at.is_(None), Job.segments_total.is_(None))
_START_JOB = {"status": JobStatus.RUNNING, "started_at": func.coalesce(Job.started_at, func.now())}
_IS_RUNNING = (Job.status == JobStatus.RUNNING, Job.deleted_at.is_(None))
_RUNNING_JOB = select(Job.id).where(Job.id == Segment.job_id, *_IS_RUNNING)
_SUCCEEDED_JOB = select(Job.id).where(
    Job.id == Explanation.job_id, Job.status == JobStatus.SUCCEEDED, Job.deleted_at.is_(None)
)

_job_step = partial(_StepColumns, row=Job, key=(Job.id,), key_names=("job_id",), job_id=Job.id, due_at=Job.send_after)

_STEP_COLUMNS: Mapping[Step, _StepColumns] = {
    Step.INGEST: _job_step(
        is_open=(*_IS_UNPLANNED, ~_OPEN_STREAM.exists()),
        task=INGEST,
        failure_text="the file could not be inspected",
        # The job counts as running from its first lease on.
        on_acquire=_START_JOB,
    ),
    Step.STREAM: _job_step(
        is_open=(*_IS_UNPLANNED, _OPEN_STREAM.exists()),
        # The job's own time is far in the future, so that releases without streams leave it alone.
        due_at=func.now(),
        task=None,
        failure_text="the stream could not be read",
        on_acquire=_START_JOB,
    ),
    Step.SCORE: _StepColumns(
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
        live_task=SCORE_LIVE,
        is_live=Segment.storage_key.is_not(None),
    ),
    Step.FINISH: _job_step(
        is_open=(*_IS_RUNNING, Job.segments_total.is_not(None), ~_OPEN_SEGMENT.exists()),
        task=FINISH,
        failure_text="the job could not be judged",
    ),
    Step.EXPLAIN: _StepColumns(
        row=Explanation,
        key=(Explanation.job_id,),
        key_names=("job_id",),
        job_id=Explanation.job_id,
        due_at=Explanation.send_after,
        is_open=(Explanation.status.in_(OPEN_EXPLANATION_STATUSES), _SUCCEEDED_JOB.exists()),
        task=EXPLAIN,
        failure_text="the faces could not be explained",
        job_status=JobStatus.SUCCEEDED,
        on_acquire={
            "status": ExplanationStatus.RUNNING,
            "started_at": func.coalesce(Explanation.started_at, func.now()),
        },
        on_release={"status": ExplanationStatus.PENDING},
    ),
    Step.DELIVER: _StepColumns(
        row=Delivery,
        key=(Delivery.id,),
        key_names=("delivery_id",),
        job_id=Delivery.job_id,
        due_at=Delivery.due_at,
        is_open=(Delivery.status.in_((DeliveryStatus.PENDING, DeliveryStatus.SENDING)),),
        task=DELIVER_WEBHOOK,
        failure_text="the webhook could not be called",
        job_status=None,
        on_acquire={"status": DeliveryStatus.SENDING, "started_at": func.now()},
        on_release={"status": DeliveryStatus.PENDING},
    ),
}


def list_for_step(step: Step) -> str | None:
    """Return the list in Redis that holds the messages of *step*; None if it has none."""
    task = _STEP_COLUMNS[step].task
    return None if task is None else list_of_task(task)


def acquire(session: Session, step: Step, key: Key, lease_s: float, *, max_attempts: int) -> Lease | None:
    """
    Acquire the lease of *step* for the row *key*.

    Args:
        max_attempts: A row whose worker died in its last attempt is not leased again; the sweep fails it.

    Returns:
        The lease; None if another worker holds it, the step is done or not due, or the job has ended.
    """
    table = _STEP_COLUMNS[step]
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
    """Return whether the job is running, and lock that state until the transaction ends."""
    query = select(Job.id).where(Job.id == job_id, *_IS_RUNNING)
    return session.scalar(query.with_for_update(read=True, key_share=True)) is not None


def _has_expired(row: type[Row], max_attempts: int) -> ColumnElement[bool]:
    """Return the condition that the lease has expired and another attempt is allowed."""
    return (row.leased_until < func.now()) & (row.attempts < max_attempts)


def renew(session: Session, lease: Lease, lease_s: float) -> bool:
    """Extend the lease. Return False if it was lost or the job no longer has the status that the step needs."""
    table = _STEP_COLUMNS[lease.step]
    renewed = session.execute(
        update(table.row)
        .where(*table.matches(lease.key), table.row.lease_token == lease.token)
        .values(leased_until=_seconds_from_now(lease_s))
        .returning(table.job_id)
    ).first()
    if renewed is None or table.job_status is None:
        return renewed is not None
    return session.scalar(select(Job.status).where(Job.id == lease.job_id)) == table.job_status


def lock_rows(session: Session, lease: Lease, *, expired: bool = False) -> LockedRows:
    """
    Check a lease and lock its rows, to record a result.

    Args:
        expired: Require that the lease has expired.

    Raises:
        JobCancelledError: The lease was lost, or the job has ended.
    """
    table = _STEP_COLUMNS[lease.step]
    # The job's row is always locked first: that serialises changes of a job and the numbering of its deliveries.
    with session.no_autoflush:
        job = lock_job(session, lease.job_id)
    if job is None or table.job_status not in (None, job.status):
        raise JobCancelledError("the job has ended")
    conditions = [*table.matches(lease.key), table.row.lease_token == lease.token]
    if expired:
        conditions.append(table.row.leased_until < func.now())
    query = select(table.row).where(*conditions).with_for_update().execution_options(populate_existing=True)
    row = cast("Row | None", session.scalars(query).one_or_none())
    if row is None:
        raise JobCancelledError("the lease was lost to another worker")
    return LockedRows(job, row)


def release(
    session: Session, lease: Lease, error: DeepfakeStreamError, policy: RetryPolicy, *, expired: bool = False
) -> None:
    """
    Release the lease of a step after *error*: for a retry, or as failed once its attempts are used up.

    A segment that fails leaves the job running for its other segments; a failure of ingest or finish fails the job. A
    failed attempt to call a webhook is always final, and its schedule adds the next one. An explanation that fails
    changes nothing of its job.

    Args:
        expired: Release only if the lease has expired.

    Raises:
        JobCancelledError: The lease was lost or the job has ended, so there is nothing to release.
    """
    job, row = lock_rows(session, lease, expired=expired)
    after_commit(session).count(FAILURES.labels(task=lease.step.value, code=error.code).inc)
    failure = Failure.from_error(error)
    if isinstance(row, Delivery):
        end_attempt(session, row, Attempt(delivered=False, error_code=failure.code), policy.webhook_schedule_s)
    elif error.retryable and lease.attempt < policy.max_attempts:
        row.send_after = func.now() + policy.delay_after(lease.attempt)
        for name, value in {**_STEP_COLUMNS[lease.step].on_release, **_NO_LEASE, "sent_at": None}.items():
            setattr(row, name, value)
    elif isinstance(row, Explanation):
        fail_explanation(row, failure.code, failure.detail)
    elif isinstance(row, Segment):
        end_segment(session, job, row, SegmentStatus.FAILED, failure=failure)
    else:
        end_job(session, job, JobStatus.FAILED, failure=failure)
    session.flush()


def fail_exhausted(session: Session, step: Step, policy: RetryPolicy, limit: int) -> None:
    """Fail at most *limit* rows of *step* whose worker died in the last allowed attempt."""
    table = _STEP_COLUMNS[step]
    row = table.row
    found = session.execute(
        select(table.job_id, row.lease_token, row.attempts, *table.key)
        .where(*table.is_open, row.leased_until < func.now(), row.attempts >= policy.max_attempts)
        # Jobs are locked in the same order everywhere, to avoid deadlocks.
        .order_by(table.job_id, *table.key)
        .limit(limit)
    ).all()
    if not found:
        return
    # All at once: the end of a job locks its batch, whose other jobs must not be locked after that.
    job_ids = sorted({job_id for job_id, *_ in found})
    session.execute(select(Job.id).where(Job.id.in_(job_ids)).order_by(Job.id).with_for_update())
    lock_batches_of(session, job_ids)
    for job_id, token, attempts, *key in found:
        error = AttemptsExhaustedError(f"{table.failure_text} in {attempts} attempts; the worker of the last one died")
        try:
            release(session, Lease(step, tuple(key), job_id, token, attempts), error, policy, expired=True)
        except JobCancelledError:
            continue


def send_due_messages(session: Session, step: Step, policy: RetryPolicy, message_timeout_s: float, limit: int) -> int:
    """
    Send messages again for rows whose lease has expired, that have no message, or whose message seems lost.

    Args:
        message_timeout_s: A message that no worker took for this long counts as lost.
        limit: The most rows to handle.

    Returns:
        The number of messages.
    """
    table = _STEP_COLUMNS[step]
    row = table.row
    lost = row.sent_at.is_(None) | (row.sent_at < func.now() - timedelta(seconds=message_timeout_s))
    waits = row.leased_until.is_(None) & (table.due_at <= func.now()) & lost
    if table.task is None:
        raise ValueError(f"the step {step} has no messages")
    found = session.execute(
        select(table.is_live.label("is_live"), *table.key)
        .where(*table.is_open, waits | _has_expired(row, policy.max_attempts))
        .order_by(*table.key)
        .limit(limit)
        .with_for_update(of=row, skip_locked=True)
    ).all()
    if not found:
        return 0
    keys = [tuple(key) for _, *key in found]
    session.execute(
        update(row)
        .where(tuple_(*table.key).in_(keys))
        .values(sent_at=func.now(), **_NO_LEASE, **table.on_release)
        .execution_options(synchronize_session=False)
    )
    for (is_live, *_), key in zip(found, keys, strict=True):
        task = table.live_task if is_live and table.live_task is not None else table.task
        after_commit(session).send(task, **dict(zip(table.key_names, key, strict=True)))
    after_commit(session).count(lambda: RESENT.labels(kind=step.value).inc(len(keys)))
    return len(keys)


def _seconds_from_now(seconds: float) -> ColumnElement[Any]:
    return func.now() + timedelta(seconds=seconds)
