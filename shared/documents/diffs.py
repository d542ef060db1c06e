"""What changed between two jobs of the same media."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from shared.documents.base import DeclaredType, Document, Score
from shared.states import Reason, Verdict


class Side(Document):
    """One of the two jobs."""

    id: UUID
    model: str
    weights_sha256: str | None
    sample_fps: float
    segment_seconds: float
    fake_score: Annotated[float | None, DeclaredType(Score | None)]
    peak_score: Annotated[float | None, DeclaredType(Score | None)]
    verdict: Annotated[str | None, DeclaredType(Verdict | None)]
    reasons: Annotated[list[Any], DeclaredType(list[Reason])]
    people_total: Annotated[int | None, DeclaredType(int | None)]


class Interval(Document):
    """A time in which one segment of each job covers the media."""

    start_s: float
    end_s: float
    before: Annotated[float | None, DeclaredType(Score | None)] = Field(description="Null where nothing was scored.")
    after: Annotated[float | None, DeclaredType(Score | None)]


class DiffDocument(Document):
    """Two jobs of the same media beside each other."""

    before: Side
    after: Side
    changed_options: list[str] = Field(description="Of `model`, `weights`, `sample_fps` and `segment_seconds`.")
    verdict_changed: bool
    score_change: float | None = Field(description="After minus before; null where one of them has no score.")
    intervals_total: int = Field(description="Between the cuts of both jobs.")
    intervals: list[Interval] = Field(
        description="The 100 in which the scores differ most, in order of time; those that one job alone scored first "
        "of all."
    )
