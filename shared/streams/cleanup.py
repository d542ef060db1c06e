"""What the end and the erasure of a job mean for its live stream, if it is one."""

import uuid
from datetime import timedelta

from sqlalchemy import delete, func, null, select, update
from sqlalchemy.orm import Session

from shared.media.removals import schedule_deletion
from shared.models import Job, Segment, Stream, StreamEvent
from shared.states import Recording, StreamEventKind, StreamState
from shared.streams.events import add_event


def find_stream(session: Session, job_id: uuid.UUID) -> Stream | None:
    """Return the stream of a job, read again from the database; None if the job is no stream."""
    return session.get(Stream, job_id, populate_existing=True)


def end_stream(session: Session, job: Job) -> bool:
    """
    Erase the secrets of the stream of a locked *job* that has just ended, and the pieces that are not to be kept.

    Returns:
        False if the job is no stream.
    """
    stream = find_stream(session, job.id)
    if stream is None:
        return False
    stream.state, stream.ended_at = StreamState.ENDED, func.now()
    session.execute(update(Stream).where(Stream.job_id == job.id).values(secret=null(), rolling=null()))
    error = None if job.error_code is None else {"code": job.error_code, "detail": job.error_detail}
    payload = {
        "status": job.status,
        "verdict": job.verdict,
        "fake_score": job.fake_score,
        "why": stream.ending,
        "error": error,
    }
    add_event(session, stream, StreamEventKind.ENDED, payload)
    if stream.record == Recording.NONE:
        _erase_pieces(session, job.id)
    return True


def erase_stream(session: Session, job_id: uuid.UUID) -> None:
    """Erase the stream of a job that is being erased, with its events and pieces, if the job is one."""
    _erase_pieces(session, job_id)
    session.execute(delete(StreamEvent).where(StreamEvent.job_id == job_id))
    session.execute(delete(Stream).where(Stream.job_id == job_id))


def release_piece(session: Session, segment: Segment) -> None:
    """
    Erase the piece of a segment that is done, unless its stream keeps some.

    Those of a stream that does are erased by its reader, once no alert can need them.
    """
    record = select(Stream.record).where(Stream.job_id == segment.job_id)
    if segment.storage_key is not None and session.scalar(record) != Recording.SUSPICIOUS:
        schedule_deletion(session, segment.storage_key)
        segment.storage_key = None


def release_pieces(session: Session, job: Job, kept: set[int], released: int, horizon_s: float | None) -> int:
    """
    Erase the pieces after the index *released* that are not *kept*.

    Args:
        horizon_s: Only pieces that end before it; None for all.

    Returns:
        The index up to which pieces were looked at.
    """
    query = select(Segment).where(Segment.job_id == job.id, Segment.index > released)
    if horizon_s is not None:
        query = query.where(Segment.end_s < horizon_s)
    for segment in session.scalars(query.order_by(Segment.index)):
        released = segment.index
        if segment.storage_key is not None and segment.index not in kept:
            schedule_deletion(session, segment.storage_key)
            segment.storage_key = None
    session.flush()
    return released


def release_rest(session: Session, job: Job) -> None:
    """Erase the pieces that no alert needs, of the stream of a locked *job* that is about to end, if it keeps some."""
    stream = find_stream(session, job.id)
    if stream is not None and stream.record == Recording.SUSPICIOUS:
        state = session.scalar(select(Stream.rolling).where(Stream.job_id == job.id)) or {}
        release_pieces(session, job, set(state.get("kept", ())), state.get("released", -1), None)


def expire_pieces(session: Session, retention_days: float, limit: int) -> int:
    """Erase at most *limit* pieces of streams that ended *retention_days* ago; return their number."""
    old = Job.finished_at < func.now() - timedelta(days=retention_days)
    query = select(Segment).join(Job, Job.id == Segment.job_id).where(Segment.storage_key.is_not(None), old)
    rows = session.scalars(query.limit(limit).with_for_update(of=Segment, skip_locked=True)).all()
    for segment in rows:
        if segment.storage_key is not None:
            schedule_deletion(session, segment.storage_key)
        segment.storage_key = None
    return len(rows)


def _erase_pieces(session: Session, job_id: uuid.UUID) -> None:
    # Not the objects: a segment that is being read needs its row only.
    kept = update(Segment).where(Segment.job_id == job_id, Segment.storage_key.is_not(None))
    keys = session.scalars(
        select(Segment.storage_key).where(Segment.job_id == job_id, Segment.storage_key.is_not(None))
    ).all()
    for key in keys:
        if key is not None:
            schedule_deletion(session, key)
    if keys:
        session.execute(kept.values(storage_key=null()))
