"""Segments, with and without the people and faces found in them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from shared.documents.base import DeclaredType, Document, ErrorDocument, Score
from shared.states import Reason, SegmentStatus


class FaceDocument(Document):
    """One face in one sampled frame."""

    time_s: float
    box_px: Annotated[list[float], Field(min_length=4, max_length=4, description="Left, top, right, bottom.")]
    landmarks_px: list[list[float]] = Field(description="Eyes, nose, corners of the mouth: x, y.")
    confidence: Score
    size_px: float
    sharpness: float
    problem: Literal["face_too_small", "face_too_blurred", "face_turned"] | None = Field(
        description="Why the face was not scored."
    )
    fake_score: Score | None
    luma: float | None = Field(
        default=None, description="Mean over the face, in [0, 255]; null in results from before it was measured."
    )
    turned_deg: int = Field(
        default=0, description="How far the face stands turned clockwise in the displayed frame: 0, 90, 180 or 270."
    )


class PersonDocument(Document):
    """One person within a segment."""

    person: int
    fake_score: Score | None = Field(description="Mean over the person's scored faces.")
    faces: list[FaceDocument]


class _Segment(Document):
    """What both forms of a segment have in common."""

    index: int
    start_s: float
    end_s: float
    status: Annotated[str, DeclaredType(SegmentStatus)]
    fake_score: Annotated[float | None, DeclaredType(Score | None)] = Field(
        description="The highest person's score; null without a scorable face."
    )
    reasons: Annotated[list[Any], DeclaredType(list[Reason])] = Field(description="Why there is no score.")
    faces_found: int
    faces_scored: int
    frames_decoded: int
    engine: str | None = Field(description="What ran the network, and in which precision.")
    error: ErrorDocument | None


def _common(row: Any) -> dict[str, Any]:
    """The fields of a *row* that both forms have."""
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

    people: int = Field(description="How many people were seen.")

    @classmethod
    def from_row(cls, row: Any) -> "SegmentSummary":
        """The summary of a *row* with the columns of ``shared.jobs.segments.SUMMARY``."""
        return cls(**_common(row), people=row.people_count)


class SegmentDocument(_Segment):
    """A segment with every face."""

    started_at: datetime | None = Field(description="When a worker first began with it.")
    finished_at: datetime | None
    people: Annotated[list[Any], DeclaredType(list[PersonDocument])]

    @classmethod
    def from_row(cls, row: Any) -> "SegmentDocument":
        """The segment of a *row* with the columns of ``shared.jobs.segments.WITH_FACES``."""
        return cls(**_common(row), people=row.people or [], started_at=row.started_at, finished_at=row.finished_at)


class SegmentList(Document):
    """A page of segments, in order: with their faces, or summaries where those were asked for."""

    items: list[SegmentDocument] | list[SegmentSummary]
    next_cursor: str | None
