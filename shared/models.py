"""
The database tables, which are authoritative for the state of every job.

Ids are UUIDv7, so they sort by time of creation. Times are ``timestamptz``; those that several processes compare are
set by the database's clock. Only the migrations create and change the schema.
"""

import uuid
from collections.abc import Iterable
from datetime import date, datetime
from enum import StrEnum
from typing import Any, ClassVar

import uuid6
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from shared.states import (
    FINAL_JOB_STATUSES,
    OPEN_DELIVERY_STATUSES,
    OPEN_EXPLANATION_STATUSES,
    OPEN_JOB_STATUSES,
    OPEN_SEGMENT_STATUSES,
    DeliveryStatus,
    ExplanationStatus,
    JobStatus,
    Recording,
    SegmentStatus,
    StreamEnd,
    StreamState,
    Verdict,
)


def new_id() -> uuid.UUID:
    """Return a new UUIDv7."""
    return uuid.UUID(int=uuid6.uuid7().int)


def _allowed_values(column: str, values: Iterable[StrEnum]) -> str:
    listed = ", ".join(f"'{value}'" for value in values)
    return f"{column} in ({listed})"


class EnumString(TypeDecorator[StrEnum]):
    """
    A text column that holds a member of a string enumeration.

    A check constraint lists the allowed values; native enumerations of Postgres are harder to change. A value that this
    release does not know, because a later one wrote it, is read as a plain string.
    """

    impl = String
    cache_ok = True

    def __init__(self, enumeration: type[StrEnum]) -> None:
        super().__init__()
        self.enumeration = enumeration

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the plain string that is stored."""
        del dialect
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Return the member, or the plain string if it is unknown."""
        del dialect
        try:
            return None if value is None else self.enumeration(value)
        except ValueError:
            return value


class Base(DeclarativeBase):
    """The base class of all tables, with fixed names of constraints for the migrations."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
        float: Double,
        uuid.UUID: Uuid,
        str: String,
        JobStatus: EnumString(JobStatus),
        SegmentStatus: EnumString(SegmentStatus),
        DeliveryStatus: EnumString(DeliveryStatus),
        ExplanationStatus: EnumString(ExplanationStatus),
        Recording: EnumString(Recording),
        StreamEnd: EnumString(StreamEnd),
        StreamState: EnumString(StreamState),
        Verdict: EnumString(Verdict),
    }


class APIKey(Base):
    """A key to the API: hashed, named, scoped, and belonging to an owner."""

    __tablename__ = "api_keys"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    owner: Mapped[str]
    name: Mapped[str]
    prefix: Mapped[str]
    """The first characters of the key, to recognise it."""
    secret_sha256: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    """The key has 256 random bits, so that a plain digest cannot be inverted and no slow hash is needed."""
    scopes: Mapped[list[Any]]
    webhook_secret: Mapped[str]
    """``whsec_…``: signs the webhooks of jobs made with this key, so it is stored in plain text."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]


