"""
Typed results. What a document has beyond the fields of its class, as of a newer service, is kept in ``extra``.

pydantic validates them strictly, so that a string is never accepted as a number. Each class can also be constructed
with keyword arguments, and changed by ``dataclasses.replace``, for instance in tests of programs that use the client; a
value of another type then raises ``pydantic.ValidationError``, and an unknown name TypeError.
"""

import dataclasses
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import (
    AllowInfNan,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs, InitErrorDetails

BUILT_AT_FIRST_USE: Final = ConfigDict(defer_build=True)
"""Building the validators of all classes takes a third of the import, and a program needs those of few."""
FINAL_STATUSES: Final = frozenset({"succeeded", "failed", "cancelled"})
_MAX_DATE_DIGITS: Final = 8
"""Digits of the longest date without separators, such as 20260102."""


def _parse_timestamp(value: Any) -> Any:
    """Parse a date and time in ISO 8601; pydantic would accept numbers, and strings of digits, as seconds."""
    if isinstance(value, str):
        if value.isdigit() and len(value) > _MAX_DATE_DIGITS:
            raise ValueError("digits alone are not a date and time")
        return datetime.fromisoformat(value)
    if value is not None and not isinstance(value, datetime):
        raise ValueError("not a date and time in ISO 8601")
    return value


Number = Annotated[float, Strict(), AllowInfNan(allow_inf_nan=False)]
Count = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
Timestamp = Annotated[datetime, BeforeValidator(_parse_timestamp)]
Pair = tuple[Number, Number]
Box = tuple[Number, Number, Number, Number]
"""Left, top, right, bottom."""


_ADAPTERS: Final[dict[type[Any], TypeAdapter[Any]]] = {}
"""Adapters of the classes that were read. Each builds its validator, so that it must not be made for every document."""


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Document:
    """Base class of the documents of the service. Classes that keep the document itself have it in ``raw``."""

    extra: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    """What the document has beyond the fields of this class, by name: for instance what a newer service adds."""

    _READ_ELSEWHERE: ClassVar[frozenset[str]] = frozenset()
    """Names in the document whose values are fields of other names."""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """
        Read a document of the API.

        Args:
            data: The parsed JSON.

        Raises:
            pydantic.ValidationError: *data* is not such a document. It is a ValueError; the client turns it into
                UnexpectedAnswerError.
        """
        adapter: TypeAdapter[Self] = _ADAPTERS.get(cls) or _ADAPTERS.setdefault(cls, TypeAdapter(cls))
        return adapter.validate_python(data)

    @model_validator(mode="before")
    @classmethod
    def _fields(cls, data: Any) -> Any:
        """Take the fields from a document, and refuse unknown keyword arguments, which pydantic would ignore."""
        if isinstance(data, dict):
            known = cls.__dataclass_fields__.keys() - {"extra", "raw"} | cls._READ_ELSEWHERE
            extra = {name: value for name, value in data.items() if name not in known}
            return {**cls._fields_from_document(data), "extra": extra}
        if isinstance(data, ArgsKwargs):
            unknown = (data.kwargs or {}).keys() - cls.__dataclass_fields__.keys()
            if unknown:
                raise TypeError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        return data

    @classmethod
    def _fields_from_document(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of the class by name, taken from *document*."""
        return document


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Problem(Document):
    """Why a job or segment failed."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Face(Document):
    """One face in one sampled frame. Coordinates are pixels of the displayed frame."""

    time_s: Number
    box_px: Box
    landmarks_px: tuple[Pair, ...] = ()
    confidence: Number
    size_px: Number
    sharpness: Number
    problem: str | None = None
    fake_score: Number | None = None
    turned_deg: Count = 0
    """By how many degrees the face is rotated clockwise in the displayed frame: 0, 90, 180 or 270."""


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Person(Document):
    """One person within a segment."""

    person: Count
    fake_score: Number | None = None
    faces: tuple[Face, ...]


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Segment(Document):
    """An interval ``[start_s, end_s)`` of the media, in seconds."""

    index: Count
    start_s: Number
    end_s: Number
    status: str
    fake_score: Number | None = None
    reasons: tuple[str, ...] = ()
    people_count: Count = 0
    faces_found: Count = 0
    faces_scored: Count = 0
    people: tuple[Person, ...] = ()
    """Empty in ``Job.segments``; filled by ``Client.segments``."""
    error: Problem | None = None

    @classmethod
    def _fields_from_document(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Read both forms: a summary has the number of people, and a whole segment the list of them."""
        people = document.get("people", 0)
        if isinstance(people, list):
            return {**document, "people_count": len(people)}
        return {**document, "people_count": people, "people": ()}


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Model(Document):
    """The checkpoint behind a result."""

    name: str
    version: str
    trained: Flag
    weights_sha256: str
    threshold: Number
    uncertainty_band: Pair


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Evidence(Document):
    """What the scores of a job were made from, and the limits of its verdicts that follow from it."""

    kind: str
    """``image`` or ``video``."""
    faces: Count
    """Number of scored faces of the people who determine the verdict."""
    people: Number
    """Number of people with a scored face in a segment: the geometric mean over the segments that have any."""
    bits_per_pixel: Number | None = None
    real_below: Number | None = None
    fake_from: Number | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class JudgedPerson(Document):
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
    face_time_s: Number
    """Time of the face that represents the person, the largest one that was scored; in seconds of the media."""
    face_box_px: Box
    seen: tuple[Pair, ...]
    """Intervals in seconds of the media in which the person is seen; for an image, page numbers from 0."""
    raw: dict[str, Any] = Field(repr=False)
    _READ_ELSEWHERE: ClassVar[frozenset[str]] = frozenset({"face"})

    @classmethod
    def _fields_from_document(cls, document: dict[str, Any]) -> dict[str, Any]:
        seen = _nested_value(document, "seen")
        return {
            **document,
            "face_time_s": _nested_value(document, "face", "time_s"),
            "face_box_px": _nested_value(document, "face", "box_px"),
            "seen": [_start_and_end(each) for each in seen] if isinstance(seen, list) else None,
            "raw": document,
        }


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Suspicion(Document):
    """An interval of time, in seconds, in which the faces of one person are suspicious together."""

    start_s: Number
    end_s: Number
    person: Count
    fake_score: Number
    """Mean over the faces in it."""
    faces: Count
    verdict: str
    """``fake`` if the interval stands out among all intervals, ``inconclusive`` if only among some."""


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Review(Document):
    """What a person found; the verdict of the job is not changed by it."""

    finding: str
    """``confirmed_fake``, ``confirmed_real`` or ``disputed``."""
    note: str | None = None
    reviewed_at: Timestamp
    reviewer: str
    """Name of the API key by which it was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Share(Document):
    """A link to the report of a job."""

    id: str
    created_at: Timestamp
    expires_at: Timestamp
    url: str | None = None
    """The link itself; only when it was made, since the service does not keep it."""


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class ExplanationState(Document):
    """How far the explanation of a job's faces is."""

    status: str
    """``pending``, ``running``, ``succeeded`` or ``failed``."""


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class ProvenanceAction(Document):
    """One action that a manifest records, as its signer describes it."""

    action: str
    source_type: str | None = None
    """Last part of the IPTC's digital source type, such as ``trainedAlgorithmicMedia``."""
    software: str | None = None
    of_ingredient: Flag = False


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Provenance(Document):
    """
    The Content Credentials (C2PA) in the file, which are no part of the score.

    Every text but ``state`` and ``reason`` was written by the file's author.
    """

    state: str
    """``none``, ``valid``, ``untrusted``, ``invalid``, ``unreadable`` or ``not_checked``."""
    reason: str | None = None
    codes: tuple[str, ...] = ()
    signer: str | None = None
    issuer: str | None = None
    signed_at: str | None = None
    time_stamped: Flag = False
    generator: str | None = None
    title: str | None = None
    ai_generated: Flag = False
    actions: tuple[ProvenanceAction, ...] = ()
    actions_total: Count = 0
    ingredients: tuple[str, ...] = ()
    ingredients_total: Count = 0
    manifests: Count = 0


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Job(Document):
    """A job with its progress and the scores so far."""

    id: str
    status: str
    created_at: Timestamp
    finished_at: Timestamp | None = None
    segments_total: Count | None
    segments_done: Count
    fraction: Number
    duration_s: Number | None = None
    fake_score: Number | None = None
    """Mean over scored segments; 1 means fake. How far to trust it stands in the model card."""
    peak_score: Number | None = None
    verdict: str | None = None
    reasons: tuple[str, ...] = ()
    evidence: Evidence | None = None
    """None before the verdict, and from services of a version without it."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    model: Model | None = None
    reused_from: str | None = None
    """The job whose scores were taken over instead of scoring again."""
    parent_id: str | None = None
    """The job whose media this one scores again."""
    review: Review | None = None
    explanation: ExplanationState | None = None
    """None if none was requested, and in webhooks."""
    provenance: Provenance | None = None
    """None until the file was inspected, in summaries, and for media that an earlier release inspected."""
    error: Problem | None = None
    people: tuple[JudgedPerson, ...] = ()
    """Empty before the verdict, and from services that do not follow people over time."""
    suspicious: tuple[Suspicion, ...] = ()
    segments: tuple[Segment, ...] = ()
    """
    Segments without their faces. All segments if ``segments_next_cursor`` is None, as in a job that has ended and that
    ``Client.get``, ``wait`` or ``cancel`` returned, unless the service did not give them; else at most the first 100.
    """
    segments_next_cursor: str | None = None
    """Cursor of the first missing segment in ``GET /v1/jobs/{id}/segments``; None if no segment is missing."""
    raw: dict[str, Any] = Field(repr=False)
    """The document as the service answered it, with all segments if ``segments`` has all."""
    _READ_ELSEWHERE: ClassVar[frozenset[str]] = frozenset({"progress", "media"})

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.status in FINAL_STATUSES

    @classmethod
    def _fields_from_document(cls, document: dict[str, Any]) -> dict[str, Any]:
        media = document.get("media") or {}
        if not isinstance(media, dict):
            raise _validation_error("dict_type", ("media",), media)
        return {
            **document,
            **{
                name: _nested_value(document, "progress", name)
                for name in ("segments_total", "segments_done", "fraction")
            },
            "duration_s": media.get("duration_s"),
            **{
                name: document.get(name) or None
                for name in ("evidence", "model", "review", "explanation", "provenance")
            },
            **{name: document.get(name) or () for name in ("people", "suspicious")},
            "raw": document,
        }


@dataclass(frozen=True, slots=True, kw_only=True, config=BUILT_AT_FIRST_USE)
class Delivery(Document):
    """One attempt to call a webhook."""

    number: Count
    event: str
    status: str
    response_status: Count | None
    error_code: str | None
    raw: dict[str, Any] = Field(repr=False)

    @classmethod
    def _fields_from_document(cls, document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "raw": document}


def _nested_value(document: dict[str, Any], *path: str) -> Any:
    """
    Return the value of *document* at *path*, the names of nested fields.

    Raises:
        pydantic.ValidationError: There is no such field.
    """
    value: Any = document
    for depth, name in enumerate(path):
        if not isinstance(value, dict):
            raise _validation_error("dict_type", path[:depth], value)
        if name not in value:
            raise _validation_error("missing", path[: depth + 1], value)
        value = value[name]
    return value


def _validation_error(kind: str, where: tuple[str, ...], value: Any) -> ValidationError:
    return ValidationError.from_exception_data("document", [InitErrorDetails(type=kind, loc=where, input=value)])


def _start_and_end(value: Any) -> Any:
    return (value.get("start_s"), value.get("end_s")) if isinstance(value, dict) else None
