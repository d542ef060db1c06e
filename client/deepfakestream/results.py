"""
Typed results. Fields that a newer service adds are kept in ``raw`` and otherwise ignored.

Every ``from_json`` raises LookupError, TypeError or ValueError for what is no such document; the client makes one error
of its own tree of them.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

FINAL_STATUSES = frozenset({"succeeded", "failed", "cancelled"})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError("no number")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("no whole number")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in _listed(value))


def _box(value: Any) -> tuple[float, float, float, float]:
    left, top, right, bottom = _listed(value)
    return _number(left), _number(top), _number(right), _number(bottom)


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _optional_number(value: Any) -> float | None:
    return None if value is None else _number(value)


def _optional_count(value: Any) -> int | None:
    return None if value is None else _count(value)


def _time(value: Any) -> datetime | None:
    return None if value is None else datetime.fromisoformat(_text(value))


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a job or segment failed."""

    code: str
    detail: str


def _problem(value: dict[str, Any] | None) -> Problem | None:
    return None if value is None else Problem(_text(value["code"]), _text(value.get("detail", "")))


@dataclass(frozen=True, slots=True)
class Face:
    """One face in one sampled frame; pixels are those of the displayed frame."""

    time_s: float
    box_px: tuple[float, float, float, float]
    """Left, top, right, bottom."""
    landmarks_px: tuple[tuple[float, float], ...]
    confidence: float
    size_px: float
    sharpness: float
    problem: str | None
    fake_score: float | None
    turned_deg: int
    """How far the face stands turned clockwise in the displayed frame: 0, 90, 180 or 270."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the API's form."""
        return cls(
            time_s=_number(data["time_s"]),
            box_px=_box(data["box_px"]),
            landmarks_px=tuple((_number(x), _number(y)) for x, y in _listed(data.get("landmarks_px", []))),
            confidence=_number(data["confidence"]),
            size_px=_number(data["size_px"]),
            sharpness=_number(data["sharpness"]),
            problem=_optional_text(data.get("problem")),
            fake_score=_optional_number(data.get("fake_score")),
            turned_deg=_count(data.get("turned_deg", 0)),
        )


