"""
Batches: jobs that one request made together.

A batch ends with its last open job, in the same transaction: whoever ends a job locks the batch before counting the
others. Locks are taken in the order job, batch, and of several of a kind in the order of their ids. Upkeep ends the
batches whose last job a process of the release before has ended.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload

from shared.documents.batches import BatchSummary, summarise
from shared.errors import IdempotencyConflictError
from shared.jobs.creation import insert_or_find, is_replay
from shared.jobs.deliveries import move_batch_deliveries, schedule_batch_end
from shared.models import Batch, BatchItem, Job
from shared.states import OPEN_JOB_STATUSES


@dataclass(frozen=True, slots=True)
class NewBatch:
    """The values of a new batch."""

    owner: str
    api_key_id: uuid.UUID
    webhook_url: str | None
    webhook_events: Sequence[str] | None
    """The events that the receiver gets; None for all."""
    metadata: dict[str, Any]
    idempotency_key: str | None
    request_sha256: str


def create_batch(session: Session, new: NewBatch) -> tuple[Batch, bool]:
    """
    Create a batch without items, or find the one that an earlier request with the same idempotency key created.

    Returns:
        The batch, and whether it is new. Of two concurrent requests, one creates it and the other finds it.

    Raises:
        IdempotencyConflictError: The key belongs to another request.
        UnsettledKeyError: As ``insert_or_find``.
    """
    return insert_or_find(
        new.idempotency_key, lambda: _insert_batch(session, new), lambda: find_replayed_batch(session, new)
    )


def _insert_batch(session: Session, new: NewBatch) -> Batch | None:
    """Insert a batch; return None if another one has its idempotency key."""
    batch = Batch(
        owner=new.owner,
        api_key_id=new.api_key_id,
        webhook_url=new.webhook_url,
        webhook_events=None if new.webhook_events is None else list(new.webhook_events),
        client_metadata=new.metadata,
        idempotency_key=new.idempotency_key,
        request_sha256=new.request_sha256,
    )
    try:
        with session.begin_nested():
            session.add(batch)
    except IntegrityError as error:
        # The insert waited for a concurrent transaction with the same key, which has committed.
        if not is_replay(error):
            raise
        return None
    session.refresh(batch)
    return batch


def find_replayed_batch(session: Session, new: NewBatch) -> Batch | None:
    """
    Return the batch that an earlier request with the same idempotency key created, or None.

    Raises:
        IdempotencyConflictError: The key belongs to another request.
    """
    if new.idempotency_key is None:
        return None
    query = select(Batch).where(Batch.owner == new.owner, Batch.idempotency_key == new.idempotency_key)
    batch = session.scalars(query).one_or_none()
    if batch is not None and batch.request_sha256 != new.request_sha256:
        raise IdempotencyConflictError(
            f"the idempotency key {new.idempotency_key!r} was used before with another batch; use a new key"
        )
    return batch


def find_batch(session: Session, batch_id: uuid.UUID, *, owner: str) -> Batch | None:
    """Return the batch; None if it does not exist or belongs to another owner."""
    return session.scalars(select(Batch).where(Batch.id == batch_id, Batch.owner == owner)).one_or_none()


def lock_jobs_of(session: Session, batch_id: uuid.UUID) -> Sequence[Job]:
    """Lock the jobs of a batch that are not erased, in the order of their ids, and return them."""
    query = select(Job).where(Job.id.in_(_job_ids(batch_id)), Job.deleted_at.is_(None)).order_by(Job.id)
    return session.scalars(query.with_for_update().execution_options(populate_existing=True)).all()


def lock_batches_of(session: Session, job_ids: Iterable[uuid.UUID]) -> None:
    """
    Lock the batches of locked jobs, in the order of their ids.

    Call it before several jobs are ended, each of which locks its batch: another transaction may do so with other jobs
    of the same batches, in another order.
    """
    batch_ids = select(BatchItem.batch_id).where(BatchItem.job_id.in_(job_ids))
    session.execute(select(Batch.id).where(Batch.id.in_(batch_ids)).order_by(Batch.id).with_for_update())


def describe_batch(session: Session, batch: Batch) -> BatchSummary:
    """Return the document of *batch* with its counts."""
    return describe_batches(session, [batch])[0]


def describe_batches(session: Session, batches: Sequence[Batch]) -> list[BatchSummary]:
    """Return the documents of *batches* with their counts, which one query counts together."""
    counts: dict[uuid.UUID, Counter[str]] = {batch.id: Counter() for batch in batches}
    verdicts: dict[uuid.UUID, Counter[str]] = {batch.id: Counter() for batch in batches}
    groups = (BatchItem.batch_id, BatchItem.job_id.is_(None), Job.deleted_at.is_not(None), Job.status, Job.verdict)
    query = (
        select(*groups, func.count())
        .outerjoin(Job, Job.id == BatchItem.job_id)
        .where(BatchItem.batch_id.in_(counts))
        .group_by(*groups)
    )
    for batch_id, refused, erased, status, verdict, number in session.execute(query):
        counts[batch_id]["refused" if refused else "erased" if erased else str(status)] += number
        if verdict is not None and not erased:
            verdicts[batch_id][str(verdict)] += number
    return [summarise(batch, counts[batch.id], verdicts[batch.id]) for batch in batches]


def read_items(session: Session, batch_id: uuid.UUID, *, after: int, limit: int | None) -> Sequence[BatchItem]:
    """Return at most *limit* items of a batch with their jobs, in order, those after the index *after*."""
    query = select(BatchItem).where(BatchItem.batch_id == batch_id, BatchItem.index > after)
    return session.scalars(query.options(selectinload(BatchItem.job)).order_by(BatchItem.index).limit(limit)).all()


def end_batch_of(session: Session, job: Job) -> None:
    """End the batch of a locked *job* that has just ended, if it was the last, and schedule the batch's webhook."""
    batch = _lock_open_batch(session, job.id)
    if batch is not None and not _has_job(session, batch.id, Job.status.in_(OPEN_JOB_STATUSES)):
        _end(session, batch, job)


