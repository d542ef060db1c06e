"""The end of live streams: requested by a client, found by the reader, and left to the step that judges jobs."""

from datetime import timedelta
from typing import Final

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from shared.db import after_commit
from shared.errors import SourceStalledError
from shared.jobs.ending import Failure, end_job
from shared.jobs.queries import lock_job
from shared.models import Job, Segment, Stream
from shared.queues import FINISH
from shared.states import JobStatus, StreamEnd, StreamState
from shared.streams.claims import is_free
from shared.streams.cleanup import find_stream
from shared.streams.events import add_missing_events
from shared.streams.pieces import drop_open_segments, record_last_gap

UNREAD_GRACE_S: Final = 30.0
"""How long another reader may take to come, before a stream that is to end is ended without one."""


def request_stop(session: Session, job: Job, stream: Stream) -> None:
    """
    Have the stream of a locked *job* end. Repeating it changes nothing.

    Its reader does that within a second. If there is none, the stream ends here.
    """
    if job.is_final or stream.ending is not None:
        return
    if stream.stop_requested_at is None:
        stream.stop_requested_at = func.now()
    is_read = select(Job.id).where(Job.id == job.id, Job.leased_until > func.now())
    if session.scalar(is_read) is None:
        begin_end(session, job, stream, StreamEnd.REQUEST, has_missed=True)
        close_stream(session, job, stream)


def begin_end(session: Session, job: Job, stream: Stream, why: StreamEnd, *, has_missed: bool) -> None:
    """
    Note that nothing is read any more. The job must be locked; its last segments may still be scored.

    Args:
        has_missed: Whether the source was away or nobody read it, so that the time since the last piece is a gap. It is
            none if the publisher of a stream said that it has ended.
    """
    if stream.ending is None:
        has_said_end = stream.is_pushed and stream.state == StreamState.AWAY and stream.error_code is None
        if has_missed and not has_said_end:
            record_last_gap(session, job, stream)
        stream.ending, stream.state = why, StreamState.ENDING
        session.flush()


def close_stream(session: Session, job: Job, stream: Stream) -> None:
    """
    Hand the stream of a locked *job* over to the step that judges jobs: there will be no further segments.

    Segments that are not done are dropped, and those without an event get theirs. A stream without any
    picture has nothing to judge: it was cancelled if its end was requested, and failed otherwise.
    """
    drop_open_segments(session, job, stream)
    add_missing_events(session, stream)
    count = session.scalar(select(func.count()).where(Segment.job_id == job.id)) or 0
    if stream.segments == 0:
        if stream.ending == StreamEnd.REQUEST:
            end_job(session, job, JobStatus.CANCELLED)
        else:
            end_job(session, job, JobStatus.FAILED, failure=_explain(stream))
        return
    job.segments_total = count
    job.lease_token = job.leased_until = None
    # From here on attempts of the finish step are counted.
    job.attempts = 0
    job.send_after = func.now()
    session.flush()
    job.sent_at = func.now()
    after_commit(session).send(FINISH, job_id=job.id)


def end_overdue_streams(session: Session, limit: int) -> int:
    """
    End at most *limit* streams that nobody reads although they should have ended: ``request_stop`` left it to a reader
    that has died, a reader died while the last segments were scored, or the time of the stream is over.

    Returns:
        The number of streams.
    """
    grace = timedelta(seconds=UNREAD_GRACE_S)
    # One that is published and has not begun waits for its publisher.
    begun_at = func.coalesce(Job.started_at, case((Stream.push_key_sha256.is_(None), Job.created_at)))
    is_over = begun_at + Stream.duration_limit_s * timedelta(seconds=1) < func.now() - grace
    was_stopped = Stream.stop_requested_at < func.now() - grace
    has_died = (Job.leased_until < func.now() - grace) & Stream.ending.is_not(None)
    query = select(Job.id).join(Stream, Stream.job_id == Job.id).where(*is_free(), is_over | was_stopped | has_died)
    found = session.scalars(query.order_by(Job.id).limit(limit).with_for_update(of=Job, skip_locked=True)).all()
    for job_id in found:
        job, stream = lock_job(session, job_id), find_stream(session, job_id)
        if job is not None and stream is not None:
            why = StreamEnd.REQUEST if stream.stop_requested_at is not None else StreamEnd.DURATION
            begin_end(session, job, stream, why, has_missed=True)
            close_stream(session, job, stream)
    return len(found)


def _explain(stream: Stream) -> Failure:
    if stream.error_code is not None:
        return Failure(stream.error_code, stream.error_detail or "")
    return Failure(SourceStalledError.code, "no picture arrived from the source before the stream's end")