@dataclass(frozen=True, slots=True)
class Person:
    """One person within a segment."""

    person: int
    fake_score: float | None
    faces: tuple[Face, ...]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the API's form."""
        faces = tuple(Face.from_json(face) for face in _listed(data["faces"]))
        return cls(_count(data["person"]), _optional_number(data.get("fake_score")), faces)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch ``[start_s, end_s)`` of the media."""

    index: int
    start_s: float
    end_s: float
    status: str
    fake_score: float | None
    reasons: tuple[str, ...]
    people_count: int
    faces_found: int
    faces_scored: int
    people: tuple[Person, ...]
    """Empty in a job's own list of segments; ``Client.segments`` fills it."""
    error: Problem | None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read either form of the API: the summary counts people, the whole segment lists them."""
        people = data.get("people", 0)
        listed = people if isinstance(people, list) else []
        return cls(
            index=_count(data["index"]),
            start_s=_number(data["start_s"]),
            end_s=_number(data["end_s"]),
            status=_text(data["status"]),
            fake_score=_optional_number(data.get("fake_score")),
            reasons=_texts(data.get("reasons", [])),
            people_count=len(people) if isinstance(people, list) else _count(people),
            faces_found=_count(data.get("faces_found", 0)),
            faces_scored=_count(data.get("faces_scored", 0)),
            people=tuple(Person.from_json(person) for person in listed),
            error=_problem(data.get("error")),
        )


@dataclass(frozen=True, slots=True)
class Model:
    """The checkpoint behind a result."""

    name: str
    version: str
    trained: bool
    weights_sha256: str
    threshold: float
    uncertainty_band: tuple[float, float]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the API's form."""
        low, high = data["uncertainty_band"]
        return cls(
            _text(data["name"]),
            _text(data["version"]),
            _flag(data["trained"]),
            _text(data["weights_sha256"]),
            _number(data["threshold"]),
            (_number(low), _number(high)),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict rests on, and the limits that follow from it."""

    kind: str
    """``image`` or ``video``."""
    faces: int
    """Scored faces of the people who decided."""
    people: float
    """With a scored face in a segment: the geometric mean over segments that have any."""
    bits_per_pixel: float | None
    real_below: float | None
    fake_from: float | None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the API's form."""
        return cls(
            _text(data["kind"]),
            _count(data["faces"]),
            _number(data["people"]),
            _optional_number(data.get("bits_per_pixel")),
            _optional_number(data.get("real_below")),
            _optional_number(data.get("fake_from")),
        )


@dataclass(frozen=True, slots=True)
class JudgedPerson:
    """One person over the whole media."""

    person: int
    """0 for the one with the most face area; segments use the same numbers."""
    fake_score: float | None
    """Mean over the scored faces; None if none could be scored."""
    verdict: str | None
    real_below: float | None
    """Limits of the mean, which move with faces and people; None without a score."""
    fake_from: float | None
    faces: int
    faces_scored: int
    face_time_s: float
    """Where the face to show is, in seconds of the media."""
    face_box_px: tuple[float, float, float, float]
    seen: tuple[tuple[float, float], ...]
    """When, in seconds of the media; of an image from page to page, counted from 0."""
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the API's form."""
        return cls(
            _count(data["person"]),
            _optional_number(data["fake_score"]),
            _optional_text(data["verdict"]),
            _optional_number(data["real_below"]),
            _optional_number(data["fake_from"]),
            _count(data["faces"]),
            _count(data["faces_scored"]),
            _number(data["face"]["time_s"]),
            _box(data["face"]["box_px"]),
            tuple((_number(span["start_s"]), _number(span["end_s"])) for span in _listed(data["seen"])),
            data,
        )


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A stretch of time in which one person's faces are suspicious together."""

    start_s: float
    end_s: float
    person: int
    fake_score: float
    """Mean over the faces in it."""
    faces: int
    verdict: str
    """``fake`` where it stands out among all chances, ``inconclusive`` where it does among some."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the API's form."""
        return cls(
            _number(data["start_s"]),
            _number(data["end_s"]),
            _count(data["person"]),
            _number(data["fake_score"]),
            _count(data["faces"]),
            _text(data["verdict"]),
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A job with its progress and the scores so far."""

    id: str
    status: str
    created_at: datetime
    finished_at: datetime | None
    segments_total: int | None
    segments_done: int
    fraction: float
    duration_s: float | None
    fake_score: float | None
    """Mean over scored segments; 1 means fake. How far to trust it stands in the model card."""
    peak_score: float | None
    verdict: str | None
    reasons: tuple[str, ...]
    evidence: Evidence | None
    """None before the verdict, and from services that do not tell it."""
    metadata: dict[str, Any]
    model: Model | None
    reused_from: str | None
    """The job whose scores were taken over instead of scoring again."""
    error: Problem | None
    people: tuple[JudgedPerson, ...]
    """Empty before the verdict, and from services that do not follow people."""
    suspicious: tuple[Suspicion, ...]
    segments: tuple[Segment, ...]
    """
    Without their faces. All of them in a job that has ended and came from ``Client.get``, ``wait`` or ``cancel``; else
    the first 100 at most.
    """
    segments_next_cursor: str | None
    """Where the segments that are left out begin in ``GET /v1/jobs/{id}/segments``; None where there are none."""
    raw: dict[str, Any] = field(repr=False)
    """The document as the service gave it, with all segments where ``segments`` has all."""

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.status in FINAL_STATUSES

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the API's form."""
        created_at = _time(data["created_at"])
        if created_at is None:
            raise ValueError("a job without a time of creation")
        return cls(
            id=_text(data["id"]),
            status=_text(data["status"]),
            created_at=created_at,
            finished_at=_time(data.get("finished_at")),
            segments_total=_optional_count(data["progress"]["segments_total"]),
            segments_done=_count(data["progress"]["segments_done"]),
            fraction=_number(data["progress"]["fraction"]),
            duration_s=_optional_number((data.get("media") or {}).get("duration_s")),
            fake_score=_optional_number(data.get("fake_score")),
            peak_score=_optional_number(data.get("peak_score")),
            verdict=_optional_text(data.get("verdict")),
            reasons=_texts(data.get("reasons", [])),
            evidence=Evidence.from_json(data["evidence"]) if data.get("evidence") else None,
            metadata=data.get("metadata", {}),
            model=Model.from_json(data["model"]) if data.get("model") else None,
            reused_from=_optional_text(data.get("reused_from")),
            error=_problem(data.get("error")),
            people=tuple(JudgedPerson.from_json(person) for person in _listed(data.get("people") or [])),
            suspicious=tuple(Suspicion.from_json(stretch) for stretch in _listed(data.get("suspicious") or [])),
            segments=tuple(Segment.from_json(segment) for segment in _listed(data.get("segments", []))),
            segments_next_cursor=_optional_text(data.get("segments_next_cursor")),
            raw=data,
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to call a webhook."""

    number: int
    event: str
    status: str
    response_status: int | None
    error_code: str | None
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the API's form."""
        return cls(
            _count(data["number"]),
            _text(data["event"]),
            _text(data["status"]),
            _optional_count(data["response_status"]),
            _optional_text(data["error_code"]),
            data,
        )
