"""Creation of jobs, once for each idempotency key."""

import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload
from sqlalchemy.orm.attributes import set_committed_value

from shared.errors import IdempotencyConflictError, UnsettledKeyError
from shared.models import Explanation, Job, Media
from shared.states import JobStatus

_Row = TypeVar("_Row")

MAX_ATTEMPTS: Final = 5
"""How often a row with an idempotency key is inserted that is taken each time, and free again when it is looked up."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """The values of a new job."""

    owner: str
    api_key_id: uuid.UUID
    media: Media | None
    """The stored file; None if ingest fetches *source_url* or takes the direct upload *source_key*."""
    source_url: str | None
    source_key: str | None
    source_sha256: str | None
    """The expected digest of the direct upload, if its sender gave one."""
    manifest: dict[str, Any]
    """The pinned manifest of the job's checkpoint; see ``Manifest.pin``."""
    sample_fps: float
    segment_seconds: float
    webhook_url: str | None
    metadata: dict[str, Any]
    idempotency_key: str | None
    request_sha256: str
    parent_id: uuid.UUID | None = None
    """The job whose media this one scores again."""
    webhook_events: Sequence[str] | None = None
    """The events that the receiver gets; None for all."""
    explain: bool = False
    """Whether its faces are explained once it has succeeded."""


def create_job(session: Session, new: NewJob) -> tuple[Job, bool]:
    """
    Create a queued job, or find the one that an earlier request with the same idempotency key created.

    Returns:
        The job, and whether it is new. Of two concurrent requests, one creates the job and the other finds it.

    Raises:
        IdempotencyConflictError: The key belongs to another request.
        UnsettledKeyError: The key was taken and free in turn, ``MAX_ATTEMPTS`` times.
    """
    return insert_or_find(
        new.idempotency_key,
        lambda: _insert_job(session, new),
        lambda: find_replayed_job(session, new.owner, new.idempotency_key, new.request_sha256),
    )


def insert_or_find(
    key: str | None, insert: Callable[[], _Row | None], find: Callable[[], _Row | None]
) -> tuple[_Row, bool]:
    """
    Insert a row, or find the one that has its idempotency key *key* already; return it and whether it is new.

    Args:
        insert: Returns None if another row has the key.
        find: Returns None if that row was erased meanwhile, so that the key is free again.

    Raises:
        UnsettledKeyError: The key was taken and free in turn, ``MAX_ATTEMPTS`` times.
    """
    for _ in range(MAX_ATTEMPTS):
        if (inserted := insert()) is not None:
            return inserted, True
        if (found := find()) is not None:
            return found, False
    raise UnsettledKeyError(f"the idempotency key {key!r} was taken and free in turn; send it again")


def create_jobs(session: Session, new: Sequence[NewJob]) -> list[Job]:
    """
    Create queued jobs, which have no idempotency keys, and return them in the same order.

    All rows are inserted by one statement.
    """
    # A value, since rows with an expression of SQL are inserted one at a time.
    now = session.scalars(select(func.now())).one()
    jobs = [_make_job(each, sent_at=now) for each in new]
    session.add_all(jobs)
    session.flush()
    for job, each in zip(jobs, new, strict=True):
        _begin_explanation(session, job, each)
    session.flush()
    return jobs


def _insert_job(session: Session, new: NewJob) -> Job | None:
    """Insert a job; return None if another one has its idempotency key."""
    job = _make_job(new, sent_at=func.now())
    try:
        # Only a key can be in conflict with another row.
        with nullcontext() if new.idempotency_key is None else session.begin_nested():
            session.add(job)
            session.flush()
            _begin_explanation(session, job, new)
            session.flush()
    except IntegrityError as error:
        # The insert waited for a concurrent transaction with the same key, which has committed.
        if not is_replay(error):
            raise
        return None
    return job


def _make_job(new: NewJob, *, sent_at: datetime | ColumnElement[datetime]) -> Job:
    return Job(
        owner=new.owner,
        api_key_id=new.api_key_id,
        media=new.media,
        source_url=new.source_url,
        source_key=new.source_key,
        source_sha256=new.source_sha256,
        status=JobStatus.QUEUED,
        model=new.manifest["name"],
        manifest=new.manifest,
        sample_fps=new.sample_fps,
        segment_seconds=new.segment_seconds,
        webhook_url=new.webhook_url,
        webhook_events=None if new.webhook_events is None else list(new.webhook_events),
        client_metadata=new.metadata,
        reasons=[],
        idempotency_key=new.idempotency_key,
        request_sha256=new.request_sha256,
        parent_id=new.parent_id,
        sent_at=sent_at,
    )


def _begin_explanation(session: Session, job: Job, new: NewJob) -> None:
    """Add the explanation of an inserted job, if one is wanted."""
    if new.explain:
        session.add(Explanation(job_id=job.id))
    else:
        # It is known that there is none, so that nobody needs to query it.
        set_committed_value(job, "explanation", None)


def is_replay(error: IntegrityError) -> bool:
    """Return whether an insert was refused since a row of its owner has the same idempotency key."""
    constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    return constraint in ("uq_jobs_owner", "uq_batches_owner")


def find_replayed_job(session: Session, owner: str, idempotency_key: str | None, request_sha256: str) -> Job | None:
    """
    Return the job that an earlier request with the same idempotency key created, or None.

    Raises:
        IdempotencyConflictError: The key belongs to another request.
    """
    if idempotency_key is None:
        return None
    query = select(Job).where(Job.owner == owner, Job.idempotency_key == idempotency_key)
    job = session.scalars(query.options(selectinload(Job.media))).one_or_none()
    if job is not None and job.request_sha256 != request_sha256:
        raise IdempotencyConflictError(
            f"the idempotency key {idempotency_key!r} was used before with another file or other options; use a new key"
        )
    return job
