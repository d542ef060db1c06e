"""The end of live streams: requested by a client, found by the reader, and left to the step that judges jobs."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db import after_commit
from shared.errors import SourceStalledError
from shared.jobs.ending import Failure, end_job
from shared.jobs.queries import has_open_segments
from shared.models import Job, Segment, Stream
from shared.queues import FINISH
from shared.states import JobStatus, StreamEnd, StreamState
from shared.streams.pieces import drop_late_segments, record_last_gap


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

    Segments that still wait are dropped, and the step waits for those that are being scored. A stream without any
    picture has nothing to judge: it was cancelled if its end was requested, and failed otherwise.
    """
    drop_late_segments(session, job, stream, 0)
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
    if not has_open_segments(session, job.id):
        job.sent_at = func.now()
        after_commit(session).send(FINISH, job_id=job.id)


def _explain(stream: Stream) -> Failure:
    if stream.error_code is not None:
        return Failure(stream.error_code, stream.error_detail or "")
    return Failure(SourceStalledError.code, "no picture arrived from the source before the stream's end")
