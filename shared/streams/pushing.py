"""
The publishers of streams that are published to the service, and which reader has them.

Such a stream is leased by the reader at which its publisher arrives. Readers leave it alone otherwise, except to follow
its last scores after a reader has died, and to end it. While the publisher is away, the lease can be taken by the
reader at which it comes back: what the reader before still writes is refused, as after any lost lease.
"""

import uuid
from datetime import timedelta
from enum import Enum, auto

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from shared.config import Streams
from shared.errors import DeepfakeStreamError, JobCancelledError, SourceUnreachableError
from shared.jobs.leases import Lease, Step, acquire, lock_rows
from shared.jobs.queries import lock_job
from shared.models import Job, Stream
from shared.states import OPEN_JOB_STATUSES, StreamEventKind, StreamState
from shared.streams.claims import Claim, lease_streams, read_claim, select_free
from shared.streams.cleanup import find_stream
from shared.streams.events import add_event
from shared.streams.keys import digest_key


def replace_key(session: Session, job_id: uuid.UUID, key: str) -> bool:
    """
    Give a stream another key, as long as no publisher has ever come.

    Returns:
        Whether it has the new key.
    """
    job, stream = lock_job(session, job_id), find_stream(session, job_id)
    if job is None or stream is None or not stream.is_pushed or job.started_at is not None or job.is_final:
        return False
    stream.push_key_sha256 = digest_key(key)
    session.flush()
    return True


class Refusal(Enum):
    """Why a publisher cannot begin."""

    UNKNOWN = auto()
    """There is no open stream with this key."""
    PUBLISHED = auto()
    """Another publisher sends it at the moment."""


def find_pushed(session: Session, key: str) -> uuid.UUID | None:
    """Return the open stream with this key; None if there is none."""
    query = select(Job.id).join(Stream, Stream.job_id == Job.id)
    query = query.where(Stream.push_key_sha256 == digest_key(key), Stream.ended_at.is_(None), *_MAY_BEGIN)
    return session.scalar(query)


_MAY_BEGIN = (Stream.ending.is_(None), Stream.stop_requested_at.is_(None), Job.status.in_(OPEN_JOB_STATUSES))


def claim_pushed(session: Session, job_id: uuid.UUID, *, lease_s: float, max_attempts: int) -> Claim | Refusal:
    """Lease a stream for the reader at which its publisher has arrived."""
    job, stream = lock_job(session, job_id), find_stream(session, job_id)
    if job is None or job.is_final or stream is None or stream.ending or stream.stop_requested_at or stream.ended_at:
        return Refusal.UNKNOWN
    is_leased = session.scalar(select(Job.leased_until > func.now()).where(Job.id == job_id))
    if is_leased and stream.away_since is None:
        return Refusal.PUBLISHED
    if is_leased:
        # Its reader only waits for the last scores, which counts as no attempt.
        job.lease_token = job.leased_until = None
        job.attempts = max(0, job.attempts - 1)
        session.flush()
    lease = acquire(session, Step.STREAM, (job_id,), lease_s, max_attempts=max_attempts)
    if lease is None:
        # Its readers have died one after the other, and the sweep fails it.
        return Refusal.UNKNOWN
    claim = read_claim(session, lease)
    find_stream_of(session, lease).away_since = None
    session.flush()
    return claim


def claim_unattended(session: Session, limit: int, settings: Streams, *, max_attempts: int) -> list[Claim]:
    """
    Lease at most *limit* published streams that need a reader, though no publisher is there.

    The reader before has died or was stopped, or the stream is to end.
    """
    needs_reader = (
        Job.leased_until.is_not(None)
        | Stream.stop_requested_at.is_not(None)
        | Stream.ending.is_not(None)
        | _is_abandoned(settings)
        | (func.extract("epoch", func.now() - Job.started_at) >= Stream.duration_limit_s)
    )
    wanted = select_free().where(Stream.push_key_sha256.is_not(None), needs_reader)
    claims = lease_streams(session, wanted, limit, lease_s=settings.lease_s, max_attempts=max_attempts)
    for claim in claims:
        if claim.away_since is None and claim.ending is None:
            lost = SourceUnreachableError("the connection to the publisher was lost with its reader")
            note_left(session, claim.lease, lost)
    return claims


def note_left(session: Session, lease: Lease, error: DeepfakeStreamError | None) -> None:
    """Note that the publisher of a leased stream is away: lost by *error*, or None if it said that it has ended."""
    stream = find_stream_of(session, lease)
    if stream.away_since is None:
        stream.away_since = func.now()
    if stream.ending is None and stream.origin_at is not None:
        stream.state = StreamState.AWAY
    stream.error_code, stream.error_detail = (None, None) if error is None else (error.code, str(error))
    problem = None if error is None else {"code": error.code, "detail": str(error)}
    add_event(session, stream, StreamEventKind.SOURCE, {"state": stream.state, "error": problem})


def is_abandoned(session: Session, stream: Stream, settings: Streams) -> bool:
    """Return whether the publisher of *stream* is away for too long."""
    query = select(Stream.job_id).where(Stream.job_id == stream.job_id, _is_abandoned(settings))
    return session.scalar(query) is not None


def leave_pushed(session: Session, lease: Lease, *, has_read: bool, is_done: bool) -> None:
    """
    Give the lease of a published stream back.

    Args:
        has_read: Whether it was leased for a publisher. An attempt without one says nothing about the stream.
        is_done: Whether everything is judged, so that no reader is needed until the publisher comes back.
    """
    try:
        job, _ = lock_rows(session, lease)
    except JobCancelledError:
        return
    stream = find_stream_of(session, lease)
    if is_done and stream.away_since is None:
        stream.away_since = func.now()
    job.lease_token = None
    # A lease that has expired is what a reader that died leaves behind: another one goes on.
    job.leased_until = None if is_done else func.now()
    job.attempts = 0 if has_read else max(0, lease.attempt - 1)


def find_stream_of(session: Session, lease: Lease) -> Stream:
    """Return the stream of a lease."""
    stream = find_stream(session, lease.job_id)
    if stream is None:
        raise JobCancelledError("the stream has ended")
    return stream


def _is_abandoned(settings: Streams) -> ColumnElement[bool]:
    limit = case(
        (Stream.origin_at.is_(None), timedelta(seconds=settings.push_wait_s)),
        else_=timedelta(seconds=settings.source_timeout_s),
    )
    return Stream.away_since < func.now() - limit
