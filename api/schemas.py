"""
Schemas of requests, and of responses that only the api gives.

All other responses are ``shared.documents``. The OpenAPI document is generated from both.
"""

import re
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, Json, SecretStr, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from api.webhook_events import BatchEvents, JobEvents, JobEventsText, StreamEvents
from shared.documents.base import DeclaredType
from shared.errors import Code
from shared.states import Finding, JobStatus, Recording

SampleFPS = Annotated[float, Field(ge=0.1, le=30.0, description="Frames analysed per second.")]
SegmentSeconds = Annotated[float, Field(ge=1.0, le=60.0, description="Length of a segment in seconds.")]
WebhookURL = Annotated[
    str, Field(min_length=1, max_length=2048, description="Called when the job ends; see *Webhooks*.")
]
ModelName = Annotated[
    str, Field(min_length=1, max_length=64, description="Name of a checkpoint; see `GET /v1/models`.")
]
METADATA = "Your own data, returned with the job and in its webhook."


def _without_null_defaults(schema: dict[str, Any]) -> None:
    """Remove the defaults of optional properties, since null cannot be sent for them."""
    for name in schema.get("properties", {}):
        schema["properties"][name].pop("default", None)


Absent = SkipJsonSchema[None]
"""The value of an option that is left out. Null cannot be sent in a query, form or header, so the schema hides it."""


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _require_rfc3339(value: Any) -> Any:
    """Refuse values other than RFC 3339, such as numbers, which pydantic would take as seconds since 1970."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("not a date and time with time zone, such as 2026-01-31T12:00:00Z")
    return value


Timestamp = Annotated[AwareDatetime, BeforeValidator(_require_rfc3339)]


def _as_uuid(value: Any) -> Any:
    """Convert text to a UUID, since JSON has none and strict validation would refuse text."""
    try:
        return UUID(value) if isinstance(value, str) else value
    except ValueError:
        return value


class _Parameters(BaseModel):
    """A base class that caches its JSON schema, since flask-openapi3 generates it in every request, which is slow."""

    @classmethod
    def model_json_schema(cls, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Return the JSON schema. Without arguments the result is cached and must not be changed."""
        return super().model_json_schema(*arguments, **options) if arguments or options else _schema(cls)


@lru_cache(maxsize=64)
def _schema(model: type[_Parameters]) -> dict[str, Any]:
    return super(_Parameters, model).model_json_schema()


class _Request(_Parameters):
    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        protected_namespaces=(),
        json_schema_extra=_without_null_defaults,
    )


class _Headers(_Parameters):
    model_config = ConfigDict(extra="ignore", json_schema_extra=_without_null_defaults)


class IdempotencyHeaders(_Headers):
    """Headers of a request that makes something once."""

    idempotency_key: str | Absent = Field(
        default=None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="Makes retries safe: the same key with the same request gives the same job.",
    )


class SubmitHeaders(IdempotencyHeaders):
    """Headers of a submission."""

    prefer: str | Absent = Field(
        default=None,
        alias="Prefer",
        description="`wait=N` waits up to N seconds (at most 60) for the job to end (RFC 7240); then the answer is 201,"
        " or 200 for the job of an earlier request.",
    )


class EventsHeaders(_Headers):
    """Headers of a request for events."""

    last_event_id: Annotated[int, Field(ge=0, lt=2**62)] | Absent = Field(
        default=None, alias="Last-Event-ID", description="Go on after this event; browsers send it by themselves."
    )


class GetHeaders(_Headers):
    """Headers of a request for a job."""

    prefer: str | Absent = Field(
        default=None,
        alias="Prefer",
        description="`wait=N` waits up to N seconds (at most 60) for the job to end (RFC 7240).",
    )
    if_none_match: str | Absent = Field(
        default=None, alias="If-None-Match", description="An `ETag`; the answer is 304 if the job is unchanged."
    )


REUSE_SCORES = "Reuse the scores of a job of yours with the same file, options and checkpoint."
EXPLAIN = "Explain the faces once the job has succeeded; see `GET /v1/jobs/{id}/explanations`. Not done by default."
REUSE = f"{REUSE_SCORES} The operator chooses the default."


