"""A live stream while it runs, as its page shows it: the state at present, and the events of the last minutes."""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.web.live_wording import (
    count_parts,
    explain_event,
    explain_present,
    explain_rolling,
    explain_source,
    explain_unscored,
    is_suspicious,
)
from shared.documents.streams import StreamSummary
from shared.models import Job, Stream, StreamEvent
from shared.states import StreamEventKind
from shared.streams.cleanup import find_stream

RECENT_S: Final = 300.0
"""How much of the past the moving line shows."""
MAX_RECENT: Final = 900
"""The most events in which that is looked for: segments of a second each, alerts, and losses of the source."""
MAX_ALERTS: Final = 20
"""The most alerts that the page lists."""


def describe_live(session: Session, job: Job, window_s: float) -> dict[str, Any] | None:
    """
    Return what the template shows of a stream that runs; None if *job* is no stream, or has ended.

    Args:
        window_s: The time over which people are judged, for words.
    """
    stream = None if job.is_final else find_stream(session, job.id)
    if stream is None:
        return None
    return {
        "present": describe_present(job, stream, window_s),
        "alerts": _list_alerts(session, job.id),
        "after": _find_recent(session, stream),
        "recent_s": RECENT_S,
        "window_s": window_s,
    }


def describe_present(job: Job, stream: Stream, window_s: float) -> dict[str, Any]:
    """Return the present state of a stream, with all words that the page shows of it, as plain values."""
    summary = StreamSummary.from_stream(job, stream)
    is_trained = bool((job.manifest or {}).get("trained", True))
    title, meaning = explain_present(summary, stream.people, is_trained=is_trained)
    limits = [person["fake_from"] for person in stream.people if person.get("fake_from") is not None]
    return {
        "status": job.status,
        "is_final": job.is_final,
        "is_ending": stream.ending is not None or stream.stop_requested_at is not None,
        "is_alerting": any(is_suspicious(person) for person in stream.people),
        "title": title,
        "meaning": meaning,
        "source": explain_source(summary),
        "counts": count_parts(summary),
        # The limits of several people differ a little: an alert can be raised from the lowest of them on.
        "fake_from": stream.alert_threshold if stream.alert_threshold is not None else min(limits, default=None),
        "people": [
            {
                "person": person["person"],
                "is_alerting": is_suspicious(person),
                "raised_s": person.get("raised_s") if person.get("is_alerting") else None,
                "words": explain_rolling(person, window_s, is_trained=is_trained),
                "face_s": person.get("face_s"),
            }
            for person in stream.people
        ],
    }


def describe_event(event: StreamEvent) -> dict[str, Any]:
    """Return an event as the page needs it: its data, and its words where it has some."""
    described = {"seq": event.seq, **event.payload, "words": explain_event(event.kind, event.payload)}
    if event.kind == StreamEventKind.SEGMENT and event.payload["fake_score"] is None:
        described["why"] = explain_unscored(event.payload["reasons"])
    return described


def _list_alerts(session: Session, job_id: uuid.UUID) -> list[dict[str, Any]]:
    """Return the last alerts, the newest first."""
    query = select(StreamEvent).where(StreamEvent.job_id == job_id, StreamEvent.kind == StreamEventKind.ALERT)
    rows: Sequence[StreamEvent] = session.scalars(query.order_by(StreamEvent.seq.desc()).limit(MAX_ALERTS)).all()
    return [describe_event(row) for row in rows]


def _find_recent(session: Session, stream: Stream) -> int:
    """Return the number of the event after which those of the last minutes come."""
    first = max(0, stream.last_seq - MAX_RECENT)
    old = select(func.max(StreamEvent.seq)).where(
        StreamEvent.job_id == stream.job_id,
        StreamEvent.seq > first,
        StreamEvent.created_at < func.now() - timedelta(seconds=RECENT_S),
    )
    return session.scalar(old) or first
