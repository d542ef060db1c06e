"""
Typed results. Fields that a newer service adds are kept in ``raw`` and otherwise ignored.

pydantic reads them: strictly, so that a text is never taken for a number, and wholly or not at all.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import AliasPath, AllowInfNan, BeforeValidator, Field, Strict, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

FINAL_STATUSES: Final = frozenset({"succeeded", "failed", "cancelled"})


def _written(value: Any) -> Any:
    """Refuse what pydantic would take as seconds since 1970."""
    if value is not None and not isinstance(value, str):
        raise ValueError("no date and time that is written out")
    return value


Number = Annotated[float, Strict(), AllowInfNan(allow_inf_nan=False)]
Count = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
Moment = Annotated[datetime, BeforeValidator(_written)]
Pair = tuple[Number, Number]
Box = tuple[Number, Number, Number, Number]
"""Left, top, right, bottom."""


def _or_none(value: Any) -> Any:
    return value or None


def _or_empty(value: Any) -> Any:
    return value or []


def _counted(value: Any) -> Any:
    return len(value) if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else []


def _duration_s(media: Any) -> Any:
    if media is not None and not isinstance(media, dict):
        raise ValueError("no description of media")
    return None if media is None else media.get("duration_s")


def _span(value: Any) -> Any:
    return (value.get("start_s"), value.get("end_s")) if isinstance(value, dict) else None


Span = Annotated[Pair, BeforeValidator(_span)]


class Document:
    """Something that the service tells."""

    __slots__ = ()

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """
        Read the API's form, parsed.

        Raises:
            pydantic.ValidationError: It is none; a ValueError. The client makes an error of its own tree of it.
        """
        return TypeAdapter(cls).validate_python(data)


class _Kept(Document):
    """A document that is kept as it came, too, in ``raw``."""

    __slots__ = ()

    @model_validator(mode="before")
    @classmethod
    def _keep(cls, data: Any) -> Any:
        return {**data, "raw": data} if isinstance(data, dict) else data


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem(Document):
    """Why a job or segment failed."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face(Document):
    """One face in one sampled frame; pixels are those of the displayed frame."""

    time_s: Number
    box_px: Box
    landmarks_px: tuple[Pair, ...] = ()
    confidence: Number
    size_px: Number
    sharpness: Number
    problem: str | None = None
    fake_score: Number | None = None
    turned_deg: Count = 0
    """How far the face stands turned clockwise in the displayed frame: 0, 90, 180 or 270."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person(Document):
    """One person within a segment."""

    person: Count
    fake_score: Number | None = None
    faces: tuple[Face, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment(Document):
    """A stretch ``[start_s, end_s)`` of the media."""

    index: Count
    start_s: Number
    end_s: Number
    status: str
    fake_score: Number | None = None
    reasons: tuple[str, ...] = ()
    people_count: Annotated[Count, BeforeValidator(_counted)] = Field(0, validation_alias="people")
    faces_found: Count = 0
    faces_scored: Count = 0
    people: Annotated[tuple[Person, ...], BeforeValidator(_listed)] = ()
    """Empty in a job's own list of segments; ``Client.segments`` fills it."""
    error: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Document):
    """The checkpoint behind a result."""

    name: str
    version: str
    trained: Flag
    weights_sha256: str
    threshold: Number
    uncertainty_band: Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence(Document):
    """What a verdict rests on, and the limits that follow from it."""

    kind: str
    """``image`` or ``video``."""
    faces: Count
    """Scored faces of the people who decided."""
    people: Number
    """With a scored face in a segment: the geometric mean over segments that have any."""
    bits_per_pixel: Number | None = None
    real_below: Number | None = None
    fake_from: Number | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPerson(_Kept):
    """One person over the whole media."""

    person: Count
    """0 for the one with the most face area; segments use the same numbers."""
    fake_score: Number | None
    """Mean over the scored faces; None if none could be scored."""
    verdict: str | None
    real_below: Number | None
    """Limits of the mean, which move with faces and people; None without a score."""
    fake_from: Number | None
    faces: Count
    faces_scored: Count
    face_time_s: Number = Field(validation_alias=AliasPath("face", "time_s"))
    """Where the face to show is, in seconds of the media."""
    face_box_px: Box = Field(validation_alias=AliasPath("face", "box_px"))
    seen: tuple[Span, ...]
    """When, in seconds of the media; of an image from page to page, counted from 0."""
    raw: dict[str, Any] = Field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion(Document):
    """A stretch of time in which one person's faces are suspicious together."""

    start_s: Number
    end_s: Number
    person: Count
    fake_score: Number
    """Mean over the faces in it."""
    faces: Count
    verdict: str
    """``fake`` where it stands out among all chances, ``inconclusive`` where it does among some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(_Kept):
    """A job with its progress and the scores so far."""

    id: str
    status: str
    created_at: Moment
    finished_at: Moment | None = None
    segments_total: Count | None = Field(validation_alias=AliasPath("progress", "segments_total"))
    segments_done: Count = Field(validation_alias=AliasPath("progress", "segments_done"))
    fraction: Number = Field(validation_alias=AliasPath("progress", "fraction"))
    duration_s: Annotated[Number | None, BeforeValidator(_duration_s)] = Field(None, validation_alias="media")
    fake_score: Number | None = None
    """Mean over scored segments; 1 means fake. How far to trust it stands in the model card."""
    peak_score: Number | None = None
    verdict: str | None = None
    reasons: tuple[str, ...] = ()
    evidence: Annotated[Evidence | None, BeforeValidator(_or_none)] = None
    """None before the verdict, and from services that do not tell it."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    model: Annotated[Model | None, BeforeValidator(_or_none)] = None
    reused_from: str | None = None
    """The job whose scores were taken over instead of scoring again."""
    error: Problem | None = None
    people: Annotated[tuple[JudgedPerson, ...], BeforeValidator(_or_empty)] = ()
    """Empty before the verdict, and from services that do not follow people."""
    suspicious: Annotated[tuple[Suspicion, ...], BeforeValidator(_or_empty)] = ()
    segments: tuple[Segment, ...] = ()
    """
    Without their faces. All of them in a job that has ended and came from ``Client.get``, ``wait`` or ``cancel``; else
    the first 100 at most.
    """
    segments_next_cursor: str | None = None
    """Where the segments that are left out begin in ``GET /v1/jobs/{id}/segments``; None where there are none."""
    raw: dict[str, Any] = Field(repr=False)
    """The document as the service gave it, with all segments where ``segments`` has all."""

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.status in FINAL_STATUSES


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(_Kept):
    """One attempt to call a webhook."""

    number: Count
    event: str
    status: str
    response_status: Count | None
    error_code: str | None
    raw: dict[str, Any] = Field(repr=False)
