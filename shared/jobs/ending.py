"""The end of segments and jobs: final states, their consequences, and erasure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, null, select, update
from sqlalchemy.orm import Session

from shared.db import after_commit
from shared.errors import DeepfakeStreamError
from shared.jobs.batches import drop_batch_of, end_batch_of, leave_batch
from shared.jobs.deliveries import cancel_deliveries, schedule_webhook
from shared.jobs.explanations import drop_explanation, start_explanation
from shared.jobs.queries import has_open_segments
from shared.jobs.usage import record_usage
from shared.media.direct_uploads import drop_upload
from shared.media.removals import schedule_deletion
from shared.models import Job, Media, Segment, Share
from shared.observability import FAKE_SCORES, JOBS_ENDED, VERDICTS
from shared.queues import FINISH
from shared.states import FINAL_JOB_STATUSES, JobStatus, SegmentStatus, Verdict, WebhookEvent
from shared.streams.cleanup import end_stream, erase_stream, release_piece, release_rest


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a job or a segment failed, as its row and its documents give it."""

    code: str
    detail: str

    @classmethod
    def from_error(cls, error: DeepfakeStreamError) -> "Failure":
        """Return the failure for *error*."""
        return cls(error.code, str(error))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a job that succeeded."""

    fake_score: float | None
    peak_score: float | None
    verdict: Verdict | None
    reasons: Sequence[str]
    model_description: dict[str, Any]
    evidence: dict[str, Any] | None = None
    findings: dict[str, Any] | None = None

    def write_to(self, job: Job) -> None:
        """Write the result into the row of *job*."""
        job.fake_score, job.peak_score = self.fake_score, self.peak_score
        job.verdict, job.reasons = self.verdict, list(self.reasons)
        job.model_description, job.evidence = self.model_description, self.evidence
        job.findings = self.findings


def end_segment(
    session: Session, job: Job, segment: Segment, status: SegmentStatus, *, failure: Failure | None = None
) -> None:
    """Set the final *status* of a locked segment of a locked job. After the last one, send the finish step."""
    segment.status = status
    segment.finished_at = func.now()
    segment.lease_token = segment.leased_until = None
    if failure is not None:
        segment.error_code, segment.error_detail = failure.code, failure.detail
    if segment.storage_key is not None:
        release_piece(session, segment)
    session.flush()
    if job.segments_total is None:
        # More segments of a live stream will come.
        return
    session.refresh(job, ["segments_done"])
    if job.segments_done is not None and job.segments_done < (job.segments_total or 0):
        # The count avoids a search for an open segment, whose cost grows with the number of segments that are done.
        return
    if not has_open_segments(session, job.id):
        job.sent_at = func.now()
        after_commit(session).send(FINISH, job_id=job.id)


def end_job(
    session: Session,
    job: Job,
    status: JobStatus,
    *,
    outcome: Outcome | None = None,
    failure: Failure | None = None,
) -> None:
    """
    Set the final *status* of a locked, unfinished job and schedule its webhook.

    Raises:
        ValueError: The job has ended already, or *status* is not a final one.
    """
    if job.is_final or status not in FINAL_JOB_STATUSES:
        raise ValueError(f"job {job.id} cannot go from {job.status} to {status}")
    if job.media_id is None:
        # Only streams have pieces. What alerts need is forgotten with the status.
        release_rest(session, job)
    job.status = status
    job.finished_at = func.now()
    job.lease_token = job.leased_until = None
    # The job may end before ingest took its direct upload, which no other job can use.
    drop_source(session, job)
    # A worker that is working on a segment loses its lease and stops.
    session.execute(
        update(Segment)
        .where(Segment.job_id == job.id, Segment.status == SegmentStatus.RUNNING)
        .values(status=SegmentStatus.PENDING, lease_token=None, leased_until=None)
    )
    _forget_looks(session, Segment.job_id == job.id)
    if outcome is not None:
        outcome.write_to(job)
    if failure is not None:
        job.error_code, job.error_detail = failure.code, failure.detail
    session.flush()
    if status == JobStatus.SUCCEEDED:
        start_explanation(session, job.id)
    else:
        drop_explanation(session, job.id)
    _count_end(session, job)
    is_stream = end_stream(session, job)
    schedule_webhook(session, job, WebhookEvent.STREAM_ENDED if is_stream else None)
    end_batch_of(session, job)


def cancel_job(session: Session, job: Job) -> None:
    """Cancel a locked, unfinished job. Its workers notice when they next renew their lease or record a result."""
    end_job(session, job, JobStatus.CANCELLED)


def delete_job(session: Session, job: Job) -> None:
    """
    Erase a locked job with its segments, deliveries, explanation, stream and, unless another job uses it, its media.

    The row stays as a tombstone, without data of the sender and without results.
    """
    # The media is locked before the job is changed; see ``record_plan``.
    media = session.get_one(Media, job.media_id, with_for_update=True) if job.media_id is not None else None
    if not job.is_final:
        job.status, job.finished_at = JobStatus.CANCELLED, func.now()
        _count_end(session, job)
    leave_batch(session, job)
    cancel_deliveries(session, job.id)
    erase_stream(session, job.id)
    session.execute(delete(Segment).where(Segment.job_id == job.id))
    session.execute(delete(Share).where(Share.job_id == job.id))
    drop_explanation(session, job.id)
    drop_source(session, job)
    if media is not None:
        job.media_id = None
        job.media = None
        session.flush()
        if session.scalar(select(Job.id).where(Job.media_id == media.id).limit(1)) is None:
            if media.storage_key is not None:
                schedule_deletion(session, media.storage_key)
            session.delete(media)
    job.deleted_at = func.now()
    session.flush()
    drop_batch_of(session, job.id)
    job.client_metadata, job.reasons = {}, []
    job.source_url = job.source_sha256 = job.webhook_url = job.webhook_events = job.idempotency_key = None
    job.fake_score = job.peak_score = job.verdict = job.reused_from = job.parent_id = None
    job.model_description = job.evidence = job.findings = job.manifest = job.review = None
    job.error_code = job.error_detail = job.lease_token = job.leased_until = None
    session.flush()


def drop_source(session: Session, job: Job) -> None:
    """Release the direct upload that the job was created from, if any, and schedule its removal."""
    storage_key, job.source_key = job.source_key, None
    if storage_key is not None:
        drop_upload(session, storage_key)
        schedule_deletion(session, storage_key)


def forget_looks(session: Session) -> None:
    """Forget the looks of people in jobs of the last day: a release that does not know looks may have ended them."""
    ended = select(Job.id).where(Job.status.in_(FINAL_JOB_STATUSES), Job.finished_at > func.now() - timedelta(days=1))
    _forget_looks(session, Segment.job_id.in_(ended))


def _forget_looks(session: Session, which: ColumnElement[bool]) -> None:
    session.execute(update(Segment).where(which, Segment.looks.is_not(None)).values(looks=null()))


def _count_end(session: Session, job: Job) -> None:
    """Count the end of a job in the usage of its key and in the metrics, while its segments are there."""
    record_usage(session, job)
    model, verdict, fake_score = job.model, job.verdict, job.fake_score
    after_commit(session).count(JOBS_ENDED.labels(status=str(job.status)).inc)
    if verdict is not None:
        after_commit(session).count(VERDICTS.labels(model=model, verdict=str(verdict)).inc)
    if fake_score is not None:
        after_commit(session).count(lambda: FAKE_SCORES.labels(model=model).observe(fake_score))
