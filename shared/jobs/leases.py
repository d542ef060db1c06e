"""Leases: the right to work on one step of a job, until it runs out unrenewed."""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Update, func, select, update
from sqlalchemy.orm import Session

from shared.errors import DeepfakeStreamError, JobCancelledError
from shared.jobs.ending import NO_LEASE, Problem, end_job
from shared.jobs.queries import has_open_segments, lock_job
from shared.models import Job, Segment
from shared.states import OPEN_JOB_STATUSES, OPEN_SEGMENT_STATUSES


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one step of a job, until it runs out unrenewed."""

    job_id: uuid.UUID
    index: int | None
    """The segment, or None for ingest."""
    token: uuid.UUID
    attempt: int
    """1 for the first."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how soon, a failed step is tried again."""

    max_attempts: int
    backoff_s: float

    def after(self, attempt: int) -> timedelta:
        """The wait after the *attempt*-th failure: it doubles each time."""
        return timedelta(seconds=self.backoff_s * 2 ** (attempt - 1))


@dataclass(frozen=True, slots=True)
class Released:
    """What is to be sent after a step was given back and the transaction committed."""

    can_finish: bool = False
    """No segment is open any more."""
    has_failed: bool = False
    """The job has ended with it."""
    delivery_id: uuid.UUID | None = None
    """The webhook delivery that says so, if there is one."""


def lease_ingest(session: Session, job_id: uuid.UUID, lease_s: float) -> Lease | None:
    """
    Begin ingest, unless somebody is at it, it is done, or the job has ended.

    The job is running from its first lease on.
    """
    token = uuid.uuid4()
    attempt = session.execute(
        update(Job)
        .where(
            Job.id == job_id,
            Job.deleted_at.is_(None),
            Job.status.in_(OPEN_JOB_STATUSES),
            Job.segments_total.is_(None),
            _is_free(Job.leased_until),
        )
        .values(
            status="running",
            started_at=func.coalesce(Job.started_at, func.now()),
            attempts=Job.attempts + 1,
            lease_token=token,
            leased_until=_in(lease_s),
            sent_at=func.coalesce(Job.sent_at, func.now()),
        )
        .returning(Job.attempts)
    ).scalar_one_or_none()
    return None if attempt is None else Lease(job_id, None, token, attempt)


def lease_segment(session: Session, job_id: uuid.UUID, index: int, lease_s: float) -> Lease | None:
    """Begin one segment, unless somebody is at it, it is done, or the job is not running."""
    token = uuid.uuid4()
    is_running = select(Job.id).where(Job.id == job_id, Job.status == "running", Job.deleted_at.is_(None)).exists()
    attempt = session.execute(
        update(Segment)
        .where(
            Segment.job_id == job_id,
            Segment.index == index,
            Segment.status.in_(OPEN_SEGMENT_STATUSES),
            _is_free(Segment.leased_until),
            is_running,
        )
        .values(
            status="running",
            started_at=func.coalesce(Segment.started_at, func.now()),
            attempts=Segment.attempts + 1,
            lease_token=token,
            leased_until=_in(lease_s),
            sent_at=func.coalesce(Segment.sent_at, func.now()),
        )
        .returning(Segment.attempts)
    ).scalar_one_or_none()
    return None if attempt is None else Lease(job_id, index, token, attempt)


def renew_lease(session: Session, lease: Lease, lease_s: float) -> bool:
    """Hold the lease for longer; False if it was lost or the job is not running any more."""
    renewed = session.execute(held_row(lease).values(leased_until=_in(lease_s))).rowcount  # type: ignore[attr-defined]
    return bool(renewed) and session.scalar(select(Job.status).where(Job.id == lease.job_id)) == "running"


def release_lease(session: Session, lease: Lease, error: DeepfakeStreamError, retry: Retry) -> Released:
    """
    Give a step back after *error*: to be tried again, or failed for good once its attempts are used up.

    A segment that fails for good leaves the job running for the sake of its other segments; ingest that does
    fails the job.

    Raises:
        JobCancelledError: The lease was lost or the job has ended, so there is nothing to give back.
    """
    job = held_job(session, lease)
    if error.retryable and lease.attempt < retry.max_attempts:
        status = {} if lease.index is None else {"status": "pending"}
        again = func.now() + retry.after(lease.attempt)
        session.execute(held_row(lease).values(sent_at=None, send_after=again, **status, **NO_LEASE))
        return Released()
    if lease.index is None:
        return Released(has_failed=True, delivery_id=end_job(session, job, "failed", error=Problem.of(error)))
    session.execute(
        held_row(lease).values(
            status="failed",
            error_code=error.code,
            error_detail=str(error),
            finished_at=func.now(),
            **NO_LEASE,
        )
    )
    return Released(can_finish=not has_open_segments(session, job.id))


def held_job(session: Session, lease: Lease) -> Job:
    """The running job of a lease that is still held, locked."""
    job = lock_job(session, lease.job_id)
    if job is None or job.status != "running":
        raise JobCancelledError("the job has ended")
    if lease.index is None:
        held = job.lease_token == lease.token
    else:
        query = select(Segment.lease_token).where(
            Segment.job_id == lease.job_id, Segment.index == lease.index, Segment.status == "running"
        )
        held = session.scalar(query.with_for_update()) == lease.token
    if not held:
        raise JobCancelledError("another worker has taken over")
    return job


def held_row(lease: Lease) -> Update:
    """An update of the leased row that does nothing unless the lease is still held."""
    if lease.index is None:
        return update(Job).where(Job.id == lease.job_id, Job.lease_token == lease.token)
    return update(Segment).where(
        Segment.job_id == lease.job_id, Segment.index == lease.index, Segment.lease_token == lease.token
    )


def _is_free(leased_until: Any) -> ColumnElement[bool]:
    return leased_until.is_(None) | (leased_until < func.now())  # type: ignore[no-any-return]


def _in(seconds: float) -> ColumnElement[Any]:
    return func.now() + timedelta(seconds=seconds)
