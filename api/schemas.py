"""
Shapes of requests and responses. They validate what comes in, and the OpenAPI document is made of them.

Responses are the documents of ``shared.documents``; a test holds the two together.
"""

import re
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, Json
from pydantic.json_schema import SkipJsonSchema

from shared.states import DeliveryStatus
from shared.states import JobStatus as StoredJobStatus

Score = Annotated[float, Field(ge=0.0, le=1.0)]
JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
SampleFPS = Annotated[float, Field(ge=0.1, le=30.0, description="Frames looked at a second.")]
SegmentSeconds = Annotated[float, Field(ge=1.0, le=60.0, description="Length of a segment.")]
WebhookURL = Annotated[
    str, Field(min_length=1, max_length=2048, description="Called when the job ends, see *Webhooks*.")
]
ModelName = Annotated[str, Field(min_length=1, max_length=64, description="A checkpoint's name, see `GET /v1/models`.")]
METADATA = "Anything of yours, given back with the job and its webhook."

if set(JobStatus.__args__) != set(StoredJobStatus):  # type: ignore[attr-defined]
    raise RuntimeError("the API's job statuses are not the database's")


def _without_null_defaults(schema: dict[str, Any]) -> None:
    """What may be left out has no default that could be sent."""
    for name in schema.get("properties", {}):
        schema["properties"][name].pop("default", None)


Absent = SkipJsonSchema[None]
"""Left out. In a query, a form or a header there is no null to send, so the document has none."""


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _written_out(value: Any) -> Any:
    """Refuse what pydantic would take as seconds since 1970."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("not a date and time with time zone, such as 2026-01-31T12:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]


def _as_uuid(value: Any) -> Any:
    """JSON has no UUIDs, so strictness must not ask for one."""
    try:
        return UUID(value) if isinstance(value, str) else value
    except ValueError:
        return value


class _Parameters(BaseModel):
    """The library in front asks for the schema in every request, and making it took longer than all else there."""

    @classmethod
    def model_json_schema(cls, *arguments: Any, **options: Any) -> dict[str, Any]:
        """As pydantic's; without arguments it is made once, and not to be changed."""
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


class SubmitHeaders(_Headers):
    """Headers of a submission."""

    prefer: str | Absent = Field(
        default=None,
        alias="Prefer",
        description="`wait=N` waits up to N seconds (at most 60) for the job to end, once it is accepted (RFC 7240).",
    )
    idempotency_key: str | Absent = Field(
        default=None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="Makes repeating the request safe: the same key with the same request gives the same job.",
    )


class GetHeaders(_Headers):
    """Headers of a look at a job."""

    prefer: str | Absent = Field(
        default=None,
        alias="Prefer",
        description="`wait=N` waits up to N seconds (at most 60) for the job to end (RFC 7240).",
    )
    if_none_match: str | Absent = Field(
        default=None, alias="If-None-Match", description="An `ETag`: 304 if the job is still the same."
    )


REUSE = (
    "Take the scores over from a job of yours with the same file, options and checkpoint instead of scoring again."
    " Whether this is done unasked is the operator's choice."
)


class QueryOptions(_Request):
    """Options of a job, in the query or in form fields."""

    webhook_url: WebhookURL | Absent = None
    sample_fps: SampleFPS | Absent = None
    segment_seconds: SegmentSeconds | Absent = None
    model: ModelName | Absent = None
    reuse: bool | Absent = Field(default=None, description=REUSE)
    metadata: Json[dict[str, Any]] | Absent = Field(default=None, description=f"{METADATA} A JSON object as text.")


class _Submission(_Request):
    """Options of a job that comes as a JSON object."""

    webhook_url: WebhookURL | Absent = None
    sample_fps: SampleFPS | Absent = None
    segment_seconds: SegmentSeconds | Absent = None
    model: ModelName | Absent = None
    metadata: dict[str, Any] | Absent = Field(default=None, description=METADATA)


