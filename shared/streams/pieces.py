"""Segments of live streams: added by the reader, dropped if they cannot be scored in time, missed in gaps."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db import after_commit
from shared.errors import JobCancelledError
from shared.jobs.ending import end_segment
from shared.jobs.leases import Lease, lock_rows
from shared.jobs.segments import set_result
from shared.models import Job, Segment, Stream, new_id
from shared.queues import SCORE_LIVE
from shared.states import OPEN_SEGMENT_STATUSES, Reason, SegmentStatus
from shared.storage import LIVE_PREFIX
from shared.streams.cleanup import find_stream

GAP_TOLERANCE_S: Final = 0.5
"""A shorter time between two pieces is no gap: the second one begins where the first ends."""
STALE_SEGMENTS: Final = 6
"""A segment that is scored so slowly that this many waiting lists of newer ones have come is dropped, too."""
STALE_S: Final = 30.0
"""The least age of such a segment."""


@dataclass(frozen=True, slots=True)
class NewPiece:
    """A stored piece."""

    storage_key: str
    lead_s: float
    duration_s: float
    start_s: float | None
    """
    When it begins in the time of the stream; None for the first one of a connection, whose place the clock decides.
    """
    age_s: float = 0.0
    """How long ago its first picture was sent, if that is longer than the piece: the source had stored some."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece is in its stream."""

    index: int
    start_s: float
    end_s: float


def new_piece_key() -> str:
    """Return a new storage key for a piece."""
    return f"{LIVE_PREFIX}/{new_id()}"


def lock_stream(session: Session, lease: Lease) -> tuple[Job, Stream]:
    """Lock the job of a stream for its reader. Raises JobCancelledError if the lease was lost or the stream ended."""
    job, _ = lock_rows(session, lease)
    stream = find_stream(session, job.id)
    if stream is None or stream.ended_at is not None:
        raise JobCancelledError("the stream has ended")
    return job, stream


def record_piece(session: Session, lease: Lease, piece: NewPiece) -> Place:
    """
    Add a segment for a stored piece, and one for the gap before it, if there is one; have the piece scored.

    Raises:
        JobCancelledError: The lease was lost or the stream has ended.
    """
    job, stream = lock_stream(session, lease)
    index, last_end_s = _find_last(session, job)
    start_s = piece.start_s
    if start_s is None:
        age_s = max(piece.duration_s, piece.age_s)
        start_s = measure_time(session, stream) - age_s if stream.origin_at is not None else 0.0
    start_s = max(start_s, last_end_s)
    if start_s - last_end_s > GAP_TOLERANCE_S:
        _add_gap(session, job, stream, index, last_end_s, start_s)
        index += 1
    else:
        start_s = last_end_s
    place = Place(index, round(start_s, 6), round(start_s + piece.duration_s, 6))
    segment = Segment(
        job_id=job.id,
        index=index,
        start_s=place.start_s,
        end_s=place.end_s,
        storage_key=piece.storage_key,
        lead_s=piece.lead_s,
        sent_at=func.now(),
    )
    session.add(segment)
    stream.segments += 1
    # A source may send what it had stored when it is connected. The clock of the stream follows the newest picture, so
    # that what is missed later is measured from there.
    begun_at = func.clock_timestamp() - timedelta(seconds=place.end_s)
    stream.origin_at = func.least(func.coalesce(Stream.origin_at, begun_at), begun_at)
    session.flush()
    session.refresh(stream, ["origin_at"])
    after_commit(session).send(SCORE_LIVE, job_id=job.id, index=index)
    return place


def record_last_gap(session: Session, job: Job, stream: Stream) -> None:
    """Add a segment for what was missed between the last piece and now. The job must be locked."""
    if stream.origin_at is None:
        return
    index, last_end_s = _find_last(session, job)
    now_s = round(min(measure_time(session, stream), stream.duration_limit_s), 6)
    if now_s - last_end_s > GAP_TOLERANCE_S + job.segment_seconds:
        _add_gap(session, job, stream, index, last_end_s, now_s)


def measure_time(session: Session, stream: Stream) -> float:
    """Return the present time of the stream, by the clock, in seconds; it must have begun."""
    elapsed = select(func.extract("epoch", func.clock_timestamp() - Stream.origin_at))
    return float(session.scalar(elapsed.where(Stream.job_id == stream.job_id)) or 0.0)


def drop_late_segments(session: Session, job: Job, stream: Stream, max_waiting: int) -> int:
    """
    Drop the oldest segments that wait to be scored, so that *max_waiting* are left, and those that take far too long.

    The job must be locked.

    Returns:
        The number of dropped segments.
    """
    query = select(Segment).where(Segment.job_id == job.id, Segment.status.in_(OPEN_SEGMENT_STATUSES))
    rows = session.scalars(query.order_by(Segment.index).with_for_update()).all()
    waiting = [row for row in rows if row.status == SegmentStatus.PENDING]
    late = waiting[: max(0, len(waiting) - max_waiting)]
    if rows:
        oldest_s = rows[-1].end_s - max(STALE_S, STALE_SEGMENTS * max_waiting * job.segment_seconds)
        late += [row for row in rows if row not in late and row.end_s < oldest_s]
    for row in late:
        _end_unscored(session, job, row, Reason.DROPPED)
    stream.dropped += len(late)
    session.flush()
    return len(late)


def drop_open_segments(session: Session, job: Job, stream: Stream) -> None:
    """
    Drop all segments that are not done, at the end of a stream whose job is locked.

    One that is being scored still has been so for long, or its worker has died.
    """
    query = select(Segment).where(Segment.job_id == job.id, Segment.status.in_(OPEN_SEGMENT_STATUSES))
    rows = session.scalars(query.order_by(Segment.index).with_for_update()).all()
    for row in rows:
        _end_unscored(session, job, row, Reason.DROPPED)
    stream.dropped += len(rows)
    session.flush()


def _find_last(session: Session, job: Job) -> tuple[int, float]:
    """Return the index of the next segment, and where the last one ends."""
    query = select(Segment.index, Segment.end_s).where(Segment.job_id == job.id).order_by(Segment.index.desc()).limit(1)
    found = session.execute(query).one_or_none()
    if found is None:
        return 0, 0.0
    index, end_s = found
    return index + 1, end_s


def _add_gap(session: Session, job: Job, stream: Stream, index: int, start_s: float, end_s: float) -> None:
    gap = Segment(job_id=job.id, index=index, start_s=round(start_s, 6), end_s=round(end_s, 6))
    session.add(gap)
    session.flush()
    _end_unscored(session, job, gap, Reason.GAP)
    stream.gaps += 1


def _end_unscored(session: Session, job: Job, segment: Segment, reason: Reason) -> None:
    """End a segment without a score; a worker that scores it meanwhile has lost its lease."""
    result: dict[str, Any] = {
        "fake_score": None,
        "reasons": [str(reason)],
        "frames_decoded": 0,
        "faces_found": 0,
        "faces_scored": 0,
        "people": [],
        "engine": None,
    }
    end_segment(session, job, segment, set_result(segment, fake_score=None, result=result, looks=()))
