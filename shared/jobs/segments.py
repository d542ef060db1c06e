"""
Segments as clients see them: pages of summaries, or of segments with their faces, and how many are done.

What a page costs depends on the page and not on the job: summaries are columns of their own, so that the large
``result`` is not read for them.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, case, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from shared.models import Job, Segment
from shared.states import OPEN_SEGMENT_STATUSES, SegmentStatus

FIRST_SEGMENTS: Final = 100
"""How many segments the document of a job holds at most."""


def summarize_result(result: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that repeat what a segment's *result* says, to be written together with it."""
    return {
        "people_count": len(result.get("people", [])),
        "faces_found": result.get("faces_found", 0),
        "faces_scored": result.get("faces_scored", 0),
        "frames_decoded": result.get("frames_decoded", 0),
        "engine": result.get("engine"),
        "reasons": result.get("reasons", []),
    }


def set_result(
    segment: Segment, *, fake_score: float | None, result: dict[str, Any], looks: Sequence[str]
) -> SegmentStatus:
    """
    Write what was found in a segment into its row.

    Returns:
        The status that it has with it.
    """
    segment.fake_score, segment.result, segment.looks = fake_score, result, list(looks)
    for name, value in summarize_result(result).items():
        setattr(segment, name, value)
    return SegmentStatus.UNSCORABLE if fake_score is None else SegmentStatus.SCORED


def _summary_column(column: Any, from_result: ColumnElement[Any]) -> ColumnElement[Any]:
    """A column of the summary, computed from ``result`` where a release from before recorded it without summary."""
    return case((Segment.people_count.is_(None), from_result), else_=column).label(column.key)


# ``case`` evaluates one branch alone, so that ``result`` is read for rows without a summary only.
SUMMARY: Final = (
    *(Segment.index, Segment.start_s, Segment.end_s, Segment.status, Segment.fake_score),
    _summary_column(Segment.people_count, func.coalesce(func.jsonb_array_length(Segment.result["people"]), 0)),
    _summary_column(Segment.faces_found, func.coalesce(Segment.result["faces_found"].as_integer(), 0)),
    _summary_column(Segment.faces_scored, func.coalesce(Segment.result["faces_scored"].as_integer(), 0)),
    _summary_column(Segment.frames_decoded, func.coalesce(Segment.result["frames_decoded"].as_integer(), 0)),
    _summary_column(Segment.engine, Segment.result["engine"].as_string()),
    _summary_column(Segment.reasons, func.coalesce(Segment.result["reasons"], literal([], JSONB))),
    *(Segment.error_code, Segment.error_detail),
)
WITH_FACES: Final = (*SUMMARY, Segment.started_at, Segment.finished_at, Segment.result["people"].label("people"))


@dataclass(frozen=True, slots=True)
class SegmentPage:
    """Some segments of a job, in order."""

    rows: Sequence[Any]
    """With the columns of ``SUMMARY`` or ``WITH_FACES`` as attributes."""
    last_index: int | None
    """Of the last row, where more follow; else None."""


def read_segment_page(
    session: Session, job_id: uuid.UUID, *, after: int = -1, limit: int = FIRST_SEGMENTS, with_faces: bool = False
) -> SegmentPage:
    """
    Read at most *limit* segments of a job, in order.

    Args:
        after: The index of the segment before the page; -1 for the first page.
        with_faces: Read every person and face too.
    """
    query = (
        select(*(WITH_FACES if with_faces else SUMMARY))
        .where(Segment.job_id == job_id, Segment.index > after)
        .order_by(Segment.index)
        .limit(limit + 1)
    )
    rows: Sequence[Any] = session.execute(query).all()
    page = rows[:limit]
    return SegmentPage(page, page[-1].index if len(rows) > limit else None)


def count_done(session: Session, jobs: Iterable[Job]) -> dict[uuid.UUID, int]:
    """Return how many segments of each job are done, by its id; the rows of jobs without a count are counted."""
    done = {job.id: job.segments_done for job in jobs}
    uncounted = [job_id for job_id, count in done.items() if count is None]
    if uncounted:
        query = (
            select(Segment.job_id, func.count())
            .where(Segment.job_id.in_(uncounted), Segment.status.not_in(OPEN_SEGMENT_STATUSES))
            .group_by(Segment.job_id)
        )
        done |= dict.fromkeys(uncounted, 0) | dict(session.execute(query).all())
    return {job_id: count or 0 for job_id, count in done.items()}


@dataclass(frozen=True, slots=True)
class JobSegments:
    """What the document of a job says of its segments."""

    first: SegmentPage
    done: int


NO_SEGMENTS: Final = JobSegments(SegmentPage((), None), 0)
"""Of a job that was not planned yet, so that its segments need not be asked for."""


def read_segments(session: Session, job: Job) -> JobSegments:
    """Read what the document of *job* says of its segments; it costs the same for any number of them."""
    return JobSegments(read_segment_page(session, job.id), count_done(session, [job])[job.id])