class URLSubmission(_Submission):
    """A job whose file this service fetches."""

    url: str = Field(min_length=1, max_length=2048, description="Where the file is; https unless configured otherwise.")


class UploadSubmission(_Submission):
    """A job whose file went to storage directly, see `POST /v1/uploads`."""

    upload_id: Annotated[UUID, BeforeValidator(_as_uuid)] = Field(description="The upload's id. It makes one job.")
    sha256: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="Of the file. If something else arrived, the job fails with `checksum_mismatch`; and a request "
        "that is repeated under its `Idempotency-Key` with another upload of the same file gets the same job.",
    )


class UploadRequest(_Request):
    """A file that is to go to storage directly."""

    size_bytes: int = Field(ge=1, le=2**43, strict=True, description="Exactly.")


class UploadDocument(BaseModel):
    """Where to put the file."""

    id: UUID = Field(description="For `POST /v1/jobs`, once the file is there.")
    method: Literal["PUT"]
    url: str = Field(description="Takes the file without an API key; a secret until `expires_at`.")
    headers: dict[str, str] = Field(description="To be sent exactly so, and no `Content-Type`.")
    expires_at: datetime


class JobPath(_Parameters):
    """The job in question."""

    job_id: UUID = Field(description="The job's id.")


class DeliveryPath(JobPath):
    """The delivery attempt in question."""

    number: Annotated[int, Field(ge=1, le=1_000_000, description="The attempt's number.")]


class Page(_Request):
    """Which page of a list."""

    limit: Annotated[int, Field(ge=1, le=100)] | Absent = Field(default=None, description="Items on a page.")
    cursor: str | Absent = Field(default=None, max_length=200, description="`next_cursor` of the page before.")


class JobsQuery(Page):
    """Which jobs."""

    status: JobStatus | Absent = None
    created_after: Moment | Absent = Field(default=None, description="With time zone.")
    created_before: Moment | Absent = Field(default=None, description="With time zone.")


class Problem(BaseModel):
    """RFC 9457: what went wrong."""

    type: str
    title: str
    status: int
    detail: str = Field(description="One sentence that names the thing.")
    code: str = Field(description="Stable; decide by this.")
    request_id: str | None = Field(description="Quote it when you ask about this answer.")
    errors: list[dict[str, str]] = Field(default=[], description="Each mistake by name.")


class ErrorDocument(BaseModel):
    """Why a job or segment failed."""

    code: str
    detail: str


class Progress(BaseModel):
    """How far a job is."""

    segments_total: int | None = Field(description="Null before the file was inspected.")
    segments_done: int
    fraction: Score


class MediaDocument(BaseModel):
    """The file; probed facts are null before the probe."""

    sha256: str
    size_bytes: int
    stored: bool = Field(description="False once the file is erased.")
    kind: Literal["image", "video"] | None
    container: str | None
    codec: str | None
    width_px: int | None = Field(description="As displayed.")
    height_px: int | None
    rotation_deg: int | None
    duration_s: float | None = Field(
        description="When the last picture ends, on the clock that players show; null for images."
    )
    frame_rate: float | None
    frame_count: int | None
    truncated: bool | None = Field(description="Whether part of the file is missing or damaged.")
    video_track: int | None = Field(
        description="The track that was looked at, counted from 0 among all of the file: the one that players show."
    )
    other_video_tracks: int | None = Field(description="Tracks that a player could show, and nobody looked at.")
    dynamic_range: Literal["sdr", "pq", "hlg"] | None = Field(
        description="`pq` (HDR10, Dolby Vision) and `hlg` are mapped to SDR before faces are looked for."
    )


class OptionsDocument(BaseModel):
    """What the job was asked to do."""

    model_config = ConfigDict(protected_namespaces=())

    model: str
    sample_fps: float
    segment_seconds: float
    webhook_url: str | None


