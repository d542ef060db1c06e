"""Ending a job: its final state, its webhook, and its erasure."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, null, select, update
from sqlalchemy.orm import Session

from shared.errors import DeepfakeStreamError
from shared.jobs.deliveries import announce, call_off
from shared.media.direct import drop_upload
from shared.media.removals import owe_removal
from shared.models import Job, Media, Segment
from shared.states import FINAL_JOB_STATUSES, JobStatus, Verdict

NO_LEASE: dict[str, Any] = {"lease_token": None, "leased_until": None}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a job failed, as its row and its documents say it."""

    code: str
    detail: str

    @classmethod
    def of(cls, error: DeepfakeStreamError) -> "Problem":
        """The problem that *error* is."""
        return cls(error.code, str(error))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished job says."""

    fake_score: float | None
    peak_score: float | None
    verdict: Verdict | None
    reasons: Sequence[str]
    model_description: dict[str, Any]
    evidence: dict[str, Any] | None = None
    findings: dict[str, Any] | None = None


def end_job(
    session: Session,
    job: Job,
    status: str,
    *,
    outcome: Outcome | None = None,
    error: Problem | None = None,
) -> uuid.UUID | None:
    """
    Bring a locked, unfinished job to its final *status* and schedule its webhook.

    Returns:
        The delivery to send once the transaction is committed, if there is a webhook.

    Raises:
        ValueError: The job has ended already, or *status* is not a final one.
    """
    if job.is_final or status not in FINAL_JOB_STATUSES:
        raise ValueError(f"job {job.id} cannot go from {job.status} to {status}")
    job.status = JobStatus(status)
    job.finished_at = func.now()
    job.lease_token = job.leased_until = None
    # Of a job that ends before it could take its direct upload over; nobody can ask for it again.
    drop_source(session, job)
    # Whoever works on one of its segments finds the lease gone and stops.
    session.execute(
        update(Segment)
        .where(Segment.job_id == job.id, Segment.status == "running")
        .values(status="pending", **NO_LEASE)
    )
    _forget_looks(session, Segment.job_id == job.id)
    if outcome is not None:
        job.fake_score, job.peak_score = outcome.fake_score, outcome.peak_score
        job.verdict, job.reasons = outcome.verdict, list(outcome.reasons)
        job.model_description, job.evidence = outcome.model_description, outcome.evidence
        job.findings = outcome.findings
    if error is not None:
        job.error_code, job.error_detail = error.code, error.detail
    session.flush()
    return announce(session, job)


def cancel_job(session: Session, job: Job) -> uuid.UUID | None:
    """Stop a locked, unfinished job. Workers notice when they next renew or record."""
    return end_job(session, job, "cancelled")


def delete_job(session: Session, job: Job) -> str | None:
    """
    Erase a locked job: its segments, its deliveries and, unless another job needs it, its media.

    A tombstone of the row stays, without anything the sender gave or the service found.

    Returns:
        The storage key to remove once the transaction is committed; it is owed.
    """
    if not job.is_final:
        job.status, job.finished_at = JobStatus.CANCELLED, func.now()
    call_off(session, job.id)
    session.execute(delete(Segment).where(Segment.job_id == job.id))
    storage_key = drop_source(session, job)
    if job.media_id is not None:
        media = session.get_one(Media, job.media_id, with_for_update=True)
        job.media_id = None
        job.media = None
        session.flush()
        if session.scalar(select(Job.id).where(Job.media_id == media.id).limit(1)) is None:
            storage_key = media.storage_key
            if storage_key is not None:
                owe_removal(session, storage_key)
            session.delete(media)
    job.deleted_at = func.now()
    job.client_metadata, job.reasons = {}, []
    job.source_url = job.webhook_url = job.idempotency_key = None
    job.fake_score = job.peak_score = job.verdict = job.reused_from = None
    job.model_description = job.evidence = job.findings = None
    job.error_code = job.error_detail = job.lease_token = job.leased_until = None
    session.flush()
    return storage_key


def drop_source(session: Session, job: Job) -> str | None:
    """Give up the direct upload that the job was made of, if any; its storage key, which is owed."""
    storage_key, job.source_key = job.source_key, None
    if storage_key is not None:
        drop_upload(session, storage_key)
        owe_removal(session, storage_key)
    return storage_key


def forget_looks(session: Session) -> None:
    """Forget what people look like in jobs of the last day that a release ended which does not know of looks."""
    ended = select(Job.id).where(Job.status.in_(FINAL_JOB_STATUSES), Job.finished_at > func.now() - timedelta(days=1))
    _forget_looks(session, Segment.job_id.in_(ended))


def _forget_looks(session: Session, which: ColumnElement[bool]) -> None:
    session.execute(update(Segment).where(which, Segment.looks.is_not(None)).values(looks=null()))
