"""
Usage: what was analysed for each key on each day (UTC), which outlives the jobs.

Every job that ends adds a row, in the transaction that ends it. ``tidy`` folds rows into one for each day and key.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.jobs.folding import TODAY, fold_rows
from shared.models import APIKey, Job, Media, Segment, Usage
from shared.states import SegmentStatus

_SUMS = (Usage.jobs, Usage.media, Usage.seconds, Usage.faces, Usage.bytes)


def record_usage(session: Session, job: Job) -> None:
    """
    Add the usage of a job that has just ended, whose segments are still there.

    Segments that failed or were left out do not count, and a job without any other has no media, seconds, faces or
    bytes.
    """
    analysed = (SegmentStatus.SCORED, SegmentStatus.UNSCORABLE)
    query = select(
        func.count(), func.coalesce(func.sum(Segment.end_s - Segment.start_s), 0.0), func.sum(Segment.faces_scored)
    ).where(Segment.job_id == job.id, Segment.status.in_(analysed))
    segments, seconds, faces = session.execute(query).one()
    size = session.scalar(select(Media.size_bytes).where(Media.id == job.media_id)) if segments else None
    session.add(
        Usage(
            day=TODAY,
            owner=job.owner,
            api_key_id=job.api_key_id,
            jobs=1,
            media=1 if segments else 0,
            seconds=seconds,
            faces=faces or 0,
            bytes=size or 0,
        )
    )


def fold_usage(session: Session) -> None:
    """Replace the rows of each day and key by one."""
    fold_rows(session, Usage, ("owner", "api_key_id"), {column.key: func.sum for column in _SUMS})


def read_usage(session: Session, owner: str, first: date, last: date) -> Sequence[tuple[Any, ...]]:
    """Return day, key, its name and the sums of usage of an owner, for the days from *first* to *last*, in order."""
    query = (
        select(Usage.day, Usage.api_key_id, APIKey.name, *(func.sum(column) for column in _SUMS))
        .join(APIKey, APIKey.id == Usage.api_key_id)
        .where(Usage.owner == owner, Usage.day.between(first, last))
        .group_by(Usage.day, Usage.api_key_id, APIKey.name)
        .order_by(Usage.day, Usage.api_key_id)
    )
    return [tuple(row) for row in session.execute(query)]