class ModelDescription(BaseModel):
    """Everything that produced the result."""

    name: str
    version: str
    trained: bool
    weights_sha256: str
    threshold: Score
    uncertainty_band: list[float]
    temperature: float
    offset: float = Field(default=0.0, description="Taken from a logit before it is divided by the temperature.")
    bounds: dict[str, Any] | None = Field(
        default=None, description="How threshold and band move with the evidence, by kind of media, as log-odds."
    )
    min_bits_per_pixel: float | None = Field(
        default=None, description="A video with fewer is compressed too heavily to be called real."
    )
    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    pipeline: int | None = Field(
        default=None, description="Counts changes to decoding, detection and averaging; null in results from before."
    )
    sampling: dict[str, float]


class EvidenceDocument(BaseModel):
    """What a verdict rests on. The more faces of one person were seen, the closer its limits lie together."""

    kind: Literal["image", "video"]
    faces: int = Field(description="Scored faces of the people who decided: of each segment's highest.")
    people: float = Field(
        description="With a scored face in a segment, of whom the highest decides: the geometric mean over segments."
    )
    bits_per_pixel: float | None = Field(
        description="Of a video, scaled to H.264 and a frame of 100,000 pixels; null for images."
    )
    real_below: Score | None = Field(
        description="Only below this the job's score can be called real, where no reason speaks against it."
    )
    fake_from: Score | None = Field(description="From this on it is called fake. Both are null without a score.")


class SegmentSummary(BaseModel):
    """A segment without its faces."""

    index: int
    start_s: float
    end_s: float
    status: Literal["pending", "running", "scored", "unscorable", "failed"]
    fake_score: Score | None = Field(description="The highest person's score; null without a scorable face.")
    reasons: list[str]
    people: int = Field(description="How many people were seen.")
    faces_found: int
    faces_scored: int
    frames_decoded: int
    engine: str | None = Field(description="What ran the network, and in which precision.")
    error: ErrorDocument | None


class JobSummary(BaseModel):
    """A job without its segments."""

    model_config = ConfigDict(protected_namespaces=())

    id: UUID
    status: JobStatus
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: Progress
    media: MediaDocument | None
    options: OptionsDocument
    metadata: dict[str, Any]
    fake_score: Score | None = Field(
        description="Mean over scored segments; 1 means fake. How far to trust it stands in the model card."
    )
    peak_score: Score | None = Field(description="The highest segment.")
    verdict: Literal["fake", "real", "inconclusive", "not_applicable"] | None
    reasons: list[str] = Field(description="Machine-readable, for instance `untrained_model` or `no_face`.")
    evidence: EvidenceDocument | None = Field(
        description="Null before the verdict, and in results from before it was recorded."
    )
    model: ModelDescription | None
    reused_from: UUID | None = Field(description="The job whose scores were taken over instead of scoring again.")
    error: ErrorDocument | None


class Span(BaseModel):
    """A stretch of time, in seconds of the media; of an image from page to page, counted from 0."""

    start_s: float
    end_s: float


class ShownFace(BaseModel):
    """The face to show for a person: the largest that was scored."""

    time_s: float
    box_px: list[float] = Field(description="Left, top, right, bottom in the displayed frame.")


class PersonVerdictDocument(BaseModel):
    """One person over the whole media. Whom a cut shows from another side may be counted again."""

    person: int = Field(description="0 for the one with the most face area; segments use the same numbers.")
    fake_score: Score | None = Field(description="Mean over the scored faces; null if none could be scored.")
    verdict: Literal["fake", "real", "inconclusive"] | None = Field(
        description="The worse of what the mean and the most suspicious stretch of time give; null without a score."
    )
    real_below: Score | None = Field(description="Limits of the mean, which move with faces and people.")
    fake_from: Score | None
    faces: int
    faces_scored: int
    seen: list[Span]
    face: ShownFace