class QueryOptions(_Request):
    """Options of a job, in the query or in form fields."""

    webhook_url: WebhookURL | Absent = None
    webhook_events: JobEventsText | Absent = None
    sample_fps: SampleFPS | Absent = None
    segment_seconds: SegmentSeconds | Absent = None
    model: ModelName | Absent = None
    reuse: bool | Absent = Field(default=None, description=REUSE)
    explain: bool | Absent = Field(default=None, description=EXPLAIN)
    metadata: Json[dict[str, Any]] | Absent = Field(default=None, description=f"{METADATA} A JSON object as text.")


class _Submission(_Request):
    """Options of a job in a JSON object."""

    webhook_url: WebhookURL | None = None
    webhook_events: JobEvents | None = None
    sample_fps: SampleFPS | None = None
    segment_seconds: SegmentSeconds | None = None
    model: ModelName | None = None
    explain: bool | None = Field(default=None, description=EXPLAIN)
    metadata: dict[str, Any] | None = Field(default=None, description=METADATA)


class URLSubmission(_Submission):
    """A job whose file the service fetches from a URL."""

    url: str = Field(min_length=1, max_length=2048, description="URL of the file; https unless configured otherwise.")


class UploadSubmission(_Submission):
    """A job whose file is a direct upload; see `POST /v1/uploads`."""

    upload_id: Annotated[UUID, BeforeValidator(_as_uuid)] = Field(
        description="Id of the upload. It can be used for one job."
    )
    sha256: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="Digest of the file. If it differs, the job fails with `checksum_mismatch`. With it, a retry under "
        "the same `Idempotency-Key` with another upload of the same file gets the same job.",
    )


class _OptionalRequest(_Request):
    # Read by flask-openapi3: the body may be left out.
    model_config = ConfigDict(openapi_extra={"required": False})  # type: ignore[typeddict-unknown-key]


class Rescoring(_OptionalRequest):
    """What is to be different when stored media is scored again; whatever is left out is as it was."""

    model: ModelName | None = None
    sample_fps: SampleFPS | None = None
    segment_seconds: SegmentSeconds | None = None
    webhook_url: WebhookURL | None = Field(default=None, description="None unless given, whatever the job had.")
    webhook_events: JobEvents | None = None
    metadata: dict[str, Any] | None = Field(default=None, description=f"{METADATA} The job's own unless given.")
    explain: bool | None = Field(
        default=None, description="Explain the faces once the job has succeeded; as in this job unless given."
    )
    reuse: bool | None = Field(default=None, description=f"{REUSE_SCORES} Not done unless requested here.")


Credential = Annotated[str, Field(min_length=1, max_length=512)]


class StreamSecret(_Request):
    """Credentials for the source of a stream. They are never returned, and erased when the stream ends."""

    username: Credential | None = None
    # Inside of the union, since pydantic cannot apply a length to null.
    password: Annotated[SecretStr, Field(max_length=512)] | None = Field(
        default=None, description="The password, or the passphrase of SRT."
    )


class StreamRequest(_Request):
    """A live stream to watch: either one that the service connects to (`url`), or one that is sent to it (`push`)."""

    url: Annotated[str, Field(min_length=1, max_length=2048)] | None = Field(
        default=None,
        description="`rtsp:`, `rtsps:`, `rtmp:`, `rtmps:`, `srt:`, or `https:` for HLS; without credentials.",
    )
    push: Literal["rtmp"] | None = Field(
        default=None,
        description="`rtmp`: a publisher sends the stream to the address in the answer, with the key in it.",
    )
    secret: StreamSecret | None = Field(default=None, description="Only with `url`.")
    model: ModelName | None = None
    sample_fps: SampleFPS | None = None
    segment_seconds: Annotated[float, Field(ge=1.0, le=30.0)] | None = Field(
        default=None, description="Length of a segment in seconds: shorter ones are faster to alert and cost more."
    )
    duration_limit_s: float = Field(default=3600.0, ge=1.0, description="The stream ends after so many seconds.")
    alert_threshold: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        default=None,
        description="Alert from this mean score of a person on; by default from the checkpoint's limit for as many "
        "faces as were seen.",
    )
    record: Recording = Field(
        default=Recording.NONE, description="`suspicious` keeps the segments around alerts; `none` keeps no media."
    )
    last_faces: bool | None = Field(
        default=None,
        description="Keep a small picture of the newest face of each person at present, until the stream ends. By "
        "default none is kept.",
    )
    webhook_url: WebhookURL | None = Field(
        default=None, description="Called for each alert and at the end; see *Webhooks*."
    )
    webhook_events: StreamEvents | None = None
    metadata: dict[str, Any] | None = Field(default=None, description=METADATA)

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.url is None) == (self.push is None):
            raise PydanticCustomError("one_source", "give either url or push")
        if self.push is not None and self.secret is not None:
            raise PydanticCustomError(
                "no_secret", "secret belongs to url; with push, the key in the answer is the secret"
            )
        return self


