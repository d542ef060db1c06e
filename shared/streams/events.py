"""Events of live streams, in the order in which clients get them."""

import uuid
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.models import Stream, StreamEvent
from shared.states import StreamEventKind

MAX_EVENTS: Final = 100
"""The most events in one answer."""


def add_event(session: Session, stream: Stream, kind: StreamEventKind, payload: dict[str, Any]) -> StreamEvent:
    """Add an event. The job must be locked, which serialises the numbers of events."""
    stream.last_seq += 1
    event = StreamEvent(job_id=stream.job_id, seq=stream.last_seq, kind=kind, payload=payload)
    session.add(event)
    session.flush()
    return event


def read_events(
    session: Session, job_id: uuid.UUID, *, after: int = 0, limit: int = MAX_EVENTS
) -> Sequence[StreamEvent]:
    """Return at most *limit* events with a number above *after*, in order."""
    query = select(StreamEvent).where(StreamEvent.job_id == job_id, StreamEvent.seq > after)
    return session.scalars(query.order_by(StreamEvent.seq).limit(limit)).all()