class Media(Base):
    """A stored upload: one for each owner and content."""

    __tablename__ = "media"
    __table_args__ = (UniqueConstraint("owner", "sha256"), Index("ix_media_expires_at", "expires_at"))

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    owner: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    storage_key: Mapped[str | None]
    """Null once the file is erased."""
    facts: Mapped[dict[str, Any] | None]
    """The facts from the probe; see ``worker.media.probe.MediaFacts``."""
    video_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Bytes of the video stream; null for images, and in rows of older releases."""
    presentation: Mapped[dict[str, Any] | None]
    """The track and dynamic range that are shown; null in rows of older releases. See ``MediaFacts.presentation``."""
    provenance: Mapped[dict[str, Any] | None]
    """
    Its Content Credentials, as a ``shared.documents.provenance.ProvenanceDocument``; null until it was probed, and in
    rows of older releases.
    """
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class Job(Base):
    """One analysis of one media with one checkpoint and one set of options."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(_allowed_values("status", JobStatus), name="status"),
        CheckConstraint(_allowed_values("verdict", Verdict), name="verdict"),
        UniqueConstraint("owner", "idempotency_key"),
        Index("ix_jobs_owner_id", "owner", text("id desc")),
        Index("ix_jobs_open", "status", "id", postgresql_where=text(_allowed_values("status", OPEN_JOB_STATUSES))),
        Index("ix_jobs_open_owner", "owner", postgresql_where=text(_allowed_values("status", OPEN_JOB_STATUSES))),
        Index("ix_jobs_media_id", "media_id"),
        Index("ix_jobs_finished_at", "finished_at"),
        Index("ix_jobs_expiring", "finished_at", postgresql_where=text("deleted_at is null")),
        Index("ix_jobs_deleted_at", "deleted_at", postgresql_where=text("deleted_at is not null")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    owner: Mapped[str]
    api_key_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("api_keys.id"))
    media_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("media.id"))
    source_url: Mapped[str | None]
    source_key: Mapped[str | None]
    """Storage key of a direct upload that is not yet the job's media."""
    source_sha256: Mapped[str | None]
    """Expected digest of the direct upload, if its sender gave one."""
    status: Mapped[JobStatus] = mapped_column(default=JobStatus.QUEUED)
    model: Mapped[str]
    """Name of the job's checkpoint."""
    manifest: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    """
    The checkpoint's manifest at submission, with the digest of its weights; see ``Manifest.pin``. In rows that an older
    release created, it is null until ingest has planned the job.
    """
    sample_fps: Mapped[float]
    segment_seconds: Mapped[float]
    webhook_url: Mapped[str | None]
    webhook_events: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    """The events that the receiver gets; null for all, and in rows of older releases."""
    # The attribute cannot be called "metadata", a reserved name of SQLAlchemy.
    client_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[str]
    """Digest of file and options, to tell a repeated request from another with the same idempotency key."""

    fake_score: Mapped[float | None]
    peak_score: Mapped[float | None]
    verdict: Mapped[Verdict | None]
    reasons: Mapped[list[Any]] = mapped_column(default=list)
    model_description: Mapped[dict[str, Any] | None]
    evidence: Mapped[dict[str, Any] | None]
    """The evidence for the verdict, and the limits that follow from it; see ``worker.tasks.finish.judge``."""
    findings: Mapped[dict[str, Any] | None]
    """Findings on each person, and suspicious intervals; see ``worker.pipeline.verdicts``."""
    reused_from: Mapped[uuid.UUID | None]
    """The job whose scores were reused; it may have been deleted since."""
    parent_id: Mapped[uuid.UUID | None]
    """The job whose media this one scores again; that one may be gone by now."""
    review: Mapped[dict[str, Any] | None]
    """What a person found; see ``shared.documents.reviews``. It stands beside the outcome and changes nothing of it."""
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]

    segments_total: Mapped[int | None]
    segments_done: Mapped[int | None] = mapped_column(server_default=text("0"))
    """
    Number of segments that are neither pending nor running. Database triggers keep it (migration 0009), so that it is
    correct whichever release records a segment. It is null in jobs planned earlier until their next segment is done.
    """
    attempts: Mapped[int] = mapped_column(default=0)
    """Attempts of the current step: ingest, and after the segments are planned, finish."""
    lease_token: Mapped[uuid.UUID | None]
    leased_until: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    """When a message for the current step was last sent; null if none is out."""
    send_after: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    media: Mapped[Media | None] = relationship()
    api_key: Mapped[APIKey] = relationship()
    explanation: Mapped["Explanation | None"] = relationship(viewonly=True)

    @property
    def is_final(self) -> bool:
        """Whether the job has a final status."""
        return self.status in FINAL_JOB_STATUSES


