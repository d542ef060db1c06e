"""The rolling verdict of a stream, after each segment that is done: events, alerts and pieces to keep."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from shared.config import Streams
from shared.db import after_commit
from shared.documents.streams import AlertDocument
from shared.jobs.deliveries import schedule_alert
from shared.manifests import Manifest
from shared.models import Job, Segment, Stream
from shared.observability import STREAM_ALERTS, STREAM_DELAY_SECONDS
from shared.states import OPEN_SEGMENT_STATUSES, Recording, SegmentStatus, StreamEventKind
from shared.streams.cleanup import release_pieces
from shared.streams.events import add_event, add_segment_event
from shared.streams.faces import name_faces
from shared.streams.pieces import measure_time
from worker.pipeline.rolling import Alert, RollingVerdict
from worker.pipeline.tracking import ScoredSegment

BATCH: Final = 20
"""The most segments that are judged in one transaction."""
KEPT_AROUND: Final = 1
"""Segments that are kept before and after those of an alert."""


def judge_segments(session: Session, job: Job, stream: Stream, manifest: Manifest, settings: Streams) -> int:
    """
    Judge the next segments of a stream whose job is locked, in order, as far as they are done.

    Returns:
        The number of segments.
    """
    state = session.scalar(select(Stream.rolling).where(Stream.job_id == job.id)) or {}
    verdict = RollingVerdict.from_json(
        state.get("verdict"), manifest, window_s=settings.window_s, threshold=stream.alert_threshold
    )
    done = _read_done(session, job, verdict.judged)
    if not done:
        return 0
    kept = set(state.get("kept", ()))
    numbers = {}
    for segment in done:
        was_alerting = verdict.is_alerting
        scored = ScoredSegment(segment.index, segment.result or {}, segment.looks)
        alerts = verdict.add(scored, segment.start_s, segment.end_s)
        numbers[segment.index] = verdict.numbers
        add_segment_event(session, stream, segment, verdict.describe_newest())
        _measure_delay(session, stream, segment)
        for alert in alerts:
            _send(session, job, stream, alert)
        if was_alerting or verdict.is_alerting:
            kept |= _to_keep(session, segment, alerts)
    stream.people = _describe_people(session, stream, verdict, numbers)
    released = state.get("released", -1)
    if stream.record == Recording.SUSPICIOUS:
        horizon_s = done[-1].end_s - settings.window_s - (1 + KEPT_AROUND) * job.segment_seconds
        released = release_pieces(session, job, kept, released, horizon_s)
    kept = {index for index in kept if index > released}
    stream.rolling = {"verdict": verdict.to_json(), "kept": sorted(kept), "released": released}
    session.flush()
    return len(done)


def _read_done(session: Session, job: Job, judged: int) -> Sequence[Segment]:
    """Return the segments that follow the one of the index *judged* and are done, up to the first that is not."""
    query = select(Segment.index, Segment.status).where(Segment.job_id == job.id, Segment.index > judged)
    last = judged
    for index, status in session.execute(query.order_by(Segment.index).limit(BATCH)):
        if status in OPEN_SEGMENT_STATUSES:
            break
        last = index
    if last == judged:
        return ()
    wanted = select(Segment).where(Segment.job_id == job.id, Segment.index > judged, Segment.index <= last)
    wanted = wanted.options(undefer(Segment.result)).order_by(Segment.index)
    return session.scalars(wanted.execution_options(populate_existing=True)).all()


def _measure_delay(session: Session, stream: Stream, segment: Segment) -> None:
    """Put the delay of a judged segment into the metrics."""
    if segment.status == SegmentStatus.SCORED:
        delay_s = max(0.0, measure_time(session, stream) - segment.end_s)
        after_commit(session).count(partial(STREAM_DELAY_SECONDS.observe, delay_s))


def _describe_people(
    session: Session, stream: Stream, verdict: RollingVerdict, numbers: Mapping[int, Mapping[int, int]]
) -> list[dict[str, Any]]:
    """Return the people at present, and keep their newest faces alone, if the stream keeps faces."""
    people = verdict.describe()
    times: Mapping[int, float] = {}
    if stream.last_faces:
        times = name_faces(session, stream.job_id, numbers, {person["person"] for person in people})
    return [{**person, "face_s": times.get(person["person"])} for person in people]


def _send(session: Session, job: Job, stream: Stream, alert: Alert) -> None:
    event = add_event(session, stream, StreamEventKind.ALERT, alert.to_json())
    session.refresh(event)
    after_commit(session).count(STREAM_ALERTS.labels(action=alert.action).inc)
    document = AlertDocument(
        stream_id=job.id,
        seq=event.seq,
        created_at=event.created_at,
        metadata=job.client_metadata,
        **alert.to_json(),
    )
    schedule_alert(session, job, event.seq, document.to_json())


def _to_keep(session: Session, segment: Segment, alerts: Sequence[Alert]) -> set[int]:
    """Return the indices of the segments to keep since *segment* is in an alert."""
    first = segment.index
    starts = [alert.start_s for alert in alerts if alert.action == "raised"]
    if starts:
        earliest = select(Segment.index).where(Segment.job_id == segment.job_id, Segment.end_s > min(starts))
        first = session.scalar(earliest.order_by(Segment.index).limit(1)) or 0
    return set(range(max(0, first - KEPT_AROUND), segment.index + KEPT_AROUND + 1))
