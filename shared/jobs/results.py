"""
Recording of the results of a job's steps by the holder of the lease.

Each function raises JobCancelledError and records nothing if the lease was lost or the job has ended.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import case, func, literal, null, update
from sqlalchemy.orm import Session

from shared.db import after_commit
from shared.errors import JobCancelledError, ObjectMissingError
from shared.jobs.deliveries import Attempt, end_attempt
from shared.jobs.ending import Failure, Outcome, drop_source, end_job, end_segment
from shared.jobs.leases import Lease, lock_rows
from shared.jobs.segments import set_result
from shared.models import Delivery, Explanation, Media, Segment
from shared.queues import SCORE_SEGMENT
from shared.states import ExplanationStatus, JobStatus, ProvenanceState

UNREAD_PROVENANCE: Final = (ProvenanceState.UNREADABLE, ProvenanceState.NOT_CHECKED)


def record_source(session: Session, lease: Lease, media: Media) -> None:
    """Attach the media that was made of the job's source."""
    job, _ = lock_rows(session, lease)
    job.media = media
    drop_source(session, job)


def record_plan(
    session: Session,
    lease: Lease,
    facts: dict[str, Any],
    segments: Iterable[tuple[int, float, float]],
    *,
    manifest: dict[str, Any] | None = None,
    video_bytes: int | None = None,
    presentation: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """
    Store the probe's facts and the segments to score, and send the messages that have them scored.

    Args:
        segments: ``(index, start_s, end_s)`` of each.
        manifest: The manifest of the checkpoint to pin, if the job has none yet.
    """
    job, _ = lock_rows(session, lease)
    if job.media_id is None:
        raise JobCancelledError("the job's media was erased")
    # The media is locked before the job is changed, to avoid a deadlock: a submission of the same content locks the
    # media first, and then waits for the job with the same idempotency key.
    found = {"facts": facts, "video_bytes": video_bytes, "presentation": presentation}
    found["provenance"] = _choose_provenance(provenance)
    session.execute(update(Media).where(Media.id == job.media_id).values(**found))
    rows = [
        Segment(job_id=job.id, index=index, start_s=start_s, end_s=end_s, sent_at=func.now())
        for index, start_s, end_s in segments
    ]
    session.add_all(rows)
    job.segments_total = len(rows)
    if job.manifest is None:
        job.manifest = manifest
    job.lease_token = job.leased_until = None
    # From here on attempts of the finish step are counted.
    job.attempts = 0
    for row in rows:
        after_commit(session).send(SCORE_SEGMENT, job_id=job.id, index=row.index)


def _choose_provenance(found: dict[str, Any] | None) -> Any:
    """
    Return the new value of a media's Content Credentials, of which this job has *found*.

    Where it could not read them, what is there stays: earlier jobs of the same file show it, too. The database decides,
    since another job of the file may be recording what it has read at this moment.
    """
    new = null() if found is None else literal(found, Media.provenance.type)
    if found is not None and found["state"] not in UNREAD_PROVENANCE:
        return new
    return case((Media.provenance["state"].astext.is_(None), new), else_=Media.provenance)


def record_segment(
    session: Session, lease: Lease, *, fake_score: float | None, result: dict[str, Any], looks: Sequence[str] = ()
) -> None:
    """
    Store a segment's result.

    Args:
        looks: The looks of its people, by number; forgotten when the job ends.
    """
    job, segment = lock_rows(session, lease)
    if not isinstance(segment, Segment):
        raise TypeError(f"the step {lease.step} has no segment")
    status = set_result(segment, fake_score=fake_score, result=result, looks=looks)
    end_segment(session, job, segment, status)


def record_end(session: Session, lease: Lease, found: Outcome | Failure) -> None:
    """End a job whose segments are all done, with its outcome or with the failure that prevents one."""
    job, _ = lock_rows(session, lease)
    if isinstance(found, Outcome):
        end_job(session, job, JobStatus.SUCCEEDED, outcome=found)
    else:
        end_job(session, job, JobStatus.FAILED, failure=found)


def record_explanation(session: Session, lease: Lease, result: dict[str, Any], storage_key: str | None) -> None:
    """
    Store the explanation of a job's faces.

    Args:
        result: Of ``worker.explain.people.Explained``.
        storage_key: The object with the images; None if there are none.

    Raises:
        ObjectMissingError: The job's media was erased meanwhile, and images of its faces must not outlive it.
    """
    job, row = lock_rows(session, lease)
    if not isinstance(row, Explanation):
        raise TypeError(f"the step {lease.step} has no explanation")
    media = None if job.media_id is None else session.get(Media, job.media_id, populate_existing=True)
    if media is None or media.storage_key is None:
        raise ObjectMissingError("the job's media was erased")
    row.status, row.finished_at = ExplanationStatus.SUCCEEDED, func.now()
    row.result, row.storage_key = result, storage_key
    row.lease_token = row.leased_until = None


def record_attempt(session: Session, lease: Lease, attempt: Attempt, schedule_s: Sequence[float]) -> None:
    """Record the outcome of an attempt to call a webhook, and schedule the next if it failed; see ``end_attempt``."""
    _, delivery = lock_rows(session, lease)
    if not isinstance(delivery, Delivery):
        raise TypeError(f"the step {lease.step} has no delivery")
    end_attempt(session, delivery, attempt, schedule_s)
