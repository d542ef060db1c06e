"""Queries for jobs and their segments."""

import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload, undefer

from shared.models import Job, Segment
from shared.states import OPEN_SEGMENT_STATUSES


def get_job(session: Session, job_id: uuid.UUID, *, owner: str | None = None) -> Job | None:
    """Return the job with its media and its explanation; None if it was deleted or belongs to another owner."""
    loaded = selectinload(Job.media), selectinload(Job.explanation)
    query = select(Job).options(*loaded).where(Job.id == job_id, Job.deleted_at.is_(None))
    if owner is not None:
        query = query.where(Job.owner == owner)
    return session.scalars(query).one_or_none()


def lock_job(session: Session, job_id: uuid.UUID, *, owner: str | None = None) -> Job | None:
    """Reload the job and lock it until the transaction ends; None if it was deleted or belongs to another owner."""
    query = select(Job).where(Job.id == job_id, Job.deleted_at.is_(None)).with_for_update()
    if owner is not None:
        query = query.where(Job.owner == owner)
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def get_segments(session: Session, job_id: uuid.UUID) -> Sequence[Segment]:
    """Return all segments of a job in order, with every face. It is expensive, and meant for the step that finishes."""
    query = select(Segment).where(Segment.job_id == job_id).order_by(Segment.index)
    return session.scalars(query.options(undefer(Segment.result))).all()


def has_open_segments(session: Session, job_id: uuid.UUID) -> bool:
    """Return whether any segment of the job is pending or running."""
    query = select(Segment.index).where(Segment.job_id == job_id, Segment.status.in_(OPEN_SEGMENT_STATUSES))
    return session.execute(query.limit(1)).first() is not None