class ShareRequest(_OptionalRequest):
    """A link to a job's report."""

    valid_s: int = Field(
        default=7 * 86400, ge=60, le=365 * 86400, strict=True, description="How long it works, in seconds."
    )


class ReviewRequest(_Request):
    """What a person found who looked at the media and at the result."""

    finding: Finding
    # Inside of the union, since pydantic cannot apply a length to null, which means none.
    note: Annotated[str, Field(max_length=4000)] | None = Field(
        default=None, description="Anything that explains the finding."
    )


class UploadRequest(_Request):
    """A request for a direct upload."""

    size_bytes: int = Field(ge=1, le=2**43, strict=True, description="Exact size of the file.")


class UploadDocument(BaseModel):
    """A request that takes the file of a direct upload."""

    id: UUID = Field(description="The `upload_id` for a job or a batch, once the file is uploaded.")
    method: Literal["PUT"]
    url: str = Field(description="Accepts the file without an API key; keep it secret until `expires_at`.")
    headers: dict[str, str] = Field(description="Send exactly these headers, and no `Content-Type`.")
    expires_at: datetime


class UploadPath(_Parameters):
    """The direct upload of a request."""

    upload_id: UUID = Field(description="The upload's id.")


class UploadToken(_Parameters):
    """The secret of the address of a direct upload."""

    token: str = Field(default="", description="Part of the address that `POST /v1/uploads` gave.")


MAX_BATCH_ITEMS = 100


class BatchRequest(_Request):
    """Many jobs at once, each of a URL or a direct upload."""

    items: list[Annotated[Any, DeclaredType(URLSubmission | UploadSubmission)]] = Field(
        min_length=1,
        max_length=MAX_BATCH_ITEMS,
        description="Each is what `POST /v1/jobs` takes as JSON. One that is refused does not keep the others from"
        " being accepted.",
    )
    sample_fps: SampleFPS | None = None
    segment_seconds: SegmentSeconds | None = None
    model: ModelName | None = None
    explain: bool | None = Field(default=None, description=EXPLAIN)
    webhook_url: WebhookURL | None = Field(
        default=None, description="Called once, when all jobs of the batch have ended; see *Webhooks*."
    )
    webhook_events: BatchEvents | None = None
    metadata: dict[str, Any] | None = Field(
        default=None, description="Your own data, returned with the batch and in its webhook."
    )


class BatchPath(_Parameters):
    """The batch of a request."""

    batch_id: UUID = Field(description="The batch's id.")


class JobPath(_Parameters):
    """The job of a request."""

    job_id: UUID = Field(description="The job's id.")


class StreamPath(_Parameters):
    """The stream of a request."""

    stream_id: UUID = Field(description="The stream's id.")


class RecordingPath(StreamPath):
    """The recorded segment in question."""

    index: Annotated[int, Field(ge=0, lt=2**31, description="The segment's index.")]


class FacePath(StreamPath):
    """The person in question."""

    person: Annotated[int, Field(ge=0, lt=2**31, description="The person's number in the stream.")]


class DiffPath(JobPath):
    """The two jobs in question."""

    other_id: UUID = Field(description="The id of the job to compare with.")


IMAGE_NAME = re.compile(r"person-(0|[1-9][0-9]{0,5})-(crop|map|overlay|thumbnail-[0-9])\.webp", re.ASCII)
"""Names of the images of explanations."""


class ImagePath(JobPath):
    """The image in question."""

    name: str = Field(pattern=f"^{IMAGE_NAME.pattern}$", max_length=64, description="The image's name.")


