"""Expiry: erasure of media, jobs, uploads and audit events that are past their retention."""

from datetime import timedelta

from sqlalchemy import delete, func, null, select, update
from sqlalchemy.orm import Session

from shared.audit import SERVICE, Actor, expire_events, record_event
from shared.config import Jobs
from shared.db import SessionFactory
from shared.jobs.ending import delete_job
from shared.jobs.explanations import expire_images
from shared.jobs.queries import lock_job
from shared.media.direct_uploads import expire_uploads
from shared.media.removals import schedule_deletion
from shared.models import Job, Media, Share
from shared.states import FINAL_JOB_STATUSES
from shared.streams.cleanup import expire_pieces

MEDIA_BATCH = 500
JOBS_BATCH = 20
"""A job can have thousands of segments, and long transactions delay the database's vacuum."""


def expire(sessions: SessionFactory, settings: Jobs) -> tuple[int, int]:
    """
    Erase everything past its retention, a few rows in each transaction.

    Returns:
        Number of erased media files, and of erased jobs.
    """
    all_media = all_jobs = 0
    is_more = True
    while is_more:
        with sessions.transaction() as session:
            count = _expire_media(session, MEDIA_BATCH)
        all_media += count
        is_more = count == MEDIA_BATCH
    is_more = True
    while is_more:
        with sessions.transaction() as session:
            is_more = expire_images(session, settings.media_retention_days, MEDIA_BATCH) == MEDIA_BATCH
    is_more = True
    while is_more:
        with sessions.transaction() as session:
            is_more = expire_pieces(session, settings.media_retention_days, MEDIA_BATCH) == MEDIA_BATCH
    is_more = True
    while is_more:
        with sessions.transaction() as session:
            found, erased = _expire_jobs(session, settings.result_retention_days, JOBS_BATCH)
        all_jobs += erased
        # Rows that another transaction has erased meanwhile are not found again.
        is_more = found == JOBS_BATCH
    with sessions.transaction() as session:
        session.execute(delete(Job).where(Job.deleted_at < func.now() - timedelta(days=settings.result_retention_days)))
        expire_uploads(session)
        session.execute(delete(Share).where(Share.expires_at < func.now()))
        expire_events(session, settings.audit_retention_days)
    return all_media, all_jobs


def _expire_media(session: Session, limit: int) -> int:
    in_use = select(Job.id).where(Job.media_id == Media.id, Job.status.not_in(FINAL_JOB_STATUSES)).exists()
    expired = select(Media).where(Media.expires_at < func.now(), Media.storage_key.is_not(None), ~in_use)
    rows = session.scalars(expired.limit(limit).with_for_update(skip_locked=True)).all()
    for media in rows:
        if media.storage_key is not None:
            schedule_deletion(session, media.storage_key)
        media.storage_key = None
        record_event(session, "media.expired", owner=media.owner, actor=Actor(SERVICE), sha256=media.sha256)
    # Credentials name people, and go with the file that they are in.
    session.execute(update(Media).where(Media.id.in_([media.id for media in rows])).values(provenance=null()))
    return len(rows)


def _expire_jobs(session: Session, retention_days: float, limit: int) -> tuple[int, int]:
    old = select(Job.id).where(Job.deleted_at.is_(None), Job.finished_at < func.now() - timedelta(days=retention_days))
    job_ids = session.scalars(old.order_by(Job.finished_at).limit(limit)).all()
    # All at once and in this order: erasing a job locks its file and its batch, whose other jobs must not be locked
    # after that.
    media_ids = session.scalars(
        select(Job.media_id).where(Job.id.in_(job_ids)).order_by(Job.id).with_for_update()
    ).all()
    session.execute(select(Media.id).where(Media.id.in_(media_ids)).order_by(Media.id).with_for_update())
    erased = 0
    for job_id in sorted(job_ids):
        job = lock_job(session, job_id)
        if job is not None:
            delete_job(session, job)
            record_event(session, "job.expired", owner=job.owner, actor=Actor(SERVICE), job_id=job.id)
            erased += 1
    return len(job_ids), erased
