"""Reuse of results: the same content, options and checkpoint of the same owner give the same scores."""

from typing import Any

from sqlalchemy import exists, func, insert, literal, select
from sqlalchemy.orm import Session

from shared.jobs.ending import Outcome, end_job
from shared.manifests import Manifest
from shared.models import Job, Media, Segment
from shared.states import JobStatus, Reason

COPIED_COLUMNS = (
    *(Segment.index, Segment.start_s, Segment.end_s, Segment.status, Segment.fake_score, Segment.result),
    *(Segment.people_count, Segment.faces_found, Segment.faces_scored, Segment.frames_decoded, Segment.engine),
    *(Segment.reasons, Segment.started_at, Segment.finished_at),
)
"""Columns of segments that are copied to the new job. Their times are those of the original scoring."""


def reuse_result(session: Session, job: Job, manifest: Manifest) -> None:
    """End a new *job* with the result of an equal one, if there is one."""
    description = manifest.describe(sample_fps=job.sample_fps, segment_seconds=job.segment_seconds)
    source = find_reusable_job(session, job, description)
    if source is not None:
        copy_result(session, job, source)


def find_reusable_job(session: Session, job: Job, description: dict[str, Any]) -> Job | None:
    """
    Find the latest job with a complete result for the media of *job*.

    Args:
        description: The description of model, preprocessing, sampling and pipeline, which must be equal.
    """
    is_truncated = exists().where(Media.id == Job.media_id, Media.facts[Reason.TRUNCATED].as_boolean())
    # An older release probed the video without its bit rate, so that its compression was not considered.
    lacks_bit_rate = exists().where(
        Media.id == Job.media_id, Media.facts["kind"].as_string() == "video", Media.video_bytes.is_(None)
    )
    query = (
        select(Job)
        .where(
            Job.owner == job.owner,
            Job.media_id == job.media_id,
            Job.id != job.id,
            Job.status == JobStatus.SUCCEEDED,
            Job.deleted_at.is_(None),
            Job.model_description == description,
            ~Job.reasons.contains([Reason.SEGMENTS_FAILED]),
            # An older release did not consider truncation in its verdict.
            ~is_truncated | Job.reasons.contains([Reason.TRUNCATED]),
            *([] if description.get("min_bits_per_pixel") is None else [~lacks_bit_rate]),
        )
        .order_by(Job.id.desc())
        .limit(1)
        # The lock prevents erasure while the segments are copied. A job that is being erased is skipped, since waiting
        # for it would be a deadlock: that transaction waits for the media that this one has locked.
        .with_for_update(read=True, skip_locked=True)
    )
    return session.scalars(query).one_or_none()


def copy_result(session: Session, job: Job, source: Job) -> None:
    """End a new *job* with a copy of the result of *source*."""
    segments = select(literal(job.id), *COPIED_COLUMNS).where(Segment.job_id == source.id)
    session.execute(insert(Segment).from_select([Segment.job_id, *COPIED_COLUMNS], segments))
    job.segments_total = source.segments_total
    job.started_at = func.now()
    job.reused_from = source.reused_from or source.id
    outcome = Outcome(
        fake_score=source.fake_score,
        peak_score=source.peak_score,
        verdict=source.verdict,
        reasons=source.reasons,
        model_description=source.model_description or {},
        evidence=source.evidence,
        findings=source.findings,
    )
    end_job(session, job, JobStatus.SUCCEEDED, outcome=outcome)
    session.refresh(job)