class SharePath(JobPath):
    """The link in question."""

    share_id: UUID = Field(description="The link's id.")


class DeliveryPath(JobPath):
    """The delivery attempt of a request."""

    number: Annotated[int, Field(ge=1, le=1_000_000, description="The attempt's number.")]


MAX_ITEMS_PER_PAGE = 100
MAX_SUMMARIES_PER_PAGE = 1000
"""The limit for summaries of segments, which are small."""


class SegmentsView(StrEnum):
    """The level of detail of each segment."""

    FULL = "full"
    SUMMARY = "summary"


class Page(_Request):
    """The page of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_ITEMS_PER_PAGE)] | Absent = Field(
        default=None, description="Items per page."
    )
    cursor: str | Absent = Field(default=None, max_length=200, description="`next_cursor` of the previous page.")


class JobsQuery(Page):
    """Filters of a list of jobs."""

    status: JobStatus | Absent = None
    created_after: Timestamp | Absent = Field(default=None, description="With time zone.")
    created_before: Timestamp | Absent = Field(default=None, description="With time zone.")


class BatchesQuery(Page):
    """Filters of a list of batches."""

    ended: bool | Absent = Field(default=None, description="Whether all of its jobs have ended.")
    created_after: Timestamp | Absent = Field(default=None, description="With time zone.")
    created_before: Timestamp | Absent = Field(default=None, description="With time zone.")


class StreamsQuery(Page):
    """Filters of a list of streams."""

    status: JobStatus | Absent = None


AfterEvent = Annotated[int, Field(ge=0, lt=2**62)]


class StreamQuery(_Request):
    """The events that a client wants with a stream."""

    after: AfterEvent | Absent = Field(default=None, description="Include the events after this number.")
    wait_s: Annotated[float, Field(ge=0.0, le=60.0)] | Absent = Field(
        default=None, description="Wait up to this long for such an event."
    )


class EventsQuery(_Request):
    """Where to begin with the events of a stream."""

    after: AfterEvent = Field(default=0, description="Begin after this event, where there is no `Last-Event-ID`.")


class SegmentsQuery(Page):
    """The page and the view of a list of segments."""

    limit: Annotated[int, Field(ge=1, le=MAX_SUMMARIES_PER_PAGE)] | Absent = Field(
        default=None, description="Segments per page: at most 100 with faces, 1,000 as summaries."
    )
    view: SegmentsView | Absent = Field(
        default=None, description="`full`, the default, includes every person and face; `summary` leaves them out."
    )

    @model_validator(mode="after")
    def _check_limit(self) -> Self:
        if self.view != SegmentsView.SUMMARY and (self.limit or 0) > MAX_ITEMS_PER_PAGE:
            raise PydanticCustomError(
                "limit_too_high",
                "limit must be at most {max_items}, or {max_summaries} with view=summary",
                {"max_items": MAX_ITEMS_PER_PAGE, "max_summaries": MAX_SUMMARIES_PER_PAGE},
            )
        return self


def _require_day(value: Any) -> Any:
    """Refuse other forms of a date, such as numbers, which pydantic would take as seconds since 1970."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise ValueError("not a day, such as 2026-01-31")
    return value


Day = Annotated[date, BeforeValidator(_require_day)]


class UsageQuery(_Request):
    """The days of a request for usage."""

    first: Day | Absent = Field(default=None, alias="from", description="The first day, in UTC.")
    last: Day | Absent = Field(default=None, alias="to", description="The last day; at most 366 in all.")


class InputsQuery(_Request):
    """The period of a request for inputs."""

    days: int = Field(
        default=7, ge=1, le=366, description="Length of the period, of which today (UTC) is the last day."
    )


class Problem(BaseModel):
    """A problem document by RFC 9457."""

    type: str
    title: str
    status: int
    detail: str = Field(description="One sentence that names the cause.")
    code: Annotated[str, DeclaredType(Code)] = Field(description="Stable error code for programs.")
    request_id: str | None = Field(description="Quote it when you ask about this response.")
    errors: list[dict[str, str]] = Field(default=[], description="Name and detail of each mistake.")


class Health(BaseModel):
    """The state of the service and its dependencies."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = {}