def leave_batch(session: Session, job: Job) -> None:
    """
    End the batch of a locked *job* that is being erased, if no other job of it is open, and keep its webhook.

    Call it before the deliveries of the job are deleted, and after its status is final.
    """
    item = session.scalars(select(BatchItem).where(BatchItem.job_id == job.id)).one_or_none()
    if item is None:
        return
    session.flush()
    batch = _lock_open_batch(session, job.id)
    is_over = batch is not None and not _has_job(session, batch.id, Job.status.in_(OPEN_JOB_STATUSES))
    # Without waiting for locks, since another transaction may hold that job and wait for the batch. If all are locked,
    # upkeep ends the batch.
    others = select(Job).where(Job.id.in_(_job_ids(item.batch_id)), Job.id != job.id, Job.deleted_at.is_(None))
    carrier = session.scalars(others.order_by(Job.id).limit(1).with_for_update(skip_locked=True)).one_or_none()
    if carrier is not None:
        move_batch_deliveries(session, job.id, carrier)
        if batch is not None and is_over:
            _end(session, batch, carrier)


def drop_batch_of(session: Session, job_id: uuid.UUID) -> None:
    """Delete the batch of a job that was erased, if no other job is left in it, with the metadata of its sender."""
    batch_id = session.scalar(select(BatchItem.batch_id).where(BatchItem.job_id == job_id))
    if batch_id is None:
        return
    session.execute(select(Batch.id).where(Batch.id == batch_id).with_for_update())
    if not _has_job(session, batch_id):
        session.execute(delete(Batch).where(Batch.id == batch_id))


def settle_batches(session: Session, limit: int) -> int:
    """
    End at most *limit* batches all of whose jobs have ended; return their number.

    A process of the release before ends jobs without regard to batches.
    """
    settled = 0
    query = select(Batch.id).where(Batch.ended_at.is_(None), ~_some_job(Job.status.in_(OPEN_JOB_STATUSES)))
    for batch_id in session.scalars(query.order_by(Batch.id).limit(limit)).all():
        left = select(Job).where(Job.id.in_(_job_ids(batch_id)), Job.deleted_at.is_(None)).order_by(Job.id)
        job = session.scalars(left.limit(1).with_for_update(skip_locked=True)).one_or_none()
        if job is not None:
            end_batch_of(session, job)
            settled += 1
    return settled


def drop_erased_batches(session: Session, limit: int) -> int:
    """Delete at most *limit* batches whose jobs a process of the release before has erased; return their number."""
    erased = select(Batch.id).where(~_some_job(Job.deleted_at.is_(None))).limit(limit)
    batch_ids = session.scalars(erased.with_for_update(skip_locked=True)).all()
    session.execute(delete(Batch).where(Batch.id.in_(batch_ids)))
    return len(batch_ids)


def _end(session: Session, batch: Batch, job: Job) -> None:
    batch.ended_at = func.now()
    session.flush()
    session.refresh(batch)
    if batch.webhook_url is not None:
        schedule_batch_end(session, job, batch, describe_batch(session, batch).to_json())


def _lock_open_batch(session: Session, job_id: uuid.UUID) -> Batch | None:
    """Return the batch of a job, locked and read again; None if it has none, or one that has ended."""
    batch_id = session.scalar(select(BatchItem.batch_id).where(BatchItem.job_id == job_id))
    if batch_id is None:
        return None
    query = select(Batch).where(Batch.id == batch_id, Batch.ended_at.is_(None)).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def _has_job(session: Session, batch_id: uuid.UUID, *conditions: ColumnElement[bool]) -> bool:
    query = select(Job.id).where(Job.id.in_(_job_ids(batch_id)), Job.deleted_at.is_(None), *conditions)
    return session.scalar(query.limit(1)) is not None


def _some_job(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(BatchItem.batch_id == Batch.id, BatchItem.job_id == Job.id, condition)


def _job_ids(batch_id: uuid.UUID) -> Any:
    return select(BatchItem.job_id).where(BatchItem.batch_id == batch_id, BatchItem.job_id.is_not(None))
