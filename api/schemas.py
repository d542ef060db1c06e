"""
Shapes of requests, which validate what comes in, and of the answers that the api alone gives.

All other answers are ``shared.documents``. The OpenAPI document is made of both.
"""

import re
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, Json, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from shared.documents.base import DeclaredType
from shared.errors import Code
from shared.states import JobStatus

SampleFPS = Annotated[float, Field(ge=0.1, le=30.0, description="Frames looked at a second.")]
SegmentSeconds = Annotated[float, Field(ge=1.0, le=60.0, description="Length of a segment.")]
WebhookURL = Annotated[
    str, Field(min_length=1, max_length=2048, description="Called when the job ends, see *Webhooks*.")
]
ModelName = Annotated[str, Field(min_length=1, max_length=64, description="A checkpoint's name, see `GET /v1/models`.")]
METADATA = "Anything of yours, given back with the job and its webhook."


def _without_null_defaults(schema: dict[str, Any]) -> None:
    """What may be left out has no default that could be sent."""
    for name in schema.get("properties", {}):
        schema["properties"][name].pop("default", None)


Absent = SkipJsonSchema[None]
"""Left out. In a query, a form or a header there is no null to send, so the document has none."""


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _require_rfc3339(value: Any) -> Any:
    """Refuse what pydantic would take as seconds since 1970."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("not a date and time with time zone, such as 2026-01-31T12:00:00Z")
    return value


Timestamp = Annotated[AwareDatetime, BeforeValidator(_require_rfc3339)]


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


MAX_ITEMS_PER_PAGE = 100
MAX_SUMMARIES_PER_PAGE = 1000
"""Summaries of segments are small, and clients want all of them."""


class SegmentsView(StrEnum):
    """How much is said of each segment."""

    FULL = "full"
    SUMMARY = "summary"


class Page(_Request):
    """Which page of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_ITEMS_PER_PAGE)] | Absent = Field(
        default=None, description="Items on a page."
    )
    cursor: str | Absent = Field(default=None, max_length=200, description="`next_cursor` of the page before.")


class JobsQuery(Page):
    """Which jobs."""

    status: JobStatus | Absent = None
    created_after: Timestamp | Absent = Field(default=None, description="With time zone.")
    created_before: Timestamp | Absent = Field(default=None, description="With time zone.")


class SegmentsQuery(Page):
    """Which segments of a job, and in which form."""

    limit: Annotated[int, Field(ge=1, le=MAX_SUMMARIES_PER_PAGE)] | Absent = Field(
        default=None, description="Segments on a page: at most 100 with their faces, 1,000 as summaries."
    )
    view: SegmentsView | Absent = Field(
        default=None, description="`full`, the default, lists every person and face; `summary` leaves them out."
    )

    @model_validator(mode="after")
    def _check_limit(self) -> Self:
        if self.view != SegmentsView.SUMMARY and (self.limit or 0) > MAX_ITEMS_PER_PAGE:
            raise PydanticCustomError(
                "limit_too_high",
                "limit has to be at most {most}; view=summary takes {summaries}",
                {"most": MAX_ITEMS_PER_PAGE, "summaries": MAX_SUMMARIES_PER_PAGE},
            )
        return self


class Problem(BaseModel):
    """RFC 9457: what went wrong."""

    type: str
    title: str
    status: int
    detail: str = Field(description="One sentence that names the thing.")
    code: Annotated[str, DeclaredType(Code)] = Field(description="Stable; decide by this.")
    request_id: str | None = Field(description="Quote it when you ask about this answer.")
    errors: list[dict[str, str]] = Field(default=[], description="Each mistake by name.")


class Health(BaseModel):
    """Whether the service, and what it depends on, answers."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = {}
