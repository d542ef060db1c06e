"""Documents of segments, with and without their people and faces."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from shared.documents.base import DeclaredType, Document, ErrorDocument, Score
from shared.states import Reason, SegmentStatus


class FaceDocument(Document):
    """One face in one sampled frame."""

    time_s: float
    box_px: Annotated[list[float], Field(min_length=4, max_length=4, description="Left, top, right, bottom.")]
    landmarks_px: list[list[float]] = Field(description="Eyes, nose and corners of the mouth, each x, y.")
    confidence: Score
    size_px: float
    sharpness: float
    problem: Literal["face_too_small", "face_too_blurred", "face_turned"] | None = Field(
        description="Why the face was not scored."
    )
    fake_score: Score | None
    luma: float | None = Field(
        default=None, description="Mean luma of the face, in [0, 255]; null in results of older releases."
    )
    turned_deg: int = Field(
        default=0, description="Clockwise rotation of the face in the displayed frame: 0, 90, 180 or 270."
    )


class PersonDocument(Document):
    """One person within a segment."""

    person: int
    fake_score: Score | None = Field(description="Mean over the person's scored faces.")
    faces: list[FaceDocument]


class _Segment(Document):
    """Fields that the summary and the whole document of a segment share."""

    index: int
    start_s: float
    end_s: float
    status: Annotated[str, DeclaredType(SegmentStatus)]
    fake_score: Annotated[float | None, DeclaredType(Score | None)] = Field(
        description="Score of the highest-scoring person; null without a scorable face."
    )
    reasons: Annotated[list[Any], DeclaredType(list[Reason])] = Field(description="Why there is no score.")
    faces_found: int
    faces_scored: int
    frames_decoded: int
    engine: str | None = Field(description="The runtime of the network and its precision.")
    error: ErrorDocument | None


def _common(row: Any) -> dict[str, Any]:
    """Return the fields of a *row* that both documents share."""
    return {
        "index": row.index,
        "start_s": row.start_s,
        "end_s": row.end_s,
        "status": row.status,
        "fake_score": row.fake_score,
        "reasons": row.reasons,
        "faces_found": row.faces_found,
        "faces_scored": row.faces_scored,
        "frames_decoded": row.frames_decoded,
        "engine": row.engine,
        "error": ErrorDocument.from_columns(row.error_code, row.error_detail),
    }


class SegmentSummary(_Segment):
    """A segment without its faces."""

    people: int = Field(description="Number of people.")

    @classmethod
    def from_row(cls, row: Any) -> "SegmentSummary":
        """Build the summary of a *row* with the columns of ``shared.jobs.segments.SUMMARY``."""
        return cls(**_common(row), people=row.people_count)


class SegmentDocument(_Segment):
    """A segment with every face."""

    started_at: datetime | None = Field(description="When a worker first leased the segment.")
    finished_at: datetime | None
    people: Annotated[list[Any], DeclaredType(list[PersonDocument])]

    @classmethod
    def from_row(cls, row: Any) -> "SegmentDocument":
        """Build the document of a *row* with the columns of ``shared.jobs.segments.WITH_FACES``."""
        return cls(**_common(row), people=row.people or [], started_at=row.started_at, finished_at=row.finished_at)


class SegmentList(Document):
    """A page of segments in order, either with faces or as summaries."""

    items: list[SegmentDocument] | list[SegmentSummary]
    next_cursor: str | None
