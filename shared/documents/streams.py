"""Documents of live streams and of their events."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from shared.documents.base import EVENTS_SENT, POLL_AFTER_S, DeclaredType, Document, ErrorDocument, Score
from shared.models import Job, Stream, StreamEvent
from shared.states import JobStatus, Reason, Recording, StreamEnd, StreamEventKind, StreamState, Verdict, WebhookEvent


class StreamOptionsDocument(Document):
    """The options of a stream."""

    model: str
    sample_fps: float
    segment_seconds: float
    duration_limit_s: float
    alert_threshold: Score | None = Field(description="Null for the limits of the checkpoint.")
    record: Annotated[str, DeclaredType(Recording)]
    last_faces: bool = Field(description="Whether pictures of the newest faces are kept while it runs.")
    webhook_url: str | None
    webhook_events: Annotated[list[Any] | None, DeclaredType(list[WebhookEvent] | None)] = Field(
        description=EVENTS_SENT
    )


class StreamCounters(Document):
    """What happened since the beginning."""

    segments: int = Field(description="Segments with pictures.")
    dropped: int = Field(description="Segments that were left out, since scoring could not keep up.")
    gaps: int = Field(description="Times that were missed: the source was away, or nobody read it.")
    reconnects: int


class StreamPersonDocument(Document):
    """A person of the last half minute."""

    person: int = Field(
        description="Counted from 0 in order of appearance. The job numbers its people anew when it ends."
    )
    fake_score: Score | None = Field(description="Mean over the scored faces of the last half minute.")
    faces: int
    verdict: Annotated[str | None, DeclaredType(Verdict | None)] = Field(
        description="What that mean says at present; an alert may have been raised by fewer, newer faces."
    )
    real_below: Score
    fake_from: Score = Field(description="The limit of an alert for the mean over so many faces.")
    is_alerting: bool
    is_held_back: bool = Field(
        description="Whether there would be an alert, if none had been raised about the person in the last minute."
    )
    raised_s: float | None = Field(description="When the last alert was raised, in the time of the stream.")
    seen_s: float
    face_s: float | None = Field(
        description="When the picture of the person was taken, with `last_faces`; see "
        "`GET /v1/streams/{id}/faces/{person}`. Null without one."
    )


class StreamEventDocument(Document):
    """An event of a stream."""

    seq: int = Field(description="1 for the first event, then consecutive.")
    kind: Annotated[str, DeclaredType(StreamEventKind)]
    created_at: datetime
    data: Annotated[dict[str, Any], DeclaredType(dict[str, Any])] = Field(
        description="`source`: `state`, `error`. `segment`: `index`, `start_s`, `end_s`, `status`, `fake_score`, "
        "`reasons`, `people` (their number), `scores` (of each person who was scored in it: `person`, `fake_score`, "
        "`faces`, `rolling_score` over the last half minute, and `fake_from`, the limit of an alert for that). "
        "`alert`: `action` (`raised` or `cleared`), `person`, `time_s`, `start_s`, `fake_score`, `faces`, `limit`. "
        "`ended`: `status`, `verdict`, `fake_score`, `why`, `error`."
    )

    @classmethod
    def from_event(cls, event: StreamEvent) -> "StreamEventDocument":
        """Build the document of *event*."""
        return cls(seq=event.seq, kind=event.kind, created_at=event.created_at, data=event.payload)


class AlertDocument(Document):
    """An alert about a person in a live stream, or its end, as the webhook `stream.alert` has it."""

    stream_id: UUID
    seq: int = Field(description="Its number among the events of the stream.")
    created_at: datetime
    metadata: Annotated[dict[str, Any], DeclaredType(dict[str, Any])] = Field(description="That of the stream.")
    action: Literal["raised", "cleared"]
    person: int
    time_s: float = Field(description="End of the segment that caused it, in the time of the stream.")
    start_s: float = Field(description="Where the faces begin that caused it.")
    fake_score: Annotated[float | None, DeclaredType(Score | None)] = Field(
        description="Mean over these faces; null if the person has gone."
    )
    faces: int
    limit: Annotated[float, DeclaredType(Score)] = Field(description="What the mean was compared with.")


class PushDocument(Document):
    """Where a publisher sends a stream."""

    protocol: str = Field(description="`rtmp`, also for `rtmps:`.")
    address: str = Field(description="The server's address for the publisher; a slash and the key follow.")
    key: str | None = Field(
        description="The stream key, in the answer to the request that begins the stream only; null otherwise."
    )


class StreamSummary(Document):
    """A stream without its people and events."""

    id: UUID = Field(description="The id of the stream, and of its job.")
    status: Annotated[str, DeclaredType(JobStatus)]
    state: Annotated[str, DeclaredType(StreamState)]
    source: str = Field(
        description="Scheme and host. The path is not shown, since it is often a key. With `push`, its address."
    )
    push: PushDocument | None = Field(description="Null for a stream that the service connects to itself.")
    source_error: ErrorDocument | None = Field(description="Why the source was away last.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    why: Annotated[str | None, DeclaredType(StreamEnd | None)] = Field(description="Why it ends or has ended.")
    options: StreamOptionsDocument
    metadata: Annotated[dict[str, Any], DeclaredType(dict[str, Any])]
    counters: StreamCounters
    verdict: Annotated[str | None, DeclaredType(Verdict | None)] = Field(description="Null until it has ended.")
    fake_score: Annotated[float | None, DeclaredType(Score | None)]
    reasons: Annotated[list[Any], DeclaredType(list[Reason])]
    error: ErrorDocument | None
    last_seq: int = Field(description="Number of the last event; 0 without any.")

    @classmethod
    def from_stream(cls, job: Job, stream: Stream) -> "StreamSummary":
        """Build the document of *stream* and its *job* for lists."""
        return cls(**_fields(job, stream))


class StreamDocument(StreamSummary):
    """A stream with its people, and the events that were asked for."""

    people: Annotated[list[Any], DeclaredType(list[StreamPersonDocument])]
    events: list[StreamEventDocument] = Field(description="At most 100 after `after`; empty without it.")
    poll_after_s: float | None = Field(
        description="Ask for the stream again in so many seconds, or wait for an event with `wait_s`. Null once it has"
        " ended."
    )

    @classmethod
    def from_rows(
        cls, job: Job, stream: Stream, events: "list[StreamEvent]", push_key: str | None = None
    ) -> "StreamDocument":
        """
        Build the whole document of *stream* and its *job*.

        Args:
            push_key: The key for its publisher, where it is to be shown.
        """
        found = [StreamEventDocument.from_event(event) for event in events]
        return cls(
            **_fields(job, stream, push_key),
            people=stream.people,
            events=found,
            poll_after_s=None if job.is_final else POLL_AFTER_S,
        )


def _fields(job: Job, stream: Stream, push_key: str | None = None) -> dict[str, Any]:
    push = PushDocument(protocol="rtmp", address=stream.source, key=push_key) if stream.is_pushed else None
    return {
        "id": job.id,
        "status": job.status,
        "state": stream.state,
        "source": stream.source,
        "push": push,
        "source_error": ErrorDocument.from_columns(stream.error_code, stream.error_detail),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "why": stream.ending,
        "options": StreamOptionsDocument(
            model=job.model,
            sample_fps=job.sample_fps,
            segment_seconds=job.segment_seconds,
            duration_limit_s=stream.duration_limit_s,
            alert_threshold=stream.alert_threshold,
            record=stream.record,
            last_faces=stream.last_faces,
            webhook_url=job.webhook_url,
            webhook_events=job.webhook_events,
        ),
        "metadata": job.client_metadata,
        "counters": StreamCounters(**{name: getattr(stream, name) for name in StreamCounters.model_fields}),
        "verdict": job.verdict,
        "fake_score": job.fake_score,
        "reasons": job.reasons,
        "error": ErrorDocument.from_columns(job.error_code, job.error_detail),
        "last_seq": stream.last_seq,
    }


class RecordingDocument(Document):
    """A segment whose video is stored."""

    index: int
    start_s: float
    end_s: float
    lead_s: float = Field(
        description="The file begins this much before `start_s`, at a key frame; what comes before is of the segment "
        "before."
    )


class RecordingList(Document):
    """A page of recorded segments, in order."""

    items: list[RecordingDocument]
    next_cursor: str | None


class StreamList(Document):
    """A page of streams, newest first."""

    items: list[StreamSummary]
    next_cursor: str | None
