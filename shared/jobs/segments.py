"""
Segments as clients see them: pages with or without faces, and the number of segments that are done.

The cost of a page does not depend on the size of the job. Summaries are separate columns, so that the large column
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
"""The most segments in the document of a job."""


def summarize_result(result: dict[str, Any]) -> dict[str, Any]:
    """Return the summary columns of a segment's *result*, which are written together with it."""
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
    Write the result of a segment into its row.

    Returns:
        The status that follows from the result.
    """
    segment.fake_score, segment.result, segment.looks = fake_score, result, list(looks)
    for name, value in summarize_result(result).items():
        setattr(segment, name, value)
    return SegmentStatus.UNSCORABLE if fake_score is None else SegmentStatus.SCORED


def _summary_column(column: Any, from_result: ColumnElement[Any]) -> ColumnElement[Any]:
    """Select a summary column; in rows of older releases, which have no summary, compute it from ``result``."""
    return case((Segment.people_count.is_(None), from_result), else_=column).label(column.key)


# ``case`` evaluates only one branch, so that ``result`` is read only in rows without a summary.
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
    """A page of a job's segments, in order."""

    rows: Sequence[Any]
    """Rows with the columns of ``SUMMARY`` or ``WITH_FACES``."""
    last_index: int | None
    """The index of the last row if more segments follow; otherwise None."""


def read_segment_page(
    session: Session, job_id: uuid.UUID, *, after: int = -1, limit: int = FIRST_SEGMENTS, with_faces: bool = False
) -> SegmentPage:
    """
    Read at most *limit* segments of a job, in order.

    Args:
        after: The index of the segment before the page; -1 for the first page.
        with_faces: Include every person and face.
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
    """Return the number of segments that are done by job id. Jobs of older releases without a count are counted."""
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
    """The part of a job's segments that its document shows."""

    first: SegmentPage
    done: int


NO_SEGMENTS: Final = JobSegments(SegmentPage((), None), 0)
"""The segments of a job before it is planned, without a query."""


def read_segments(session: Session, job: Job) -> JobSegments:
    """Read the segments for the document of *job*, at a cost that does not depend on their number."""
    return JobSegments(read_segment_page(session, job.id), count_done(session, [job])[job.id])
