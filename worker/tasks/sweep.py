"""
What ``upkeep`` finds left behind, and what it makes of it.

Flushing Redis loses messages, and killing a worker loses what it held. Both leave rows that are open and that
nobody works on. The sweep takes such rows and says which messages to send; because each step is safe to run
twice, sending one too many costs a look at the row and nothing else.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from shared.audit import SERVICE, Actor, expire_events, record
from shared.config import Jobs
from shared.errors import AttemptsExhaustedError
from shared.jobs.deliveries import take_due
from shared.jobs.ending import Problem, delete_job, end_job
from shared.jobs.queries import has_open_segments, lock_job
from shared.media.direct import expire_uploads
from shared.media.removals import owe_removal
from shared.models import Job, Media, Segment
from shared.states import FINAL_JOB_STATUSES, OPEN_JOB_STATUSES, OPEN_SEGMENT_STATUSES, SegmentStatus

BATCH = 500
"""Rows taken in one pass, so that a transaction stays short; the next tick takes more."""


@dataclass(slots=True)
class Sweep:
    """Messages to send after the commit."""

    ingest: list[uuid.UUID] = field(default_factory=list)
    segments: list[tuple[uuid.UUID, int]] = field(default_factory=list)
    finish: list[uuid.UUID] = field(default_factory=list)
    deliveries: list[uuid.UUID] = field(default_factory=list)


def sweep(session: Session, settings: Jobs, *, cpu_depth: int, gpu_depth: int) -> Sweep:
    """
    Find what a crash left behind.

    Args:
        cpu_depth: Messages waiting in the cpu queue; a lost message is told from a waiting one by it.
        gpu_depth: Likewise for the gpu queue.
    """
    found = Sweep()
    _fail_exhausted(session, settings, found)
    found.ingest += _take_ingest(session, settings, cpu_depth)
    found.segments += _take_segments(session, settings, gpu_depth)
    found.finish += _take_finish(session, settings)
    found.deliveries += take_due(session, settings.resend_after_s, BATCH)
    return found


def _fail_exhausted(session: Session, settings: Jobs, found: Sweep) -> None:
    """Fail steps whose worker died under them for the last time that is allowed."""
    stuck_jobs = session.scalars(
        select(Job.id)
        .where(
            Job.status == "running",
            Job.deleted_at.is_(None),
            Job.segments_total.is_(None),
            Job.leased_until < func.now(),
            Job.attempts >= settings.max_attempts,
        )
        .limit(BATCH)
    ).all()
    for job_id in stuck_jobs:
        job = lock_job(session, job_id)
        if job is not None and job.status == "running" and job.segments_total is None:
            error = Problem(AttemptsExhaustedError.code, f"the file could not be inspected in {job.attempts} attempts")
            delivery = end_job(session, job, "failed", error=error)
            found.deliveries += [delivery] if delivery else []
    stuck_segments = session.execute(
        select(Segment.job_id, Segment.index)
        .where(
            Segment.status == "running",
            Segment.leased_until < func.now(),
            Segment.attempts >= settings.max_attempts,
        )
        .order_by(Segment.job_id, Segment.index)
        .limit(BATCH)
    ).all()
    for job_id, index in stuck_segments:
        if lock_job(session, job_id) is None:
            continue
        session.execute(
            update(Segment)
            .where(
                Segment.job_id == job_id,
                Segment.index == index,
                Segment.status == "running",
                Segment.leased_until < func.now(),
            )
            .values(
                status="failed",
                error_code=AttemptsExhaustedError.code,
                error_detail=f"segment {index} could not be scored in {settings.max_attempts} attempts",
                finished_at=func.now(),
                lease_token=None,
                leased_until=None,
            )
        )
        if not has_open_segments(session, job_id):
            found.finish.append(job_id)


def _take_ingest(session: Session, settings: Jobs, depth: int) -> Sequence[uuid.UUID]:
    owed = (
        select(Job.id)
        .where(
            Job.status.in_(OPEN_JOB_STATUSES),
            Job.deleted_at.is_(None),
            Job.segments_total.is_(None),
            _is_owed(Job, settings, depth),
        )
        .order_by(Job.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    return session.scalars(
        update(Job)
        .where(Job.id.in_(owed))
        .values(sent_at=func.now(), lease_token=None, leased_until=None)
        .returning(Job.id)
    ).all()


def _take_segments(session: Session, settings: Jobs, depth: int) -> list[tuple[uuid.UUID, int]]:
    owed = (
        select(Segment)
        .join(Job, Job.id == Segment.job_id)
        .where(
            Segment.status.in_(OPEN_SEGMENT_STATUSES),
            Job.status == "running",
            _is_owed(Segment, settings, depth),
        )
        .order_by(Segment.job_id, Segment.index)
        .limit(BATCH)
        .with_for_update(of=Segment, skip_locked=True)
    )
    taken = []
    for segment in session.scalars(owed):
        segment.status, segment.sent_at = SegmentStatus.PENDING, func.now()
        segment.lease_token = segment.leased_until = None
        taken.append((segment.job_id, segment.index))
    session.flush()
    return taken


def _take_finish(session: Session, settings: Jobs) -> Sequence[uuid.UUID]:
    """Running jobs without an open segment: the message to finish them was lost."""
    is_open = select(Segment.index).where(Segment.job_id == Job.id, Segment.status.in_(OPEN_SEGMENT_STATUSES)).exists()
    owed = (
        select(Job.id)
        .where(
            Job.status == "running",
            Job.segments_total.is_not(None),
            ~is_open,
            or_(Job.sent_at.is_(None), Job.sent_at < func.now() - timedelta(seconds=settings.resend_after_s)),
        )
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    return session.scalars(update(Job).where(Job.id.in_(owed)).values(sent_at=func.now()).returning(Job.id)).all()


def _is_owed(row: type[Job] | type[Segment], settings: Jobs, depth: int) -> ColumnElement[bool]:
    """Whether a message has to be sent (again): none is out, its worker is gone, or it seems lost."""
    patience_s = settings.resend_after_s if depth == 0 else settings.resend_always_after_s
    lost = row.sent_at < func.now() - timedelta(seconds=patience_s)
    return or_(
        row.leased_until < func.now(),
        row.leased_until.is_(None) & (row.send_after <= func.now()) & (row.sent_at.is_(None) | lost),
    )


@dataclass(frozen=True, slots=True)
class Expired:
    """What one pass erased."""

    storage_keys: Sequence[str]
    """What they were stored under; their removal is owed."""
    is_more: bool
    """Another pass may find more."""


def expire(session: Session, settings: Jobs) -> Expired:
    """Erase media past its retention, and jobs, uploads and audit events past theirs, as many as one pass takes."""
    keys: list[str] = []
    in_use = select(Job.id).where(Job.media_id == Media.id, Job.status.not_in(FINAL_JOB_STATUSES)).exists()
    expired: Any = select(Media).where(Media.expires_at < func.now(), Media.storage_key.is_not(None), ~in_use)
    all_media = session.scalars(expired.limit(BATCH).with_for_update(skip_locked=True)).all()
    for media in all_media:
        keys.append(media.storage_key)
        owe_removal(session, media.storage_key)
        media.storage_key = None
        record(session, "media.expired", owner=media.owner, actor=Actor(SERVICE), sha256=media.sha256)
    old = select(Job.id).where(
        Job.deleted_at.is_(None),
        Job.finished_at < func.now() - timedelta(days=settings.result_retention_days),
    )
    job_ids = session.scalars(old.limit(BATCH)).all()
    for job_id in job_ids:
        job = lock_job(session, job_id)
        if job is None:
            continue
        key = delete_job(session, job)
        record(session, "job.expired", owner=job.owner, actor=Actor(SERVICE), job_id=job.id)
        keys += [key] if key else []
    tombstones = Job.deleted_at < func.now() - timedelta(days=settings.result_retention_days)
    session.execute(delete(Job).where(tombstones))
    expire_uploads(session)
    expire_events(session, settings.audit_retention_days)
    return Expired(keys, is_more=BATCH in (len(all_media), len(job_ids)))