class DirectUpload(Base):
    """A file that arrives before its job is submitted; see ``shared.media.direct_uploads``."""

    __tablename__ = "uploads"
    __table_args__ = (Index("ix_uploads_owner", "owner"), Index("ix_uploads_expires_at", "expires_at"))

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    owner: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    claimed_at: Mapped[datetime | None]
    """When a job claimed the upload. Its bytes count towards the owner's quota until they are the job's media."""
    token_sha256: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Digest of the token in the address of the api that takes the file. Null if the file goes to storage itself."""


class Removal(Base):
    """A pending removal of a file; see ``shared.media.removals``."""

    __tablename__ = "removals"

    storage_key: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Segment(Base):
    """An interval ``[start_s, end_s)`` of a job's media, and its result."""

    __tablename__ = "segments"
    __table_args__ = (
        CheckConstraint(_allowed_values("status", SegmentStatus), name="status"),
        CheckConstraint("fake_score between 0 and 1", name="fake_score"),
        CheckConstraint("(status = 'scored') = (fake_score is not null)", name="scored_has_score"),
        Index(
            "ix_segments_open",
            "status",
            "send_after",
            postgresql_where=text(_allowed_values("status", OPEN_SEGMENT_STATUSES)),
        ),
        Index("ix_segments_storage_key", "storage_key", postgresql_where=text("storage_key is not null")),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    start_s: Mapped[float]
    end_s: Mapped[float]
    status: Mapped[SegmentStatus] = mapped_column(default=SegmentStatus.PENDING)
    fake_score: Mapped[float | None]
    result: Mapped[dict[str, Any] | None] = mapped_column(deferred=True, deferred_raiseload=True)
    """
    People, faces, boxes and times; see ``worker.pipeline.results.SegmentResult``. It is large, so it is loaded only by
    queries with ``undefer``.
    """
    people_count: Mapped[int | None]
    """
    Number of people in *result*. This column and the next five repeat values of *result*, to be read without it. All
    are null without a result, and in rows of older releases; ``shared.jobs.segments`` reads both forms.
    """
    faces_found: Mapped[int | None]
    faces_scored: Mapped[int | None]
    frames_decoded: Mapped[int | None]
    engine: Mapped[str | None]
    reasons: Mapped[list[Any] | None]
    looks: Mapped[list[Any] | None]
    """The looks of its people, by number, to follow them over segments; null once the job has ended."""
    storage_key: Mapped[str | None]
    """
    The piece of a live stream that holds the segment; null in other jobs, and once the piece is erased. A trigger
    schedules its removal when the row is deleted (migration 0015).
    """
    lead_s: Mapped[float | None]
    """Seconds in the piece before the segment begins; null in other jobs."""
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0)
    lease_token: Mapped[uuid.UUID | None]
    leased_until: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    send_after: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Delivery(Base):
    """One attempt to deliver one webhook event."""

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint(_allowed_values("status", DeliveryStatus), name="status"),
        UniqueConstraint("job_id", "number"),
        Index("ix_deliveries_due", "due_at", postgresql_where=text(_allowed_values("status", OPEN_DELIVERY_STATUSES))),
        Index("ix_deliveries_url", "url", "finished_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    """1 for the first attempt of the job's event, then consecutive."""
    event_id: Mapped[str]
    """The ``webhook-id``, the same in every attempt, so that a receiver can recognise a repetition."""
    event: Mapped[str]
    url: Mapped[str]
    retries: Mapped[int] = mapped_column(default=0)
    """Number of attempts of the automatic schedule before this one."""
    automatic: Mapped[bool] = mapped_column(default=True)
    """True if the schedule created the attempt, false if a redelivery was requested."""
    status: Mapped[DeliveryStatus] = mapped_column(default=DeliveryStatus.PENDING)
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    sent_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    """How often the attempt was leased; more than once if a worker died during it."""
    lease_token: Mapped[uuid.UUID | None]
    leased_until: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    response_status: Mapped[int | None]
    response_excerpt: Mapped[str | None]
    error_code: Mapped[str | None]
    payload: Mapped[dict[str, Any] | None]
    """The data of the event; null for that of the end of a job, which is the job's document."""

    job: Mapped[Job] = relationship()


class Explanation(Base):
    """
    The explanation of the faces of one job; see ``shared.jobs.explanations``. No row if none was requested.

    A trigger schedules the removal of the images when a row is deleted (migration 0013), whichever release does it.
    """

    __tablename__ = "explanations"
    __table_args__ = (
        CheckConstraint(_allowed_values("status", ExplanationStatus), name="status"),
        UniqueConstraint("storage_key"),
        Index(
            "ix_explanations_open",
            "send_after",
            postgresql_where=text(_allowed_values("status", OPEN_EXPLANATION_STATUSES)),
        ),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    status: Mapped[ExplanationStatus] = mapped_column(default=ExplanationStatus.PENDING)
    result: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    """People, faces and images; see ``worker.explain.people.Explained``."""
    storage_key: Mapped[str | None]
    """The object that holds all images, one after another; null before it is made, and once it is erased."""
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    lease_token: Mapped[uuid.UUID | None]
    leased_until: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    send_after: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Stream(Base):
    """A live stream: a job whose segments keep coming; see ``shared.streams`` and ``docs/streams.md``."""

    __tablename__ = "streams"
    __table_args__ = (
        CheckConstraint(_allowed_values("state", StreamState), name="state"),
        CheckConstraint(_allowed_values("ending", StreamEnd), name="ending"),
        CheckConstraint(_allowed_values("record", Recording), name="record"),
        Index("ix_streams_open", "job_id", postgresql_where=text("ended_at is null")),
        Index("ix_streams_push_key_sha256", "push_key_sha256", postgresql_where=text("push_key_sha256 is not null")),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    source: Mapped[str]
    """Scheme and host of the source, for people. The path is left out, since it is often a key."""
    secret: Mapped[dict[str, Any] | None] = mapped_column(deferred=True, deferred_raiseload=True)
    """
    Address and credentials of the source, which only its reader reads; see ``shared.streams.claims.read_secret``. Null
    once the stream has ended.
    """
    push_key_sha256: Mapped[bytes | None] = mapped_column(LargeBinary)
    """
    Of a stream that is published to the service: the digest of its key, which has 256 random bits and is shown once.
    """
    away_since: Mapped[datetime | None]
    """Of such a stream: since when its publisher is away; null while it is connected."""
    duration_limit_s: Mapped[float]
    alert_threshold: Mapped[float | None]
    """The mean score of a person from which on there is an alert; null for that of the checkpoint."""
    record: Mapped[Recording] = mapped_column(default=Recording.NONE)
    last_faces: Mapped[bool] = mapped_column(default=False, server_default="false")
    """Whether pictures of the newest faces are kept while it runs."""
    state: Mapped[StreamState] = mapped_column(default=StreamState.WAITING)
    error_code: Mapped[str | None]
    """Why the source was away last."""
    error_detail: Mapped[str | None]
    ending: Mapped[StreamEnd | None]
    """Why the stream ends or has ended; null while it is read."""
    stop_requested_at: Mapped[datetime | None]
    origin_at: Mapped[datetime | None]
    """When the time of the stream was 0; null before the first picture."""
    rolling: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    """
    The state of the rolling verdict, which its reader alone writes; see ``worker.pipeline.rolling``. It contains the
    looks of people, so it is null once the stream has ended.
    """
    people: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    """The people of the last half minute with their scores and alerts, without looks."""
    last_seq: Mapped[int] = mapped_column(default=0, server_default="0")
    """Number of the last event."""
    segments: Mapped[int] = mapped_column(default=0, server_default="0")
    """Segments with pictures. This and the next three count since the beginning."""
    dropped: Mapped[int] = mapped_column(default=0, server_default="0")
    gaps: Mapped[int] = mapped_column(default=0, server_default="0")
    reconnects: Mapped[int] = mapped_column(default=0, server_default="0")
    ended_at: Mapped[datetime | None]

    job: Mapped[Job] = relationship()

    @property
    def is_pushed(self) -> bool:
        """Whether a publisher sends it to the service."""
        return self.push_key_sha256 is not None


class StreamFace(Base):
    """
    The picture of a face in a live stream that keeps the newest of each person while it runs; ``shared.streams.faces``.

    A trigger erases them when the job ends, and the foreign key when its stream is erased (migration 0019).
    """

    __tablename__ = "stream_faces"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("streams.job_id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    """Of the segment."""
    within: Mapped[int] = mapped_column(primary_key=True)
    """Number of the person within the segment."""
    person: Mapped[int | None]
    """Number of the person in the stream; null until the segment is judged."""
    time_s: Mapped[float]
    jpeg: Mapped[bytes] = mapped_column(LargeBinary)


class StreamEvent(Base):
    """An event of a live stream; a trigger notifies the api of each (migration 0015)."""

    __tablename__ = "stream_events"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """1 for the first event of a stream, then consecutive."""
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Share(Base):
    """A link by which whoever has it sees the report of one job, without an API key, until it expires."""

    __tablename__ = "shares"
    __table_args__ = (Index("ix_shares_job_id", "job_id"), Index("ix_shares_expires_at", "expires_at"))

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    api_key_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("api_keys.id"))
    token_sha256: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    """The token has 256 random bits and is shown once, so that nobody who reads the database can use it."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class Batch(Base):
    """Jobs that one request made together; see ``shared.jobs.batches``. Its row goes when its last job is erased."""

    __tablename__ = "batches"
    __table_args__ = (
        UniqueConstraint("owner", "idempotency_key"),
        Index("ix_batches_open", "id", postgresql_where=text("ended_at is null")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    owner: Mapped[str]
    api_key_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("api_keys.id"))
    webhook_url: Mapped[str | None]
    """Called once, when all jobs have ended."""
    webhook_events: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    """The events of the batch that the receiver gets; null for all, and in rows of older releases."""
    # The attribute cannot be called "metadata", a reserved name of SQLAlchemy.
    client_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[str]
    """Digest of the request, to tell a repeated one from another with the same idempotency key."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
    """When its last open job ended."""


class BatchItem(Base):
    """One item of a batch: a job, or the error with which the item was refused."""

    __tablename__ = "batch_items"
    __table_args__ = (UniqueConstraint("job_id"),)

    batch_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Place in the request, from 0."""
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]

    job: Mapped[Job | None] = relationship()


class Usage(Base):
    """What a job used that has ended, or the jobs of one key on one day; see ``shared.jobs.usage``."""

    __tablename__ = "usage"
    __table_args__ = (Index("ix_usage_owner", "owner", "day"), Index("ix_usage_day", "day"))

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    day: Mapped[date] = mapped_column(Date)
    owner: Mapped[str]
    api_key_id: Mapped[uuid.UUID]
    """There is no foreign key, since rows outlive what they refer to."""
    jobs: Mapped[int] = mapped_column(BigInteger)
    media: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float]
    faces: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)


class InputCount(Base):
    """
    What one job gave its checkpoint to judge, or the jobs of one checkpoint and kind on one day.

    It says nothing about whose they were. See ``shared.jobs.inputs``.
    """

    __tablename__ = "inputs"
    __table_args__ = (Index("ix_inputs_day", "day"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    day: Mapped[date] = mapped_column(Date)
    model: Mapped[str]
    """Name of the checkpoint."""
    kind: Mapped[str]
    """A ``shared.inputs.InputKind``."""
    bins: Mapped[int]
    """Version of the bins; see ``shared.inputs.BINS_VERSION``."""
    jobs: Mapped[int] = mapped_column(BigInteger)
    """Jobs that were judged. The next six count jobs as well."""
    fake: Mapped[int] = mapped_column(BigInteger)
    real: Mapped[int] = mapped_column(BigInteger)
    inconclusive: Mapped[int] = mapped_column(BigInteger)
    not_applicable: Mapped[int] = mapped_column(BigInteger)
    scores: Mapped[int] = mapped_column(BigInteger)
    """Those with a score, and so with a scored face."""
    scores_in_band: Mapped[int] = mapped_column(BigInteger)
    """Those whose score is between the limits of ``real`` and ``fake``."""
    faces: Mapped[int] = mapped_column(BigInteger)
    """Scored faces."""
    too_small: Mapped[int] = mapped_column(BigInteger)
    """Faces that were found and not scored. The next two count those with other problems."""
    too_blurred: Mapped[int] = mapped_column(BigInteger)
    turned: Mapped[int] = mapped_column(BigInteger)
    size_px: Mapped[list[float]] = mapped_column(ARRAY(Double))
    """Faces in each bin; see ``shared.inputs.count_faces``."""
    sharpness: Mapped[list[float]] = mapped_column(ARRAY(Double))
    luma: Mapped[list[float]] = mapped_column(ARRAY(Double))


class AuditEvent(Base):
    """An event of the audit log; see ``shared.audit``."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_at", "at"),
        Index("ix_audit_events_owner", "owner", "at"),
        Index("ix_audit_events_job_id", "job_id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    action: Mapped[str]
    owner: Mapped[str]
    actor: Mapped[str]
    api_key_id: Mapped[uuid.UUID | None]
    """There is no foreign key, since events outlive the rows that they refer to."""
    job_id: Mapped[uuid.UUID | None]
    address: Mapped[str | None]
    request_id: Mapped[str | None]
    detail: Mapped[dict[str, Any]]
