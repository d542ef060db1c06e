"""Typed results of explanations: which parts of a person's face raised its score, and the person's faces over time."""

from typing import Any, Final

from pydantic import Field
from pydantic.dataclasses import dataclass

from deepfakestream.results import Box, Count, Document, Flag, Number, Problem, Timestamp

FINAL_EXPLANATION_STATUSES: Final = frozenset({"succeeded", "failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedImages(Document):
    """Names of the images of an explained face, for ``Client.explanation_image``."""

    crop: str
    """What the network saw."""
    map: str
    """The heat map alone."""
    overlay: str
    """The heat map over the grey crop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail(Document):
    """One of the faces of a person over time."""

    segment: Count
    """Index of its segment."""
    time_s: Number
    box_px: Box
    """In pixels of the displayed frame."""
    turned_deg: Count = 0
    """By how many degrees the face is rotated clockwise in the displayed frame."""
    fake_score: Number
    image: str
    """Name of the image, for ``Client.explanation_image``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPerson(Document):
    """A person: the face with the highest score, explained, and faces over time."""

    person: Count
    """The same number as in ``Job.people`` and in segments."""
    segment: Count
    """Index of the segment of the explained face."""
    time_s: Number
    box_px: Box
    """In pixels of the displayed frame."""
    turned_deg: Count = 0
    """By how many degrees the face is rotated clockwise in the displayed frame."""
    face_score: Number
    """The stored score of that face."""
    explained_score: Number
    """The score of the crop, cut again and computed in float32."""
    score_without_hottest_tenth: Number
    """The score with the hottest tenth of the crop blurred."""
    explains: Flag
    """Whether blurring it lowers the score by a tenth of it at least. If not, the map explains nothing."""
    images: ExplainedImages
    thumbnails: tuple[Thumbnail, ...] = ()
    """In order of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationImage(Document):
    """An image of an explanation."""

    name: str
    size_bytes: Count
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainingModel(Document):
    """The checkpoint whose scores are explained."""

    name: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Document):
    """The explanation of a job: its state and, once it is made, people, faces and names of images."""

    job_id: str
    status: str
    """``pending``, ``running``, ``succeeded`` or ``failed``."""
    created_at: Timestamp
    finished_at: Timestamp | None = None
    error: Problem | None = None
    images_stored: Flag
    """False before they are made, and once they are erased with the media."""
    note: str | None = None
    """How to read a map."""
    model: ExplainingModel | None = None
    people: tuple[ExplainedPerson, ...] = ()
    """Most suspicious first; empty until the status is ``succeeded``."""
    images: tuple[ExplanationImage, ...] = ()
    poll_after_s: Number | None = None
    """When the service asks to be asked again; None once the explanation is final, and from older services."""
    raw: dict[str, Any] = Field(repr=False)
    """The document as the service answered it."""

    @property
    def is_final(self) -> bool:
        """Whether it was made, or cannot be made."""
        return self.status in FINAL_EXPLANATION_STATUSES

    @classmethod
    def _fields_from_document(cls, document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "raw": document}
