"""Typed results. Fields that a newer service adds are kept in ``raw`` and otherwise ignored."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

FINAL_STATUSES = frozenset({"succeeded", "failed", "cancelled"})


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a job or segment failed."""

    code: str
    detail: str


def _problem(value: dict[str, str] | None) -> Problem | None:
    return None if value is None else Problem(value["code"], value.get("detail", ""))


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

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the API's form."""
        left, top, right, bottom = data["box_px"]
        return cls(
            time_s=data["time_s"],
            box_px=(left, top, right, bottom),
            landmarks_px=tuple((x, y) for x, y in data.get("landmarks_px", [])),
            confidence=data["confidence"],
            size_px=data["size_px"],
            sharpness=data["sharpness"],
            problem=data.get("problem"),
            fake_score=data.get("fake_score"),
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
        faces = tuple(Face.from_json(face) for face in data["faces"])
        return cls(data["person"], data.get("fake_score"), faces)


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
            index=data["index"],
            start_s=data["start_s"],
            end_s=data["end_s"],
            status=data["status"],
            fake_score=data.get("fake_score"),
            reasons=tuple(data.get("reasons", [])),
            people_count=len(people) if isinstance(people, list) else int(people),
            faces_found=data.get("faces_found", 0),
            faces_scored=data.get("faces_scored", 0),
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
            data["name"],
            data["version"],
            data["trained"],
            data["weights_sha256"],
            data["threshold"],
            (low, high),
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
            data["kind"],
            data["faces"],
            data["people"],
            data.get("bits_per_pixel"),
            data.get("real_below"),
            data.get("fake_from"),
        )


@dataclass(frozen=True, slots=True)
class JudgedPerson:
    """One person over the whole media."""

    person: int
    """0 for the one with the most face area; segments use the same numbers."""
    fake_score: float | None
    """Mean over the scored faces; None if none could be scored."""
    verdict: str | None
    faces_scored: int
    seen: tuple[tuple[float, float], ...]
    """When, in seconds of the media."""
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the API's form."""
        seen = tuple((span["start_s"], span["end_s"]) for span in data["seen"])
        return cls(data["person"], data["fake_score"], data["verdict"], data["faces_scored"], seen, data)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A stretch of time in which one person's faces are suspicious together."""

    start_s: float
    end_s: float
    person: int
    fake_score: float
    """Mean over the faces in it."""
    faces: int

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the API's form."""
        return cls(data["start_s"], data["end_s"], data["person"], data["fake_score"], data["faces"])


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
    """Mean over scored segments: the probability that a face was swapped."""
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
    raw: dict[str, Any] = field(repr=False)
    """The document as the service gave it."""

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
            id=data["id"],
            status=data["status"],
            created_at=created_at,
            finished_at=_time(data.get("finished_at")),
            segments_total=data["progress"]["segments_total"],
            segments_done=data["progress"]["segments_done"],
            fraction=data["progress"]["fraction"],
            duration_s=(data.get("media") or {}).get("duration_s"),
            fake_score=data.get("fake_score"),
            peak_score=data.get("peak_score"),
            verdict=data.get("verdict"),
            reasons=tuple(data.get("reasons", [])),
            evidence=Evidence.from_json(data["evidence"]) if data.get("evidence") else None,
            metadata=data.get("metadata", {}),
            model=Model.from_json(data["model"]) if data.get("model") else None,
            reused_from=data.get("reused_from"),
            error=_problem(data.get("error")),
            people=tuple(JudgedPerson.from_json(person) for person in data.get("people") or []),
            suspicious=tuple(Suspicion.from_json(stretch) for stretch in data.get("suspicious") or []),
            segments=tuple(Segment.from_json(segment) for segment in data.get("segments", [])),
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
        return cls(data["number"], data["event"], data["status"], data["response_status"], data["error_code"], data)
