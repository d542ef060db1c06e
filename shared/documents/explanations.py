"""Documents of explanations: which parts of a person's highest face raised its score, and faces over time."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from shared.documents.base import DeclaredType, Document, ErrorDocument, Score
from shared.models import Explanation, Job
from shared.states import ExplanationStatus


class ExplanationState(Document):
    """How far the explanation of a job is."""

    status: Annotated[str, DeclaredType(ExplanationStatus)]

    @classmethod
    def from_job(cls, job: Job) -> "ExplanationState | None":
        """Return the state of the explanation of *job*; None if none was requested."""
        return None if job.explanation is None else cls(status=job.explanation.status)


class _Place(Document):
    """Where a face is."""

    segment: int = Field(description="Index of its segment.")
    time_s: float
    box_px: list[float] = Field(description="Left, top, right, bottom in the displayed frame.")
    turned_deg: int = Field(description="Clockwise rotation of the face in the displayed frame.")


class ThumbnailDocument(_Place):
    """One of the faces of a person over time."""

    fake_score: Score
    image: str = Field(description="Name of the image.")


class ExplainedImages(Document):
    """Names of the images of an explained face."""

    crop: str = Field(description="What the network saw, without loss.")
    map: str = Field(description="The heat map alone.")
    overlay: str = Field(description="The heat map over the grey crop.")


class ExplainedPersonDocument(_Place):
    """A person: the face with the highest score, explained, and faces over time."""

    person: int = Field(description="The same number as in `people` and in segments.")
    face_score: Score = Field(description="The stored score of that face.")
    explained_score: Score = Field(description="The score of the crop, cut again and computed in float32.")
    score_without_hottest_tenth: Score
    explains: bool = Field(
        description="Whether hiding the hottest tenth lowers the score by a tenth of it at least. If not, the map "
        "explains nothing."
    )
    images: ExplainedImages
    thumbnails: list[ThumbnailDocument] = Field(description="At most six, in order of time.")


class ImageDocument(Document):
    """An image of an explanation."""

    name: str = Field(description="For `GET /v1/jobs/{id}/explanations/{name}`.")
    size_bytes: int
    sha256: str


class ExplainingModel(Document):
    """The checkpoint whose scores are explained."""

    name: str
    version: str
    weights_sha256: str


class ExplanationDocument(Document):
    """The explanation of a job."""

    job_id: UUID
    status: Annotated[str, DeclaredType(ExplanationStatus)]
    created_at: datetime
    finished_at: datetime | None
    error: ErrorDocument | None
    images_stored: bool = Field(description="False before they are made, and once they are erased with the media.")
    note: Annotated[str | None, DeclaredType(str | None)] = Field(description="How to read a map.")
    model: Annotated[dict[str, Any] | None, DeclaredType(ExplainingModel | None)]
    people: Annotated[list[Any], DeclaredType(list[ExplainedPersonDocument])] = Field(
        description="At most ten, most suspicious first; empty until the status is `succeeded`."
    )
    images: list[ImageDocument]

    @classmethod
    def from_row(cls, row: Explanation) -> "ExplanationDocument":
        """Build the document of *row*."""
        result = row.result or {}
        return cls(
            job_id=row.job_id,
            status=row.status,
            created_at=row.created_at,
            finished_at=row.finished_at,
            error=ErrorDocument.from_columns(row.error_code, row.error_detail),
            images_stored=row.storage_key is not None,
            note=result.get("note"),
            model=result.get("model"),
            people=result.get("people", []),
            images=[
                ImageDocument(name=name, size_bytes=place["size_bytes"], sha256=place["sha256"])
                for name, place in result.get("images", {}).items()
            ],
        )
