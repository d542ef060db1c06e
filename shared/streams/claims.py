"""Claims of live streams by readers: the lease on the job's row, and what a reader has to know."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import Session, undefer

from shared.errors import JobCancelledError
from shared.jobs.leases import Lease, Step, acquire, lock_rows
from shared.models import Job, Stream
from shared.states import OPEN_JOB_STATUSES, Recording, StreamEnd


@dataclass(frozen=True, slots=True)
class Claim:
    """A stream as its reader knows it."""

    lease: Lease
    url: str = field(repr=False)
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    segment_seconds: float
    sample_fps: float
    manifest: dict[str, Any] | None = field(repr=False)
    alert_threshold: float | None
    record: Recording
    ending: StreamEnd | None
    """Why it ends, if the reader before this one had stopped reading."""
    has_begun: bool
    """Whether a picture has ever arrived."""
    is_pushed: bool = False
    """Whether a publisher sends it to the service."""
    away_since: datetime | None = None
    """Since when the publisher was away at the claim."""


def claim_streams(session: Session, limit: int, *, lease_s: float, max_attempts: int) -> list[Claim]:
    """Lease at most *limit* streams that nobody reads, the oldest first; those that are published are left alone."""
    wanted = select_free().where(Stream.push_key_sha256.is_(None))
    return lease_streams(session, wanted, limit, lease_s=lease_s, max_attempts=max_attempts)


def select_free() -> Select[uuid.UUID]:
    """Build the query for open streams that nobody has leased."""
    return select(Job.id).join(Stream, Stream.job_id == Job.id).where(*is_free())


def is_free() -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that a job with its stream is open and that nobody has leased it."""
    has_no_lease = Job.leased_until.is_(None) | (Job.leased_until < func.now())
    return Stream.ended_at.is_(None), Job.status.in_(OPEN_JOB_STATUSES), Job.segments_total.is_(None), has_no_lease


def lease_streams(
    session: Session, wanted: Select[uuid.UUID], limit: int, *, lease_s: float, max_attempts: int
) -> list[Claim]:
    """Lease at most *limit* of the *wanted* streams that no other reader takes at the moment, the oldest first."""
    # Those without attempts left, which the sweep fails, must not take the places of others.
    wanted = wanted.where(Job.leased_until.is_(None) | (Job.attempts < max_attempts))
    query = wanted.order_by(Job.id).limit(limit).with_for_update(of=Job, skip_locked=True)
    job_ids: Sequence[uuid.UUID] = session.scalars(query).all()
    claims = []
    for job_id in job_ids:
        lease = acquire(session, Step.STREAM, (job_id,), lease_s, max_attempts=max_attempts)
        if lease is not None:
            claims.append(read_claim(session, lease))
    return claims


def read_claim(session: Session, lease: Lease) -> Claim:
    """Read what the reader needs. This is the only place that reads the secret."""
    query = select(Stream).options(undefer(Stream.secret)).where(Stream.job_id == lease.job_id)
    stream = session.scalars(query.execution_options(populate_existing=True)).one()
    job = session.get_one(Job, lease.job_id, populate_existing=True)
    secret = stream.secret or {}
    claim = Claim(
        lease,
        secret.get("url", ""),
        secret.get("username"),
        secret.get("password"),
        job.segment_seconds,
        job.sample_fps,
        job.manifest,
        stream.alert_threshold,
        stream.record,
        stream.ending,
        stream.origin_at is not None,
        stream.is_pushed,
        stream.away_since,
    )
    session.expunge(stream)
    return claim


def keep_claim(session: Session, lease: Lease) -> None:
    """
    Forget the failed attempts of a stream whose reader has worked for a while.

    Attempts count readers that died one after the other, as one that a stream itself kills; a stream that lasts for
    hours outlives several readers.
    """
    session.execute(update(Job).where(Job.id == lease.job_id, Job.lease_token == lease.token).values(attempts=0))


def give_back(session: Session, lease: Lease) -> None:
    """Give a claim back, for another reader to take it at once."""
    try:
        job, _ = lock_rows(session, lease)
    except JobCancelledError:
        return
    # An expired lease, not none: that a reader was there tells upkeep that an end it had begun needs another one.
    job.lease_token, job.leased_until = None, func.now()
    job.attempts = 0
