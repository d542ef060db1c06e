"""Events of live streams, in the order in which clients get them."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db import after_commit
from shared.models import Segment, Stream, StreamEvent
from shared.observability import STREAM_SEGMENTS
from shared.states import Reason, SegmentStatus, StreamEventKind

MAX_EVENTS: Final = 100
"""The most events in one answer."""


def add_event(session: Session, stream: Stream, kind: StreamEventKind, payload: dict[str, Any]) -> StreamEvent:
    """Add an event. The job must be locked, which serialises the numbers of events."""
    stream.last_seq += 1
    event = StreamEvent(job_id=stream.job_id, seq=stream.last_seq, kind=kind, payload=payload)
    session.add(event)
    session.flush()
    return event


def add_segment_event(
    session: Session, stream: Stream, segment: Segment, scores: Sequence[Mapping[str, Any]] = ()
) -> None:
    """
    Add the event of a segment that is done, and count it in the metrics.

    Args:
        scores: The people who were scored in it, as ``RollingVerdict.describe_newest`` gives them; none if nobody
            judged it.
    """
    reasons = ["segment_failed"] if segment.status == SegmentStatus.FAILED else list(segment.reasons or [])
    payload = {
        "index": segment.index,
        "start_s": segment.start_s,
        "end_s": segment.end_s,
        "status": segment.status,
        "fake_score": segment.fake_score,
        "reasons": reasons,
        "people": segment.people_count or 0,
        "scores": list(scores),
    }
    add_event(session, stream, StreamEventKind.SEGMENT, payload)
    unread = {Reason.DROPPED, Reason.GAP} & set(segment.reasons or ())
    outcome = str(next(iter(unread), segment.status))
    after_commit(session).count(STREAM_SEGMENTS.labels(outcome=outcome).inc)


def add_missing_events(session: Session, stream: Stream) -> None:
    """Add the events of the segments that have none, when all are done and no reader judges them any more."""
    of_segments = (StreamEvent.job_id == stream.job_id, StreamEvent.kind == StreamEventKind.SEGMENT)
    # Segments get their events in order, each one.
    count = session.scalar(select(func.count()).where(*of_segments)) or 0
    wanted = select(Segment).where(Segment.job_id == stream.job_id, Segment.index >= count).order_by(Segment.index)
    for segment in session.scalars(wanted.execution_options(populate_existing=True)).all():
        add_segment_event(session, stream, segment)


def read_events(
    session: Session, job_id: uuid.UUID, *, after: int = 0, limit: int = MAX_EVENTS
) -> Sequence[StreamEvent]:
    """Return at most *limit* events with a number above *after*, in order."""
    query = select(StreamEvent).where(StreamEvent.job_id == job_id, StreamEvent.seq > after)
    return session.scalars(query.order_by(StreamEvent.seq).limit(limit)).all()
