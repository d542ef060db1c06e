"""Recording what a step of a job found, once, by the holder of its lease."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from shared.errors import JobCancelledError
from shared.jobs.ending import NO_LEASE, drop_source
from shared.jobs.leases import Lease, held_job, held_row
from shared.jobs.queries import has_open_segments
from shared.jobs.segments import summary_of
from shared.models import Media, Segment


def record_source(session: Session, lease: Lease, media: Media) -> None:
    """Attach the media that the job's source has become. Raises JobCancelledError if the lease was lost."""
    job = held_job(session, lease)
    job.media = media
    drop_source(session, job)


def record_plan(
    session: Session,
    lease: Lease,
    facts: dict[str, Any],
    segments: Iterable[tuple[int, float, float]],
    *,
    video_bytes: int | None = None,
    presentation: dict[str, Any] | None = None,
) -> None:
    """
    Store what the probe found and the segments to score, each ``(index, start_s, end_s)``.

    Raises:
        JobCancelledError: The lease was lost or the job has ended.
    """
    job = held_job(session, lease)
    if job.media is None:
        raise JobCancelledError("the job's media was erased")
    job.media.facts = facts
    job.media.video_bytes = video_bytes
    job.media.presentation = presentation
    rows = [
        Segment(job_id=job.id, index=index, start_s=start_s, end_s=end_s, sent_at=func.now())
        for index, start_s, end_s in segments
    ]
    session.add_all(rows)
    job.segments_total = len(rows)
    job.lease_token = job.leased_until = None


def record_segment(
    session: Session, lease: Lease, *, fake_score: float | None, result: dict[str, Any], looks: Sequence[str] = ()
) -> bool:
    """
    Store a segment's result, once.

    Args:
        looks: What its people look like, by number; forgotten when the job ends.

    Returns:
        Whether it was the last open segment, so that the job can be finished.

    Raises:
        JobCancelledError: The lease was lost or the job has ended; the result is dropped.
    """
    job = held_job(session, lease)
    status = "unscorable" if fake_score is None else "scored"
    found = {"fake_score": fake_score, "result": result, "looks": list(looks), **summary_of(result)}
    session.execute(held_row(lease).values(status=status, finished_at=func.now(), **found, **NO_LEASE))
    return not has_open_segments(session, job.id)
