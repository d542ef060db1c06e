"""The results of scoring as frozen values, and their only JSON form. This module does not import torch."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

from shared.manifests import Limits
from shared.states import Verdict


@dataclass(frozen=True, slots=True)
class FaceResult:
    """One face of one sampled frame."""

    time_s: float
    box_px: tuple[float, float, float, float]
    """Left, top, right, bottom in the displayed frame."""
    landmarks_px: tuple[tuple[float, float], ...]
    confidence: float
    size_px: float
    sharpness: float
    problem: str | None
    """Why it was not scored: ``face_too_small``, ``face_too_blurred`` or ``face_turned``."""
    fake_score: float | None
    luma: float | None = None
    """Mean luma of the face, in [0, 255]; None if an earlier release found it."""
    turned_deg: int = 0
    """Clockwise rotation of the face in the displayed frame: 0, 90, 180 or 270. It was turned upright to be scored."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, rounded."""
        return {
            "time_s": round(self.time_s, 4),
            "box_px": [round(value, 1) for value in self.box_px],
            "landmarks_px": [[round(x, 1), round(y, 1)] for x, y in self.landmarks_px],
            "confidence": round(self.confidence, 4),
            "size_px": round(self.size_px, 1),
            "sharpness": round(self.sharpness, 2),
            "problem": self.problem,
            "fake_score": self.fake_score,
            "luma": None if self.luma is None else round(self.luma, 1),
            "turned_deg": self.turned_deg,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Restore a face from its ``to_json``."""
        box, marks = tuple(data["box_px"]), tuple((x, y) for x, y in data["landmarks_px"])
        return cls(**{**data, "box_px": box, "landmarks_px": marks})


@dataclass(frozen=True, slots=True)
class FacePicture:
    """The picture of one face, for people to look at."""

    person: int
    """The person's number within the segment."""
    time_s: float
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PersonResult:
    """One person within a segment."""

    person: int
    """0 for the one with the most face area."""
    fake_score: float | None
    """The mean over the scored faces; None if none was scored."""
    faces: tuple[FaceResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values, rounded."""
        return {
            "person": self.person,
            "fake_score": self.fake_score,
            "faces": [face.to_json() for face in self.faces],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Restore a person from its ``to_json``."""
        faces = tuple(FaceResult.from_json(face) for face in data["faces"])
        return cls(data["person"], data["fake_score"], faces)


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """The result of one segment."""

    fake_score: float | None
    """The highest person score; None if no face could be scored."""
    reasons: tuple[str, ...]
    """Why there is no score, each a ``shared.states.Reason``; empty if there is one."""
    frames_decoded: int
    faces_found: int
    faces_scored: int
    people: tuple[PersonResult, ...]
    engine: str | None = None
    """Runtime and precision of the network, for instance ``openvino-float32``."""
    looks: tuple[str, ...] = ()
    """Look of each person, by number, as ``worker.detection.people.pack_look`` writes it. It serves to track people
    over segments and is erased when the job ends. Not part of the JSON form."""
    newest_faces: tuple["FacePicture", ...] = ()
    """The newest face of each person, if it was asked for. Not part of the JSON form."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, rounded, for the column ``result`` of a segment."""
        return {
            "fake_score": self.fake_score,
            "reasons": list(self.reasons),
            "frames_decoded": self.frames_decoded,
            "faces_found": self.faces_found,
            "faces_scored": self.faces_scored,
            "people": [person.to_json() for person in self.people],
            "engine": self.engine,
        }

    def shifted(self, shift_s: float) -> Self:
        """Return the result with the times of its faces *shift_s* later."""
        people = tuple(
            replace(person, faces=tuple(replace(face, time_s=face.time_s + shift_s) for face in person.faces))
            for person in self.people
        )
        pictures = tuple(replace(picture, time_s=picture.time_s + shift_s) for picture in self.newest_faces)
        return replace(self, people=people, newest_faces=pictures)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Restore a segment's result from its ``to_json``."""
        people = tuple(PersonResult.from_json(person) for person in data["people"])
        return cls(**{**data, "reasons": tuple(data["reasons"]), "people": people})


@dataclass(frozen=True, slots=True)
class PersonVerdict:
    """The verdict on one person over the whole medium."""

    person: int
    """0 for the one with the most face area."""
    fake_score: float | None
    """The mean over the scored faces; None if none was scored."""
    verdict: Verdict | None
    """``fake``, ``inconclusive`` or ``real``; None without a score."""
    is_by_stretch: bool
    """Whether the verdict follows from a stretch of faces that is more suspicious than the mean over all."""
    limits: Limits | None
    """Thresholds of ``real`` and ``fake`` for the mean; None without a score."""
    faces: int
    faces_scored: int
    seen: tuple[tuple[float, float], ...]
    """Intervals in which the person is seen, in media time."""
    time_s: float
    """Time of the face to show for the person."""
    box_px: tuple[float, ...]
    """Box of that face: left, top, right, bottom in the displayed frame."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, rounded."""
        return {
            "person": self.person,
            "fake_score": self.fake_score,
            "verdict": self.verdict,
            "real_below": self.limits and self.limits.low,
            "fake_from": self.limits and self.limits.high,
            "faces": self.faces,
            "faces_scored": self.faces_scored,
            "seen": [{"start_s": round(start, 4), "end_s": round(end, 4)} for start, end in self.seen],
            "face": {"time_s": round(self.time_s, 4), "box_px": [round(value, 1) for value in self.box_px]},
        }


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A stretch of time in which one person's faces are suspicious together."""

    start_s: float
    end_s: float
    person: int
    fake_score: float
    """The mean over the faces."""
    faces: int
    verdict: Verdict
    """``fake`` if the stretch is significant among all chances, ``inconclusive`` if only among a part of them."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, rounded."""
        return {
            "start_s": round(self.start_s, 4),
            "end_s": round(self.end_s, 4),
            "person": self.person,
            "fake_score": self.fake_score,
            "faces": self.faces,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class JobResult:
    """The result of a whole job."""

    fake_score: float | None
    peak_score: float | None
    verdict: Verdict
    reasons: tuple[str, ...]
    """Each a ``shared.states.Reason``, or a value that a later release wrote."""
    limits: Limits | None = None
    """Thresholds of ``real`` and ``fake`` for the job's score; None without a score."""
    people: tuple[PersonVerdict, ...] = ()
    suspicious: tuple[Suspicion, ...] = ()