class SuspicionDocument(Span):
    """A stretch of time in which one person's faces are suspicious together, however short it is."""

    person: int
    fake_score: Score = Field(description="Mean over the faces in it.")
    faces: int
    verdict: Literal["fake", "inconclusive"] = Field(
        description="`fake` where it stands out among all chances, `inconclusive` where it does among some."
    )


class JobDocument(JobSummary):
    """A job with the scores so far."""

    people_total: int | None = Field(
        description="How many people were distinguished; `people` lists 100 of them at most."
    )
    people: list[PersonVerdictDocument] | None = Field(
        description="Null before the verdict, and in results from before people were followed."
    )
    suspicious: list[SuspicionDocument] | None = Field(
        description="In order of time; empty where nothing stands out, and for images of a single page."
    )
    segments: list[SegmentSummary]


class JobList(BaseModel):
    """A page of jobs, newest first."""

    items: list[JobSummary]
    next_cursor: str | None


class FaceDocument(BaseModel):
    """One face in one sampled frame."""

    time_s: float
    box_px: Annotated[list[float], Field(min_length=4, max_length=4, description="Left, top, right, bottom.")]
    landmarks_px: list[list[float]] = Field(description="Eyes, nose, corners of the mouth: x, y.")
    confidence: Score
    size_px: float
    sharpness: float
    problem: str | None = Field(description="Why the face was not scored.")
    fake_score: Score | None
    luma: float | None = Field(
        default=None, description="Mean over the face, in [0, 255]; null in results from before it was measured."
    )
    turned_deg: int = Field(
        default=0, description="How far the face stands turned clockwise in the displayed frame: 0, 90, 180 or 270."
    )


class PersonDocument(BaseModel):
    """One person within a segment."""

    person: int
    fake_score: Score | None = Field(description="Mean over the person's scored faces.")
    faces: list[FaceDocument]


class SegmentDocument(BaseModel):
    """A segment with every face."""

    index: int
    start_s: float
    end_s: float
    status: Literal["pending", "running", "scored", "unscorable", "failed"]
    started_at: datetime | None = Field(description="When a worker first began with it.")
    finished_at: datetime | None
    fake_score: Score | None
    reasons: list[str]
    people: list[PersonDocument]
    faces_found: int
    faces_scored: int
    frames_decoded: int
    engine: str | None = Field(description="What ran the network, and in which precision.")
    error: ErrorDocument | None


class SegmentList(BaseModel):
    """A page of segments, in order."""

    items: list[SegmentDocument]
    next_cursor: str | None


class DeliveryDocument(BaseModel):
    """One attempt to call the webhook."""

    number: int
    event_id: str = Field(description="The `webhook-id`, the same in every attempt.")
    event: str
    url: str
    status: Literal["pending", "sending", "succeeded", "failed"]
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    response_status: int | None
    response_excerpt: str | None = Field(description="At most 1 KB.")
    error_code: str | None


if set(DeliveryStatus) != {"pending", "sending", "succeeded", "failed"}:
    raise RuntimeError("the API's delivery statuses are not the database's")


class DeliveryList(BaseModel):
    """The webhook log of a job."""

    items: list[DeliveryDocument]


class CheckpointDocument(BaseModel):
    """A checkpoint that can be asked for."""

    name: str
    version: str
    trained: bool
    is_default: bool
    threshold: Score
    uncertainty_band: list[float]
    bounds: dict[str, Any] | None = Field(
        description="How threshold and band, those of one face, move with the evidence: by kind, as log-odds."
    )
    min_bits_per_pixel: float | None = Field(description="A video with fewer is never called real.")
    sampling: dict[str, float]
    weights_sha256: str
    training_data: list[str]
    metrics: dict[str, float]
    licence: str
    model_card: str = Field(description="Markdown.")


class CheckpointList(BaseModel):
    """All checkpoints."""

    items: list[CheckpointDocument]


class Health(BaseModel):
    """Whether the service, and what it leans on, answers."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = {}
