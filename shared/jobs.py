"""
The life of a job: every change of state, as functions that take a session and flush at most.

    queued ──lease_ingest──► running ──record_plan, record_segment…──► succeeded
       │                        │
       └──────── fail_job, cancel_job ────────► failed | cancelled

Whoever works on a row holds a lease: a token and a time, both in the row. Every write of a result names the
token, so a worker that was taken for dead and comes back cannot overwrite its successor. Functions that change a
job lock its row first, which orders them; "the last open segment" is therefore seen by exactly one transaction.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Update, func, null, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload

from shared.deliveries import announce, call_off
from shared.direct import drop_upload
from shared.errors import DeepfakeStreamError, IdempotencyConflictError, JobCancelledError
from shared.models import FINAL_JOB_STATUSES, OPEN_JOB_STATUSES, OPEN_SEGMENT_STATUSES, Job, Media, Segment
from shared.removals import owe_removal


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one step of a job, until it runs out unrenewed."""

    job_id: uuid.UUID
    index: int | None
    """The segment, or None for ingest."""
    token: uuid.UUID
    attempt: int
    """1 for the first."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how soon, a failed step is tried again."""

    max_attempts: int
    backoff_s: float

    def after(self, attempt: int) -> timedelta:
        """The wait after the *attempt*-th failure: it doubles each time."""
        return timedelta(seconds=self.backoff_s * 2 ** (attempt - 1))


@dataclass(frozen=True, slots=True)
class Released:
    """What is to be sent after a step was given back and the transaction committed."""

    can_finish: bool = False
    """No segment is open any more."""
    has_failed: bool = False
    """The job has ended with it."""
    delivery_id: uuid.UUID | None = None
    """The webhook delivery that says so, if there is one."""


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
    verdict: str
    reasons: Sequence[str]
    model_description: dict[str, Any]
    evidence: dict[str, Any] | None = None
    findings: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a job is made of."""

    owner: str
    api_key_id: uuid.UUID
    media: Media | None
    """Stored already, or None if *source_url* is to be fetched, or *source_key* to be taken over."""
    source_url: str | None
    source_key: str | None
    source_sha256: str | None
    """What the file below *source_key* has to be, where its sender said so."""
    model: str
    sample_fps: float
    segment_seconds: float
    webhook_url: str | None
    metadata: dict[str, Any]
    idempotency_key: str | None
    request_sha256: str


def create_job(session: Session, new: NewJob) -> tuple[Job, bool]:
    """
    Add a queued job, or find the one that the same request made before under its idempotency key.

    Returns:
        The job, and whether it is new. Of two requests that race, one makes it and the other finds it.

    Raises:
        IdempotencyConflictError: The key belongs to another request.
    """
    job = Job(
        owner=new.owner,
        api_key_id=new.api_key_id,
        media=new.media,
        source_url=new.source_url,
        source_key=new.source_key,
        source_sha256=new.source_sha256,
        status="queued",
        model=new.model,
        sample_fps=new.sample_fps,
        segment_seconds=new.segment_seconds,
        webhook_url=new.webhook_url,
        client_metadata=new.metadata,
        reasons=[],
        idempotency_key=new.idempotency_key,
        request_sha256=new.request_sha256,
        sent_at=func.now(),
    )
    try:
        with session.begin_nested():
            session.add(job)
    except IntegrityError:
        # The other transaction has committed: the insert waited for it.
        found = _find_replay(session, new)
        if found is None:
            raise
        return found, False
    session.refresh(job)
    return job, True


def _find_replay(session: Session, new: NewJob) -> Job | None:
    query = select(Job).where(Job.owner == new.owner, Job.idempotency_key == new.idempotency_key)
    job = session.scalars(query.options(selectinload(Job.media))).one_or_none()
    if job is not None and job.request_sha256 != new.request_sha256:
        raise IdempotencyConflictError(
            f"the idempotency key {new.idempotency_key!r} was used before, with another file or other options"
        )
    return job


def get_job(session: Session, job_id: uuid.UUID, *, owner: str | None = None) -> Job | None:
    """The job with its media, unless it was deleted or belongs to another owner."""
    query = select(Job).options(selectinload(Job.media)).where(Job.id == job_id, Job.deleted_at.is_(None))
    if owner is not None:
        query = query.where(Job.owner == owner)
    return session.scalars(query).one_or_none()


def lock_job(session: Session, job_id: uuid.UUID, *, owner: str | None = None) -> Job | None:
    """The job as it is now, locked until the transaction ends; None if it was deleted or is another owner's."""
    query = select(Job).where(Job.id == job_id, Job.deleted_at.is_(None)).with_for_update()
    if owner is not None:
        query = query.where(Job.owner == owner)
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def get_segments(session: Session, job_id: uuid.UUID) -> Sequence[Segment]:
    """All segments of a job, in order."""
    return session.scalars(select(Segment).where(Segment.job_id == job_id).order_by(Segment.index)).all()


def lease_ingest(session: Session, job_id: uuid.UUID, lease_s: float) -> Lease | None:
    """
    Begin ingest, unless somebody is at it, it is done, or the job has ended.

    The job is running from its first lease on.
    """
    token = uuid.uuid4()
    attempt = session.execute(
        update(Job)
        .where(
            Job.id == job_id,
            Job.deleted_at.is_(None),
            Job.status.in_(OPEN_JOB_STATUSES),
            Job.segments_total.is_(None),
            _is_free(Job.leased_until),
        )
        .values(
            status="running",
            started_at=func.coalesce(Job.started_at, func.now()),
            attempts=Job.attempts + 1,
            lease_token=token,
            leased_until=_in(lease_s),
            sent_at=func.coalesce(Job.sent_at, func.now()),
        )
        .returning(Job.attempts)
    ).scalar_one_or_none()
    return None if attempt is None else Lease(job_id, None, token, attempt)


def lease_segment(session: Session, job_id: uuid.UUID, index: int, lease_s: float) -> Lease | None:
    """Begin one segment, unless somebody is at it, it is done, or the job is not running."""
    token = uuid.uuid4()
    is_running = select(Job.id).where(Job.id == job_id, Job.status == "running", Job.deleted_at.is_(None)).exists()
    attempt = session.execute(
        update(Segment)
        .where(
            Segment.job_id == job_id,
            Segment.index == index,
            Segment.status.in_(OPEN_SEGMENT_STATUSES),
            _is_free(Segment.leased_until),
            is_running,
        )
        .values(
            status="running",
            started_at=func.coalesce(Segment.started_at, func.now()),
            attempts=Segment.attempts + 1,
            lease_token=token,
            leased_until=_in(lease_s),
            sent_at=func.coalesce(Segment.sent_at, func.now()),
        )
        .returning(Segment.attempts)
    ).scalar_one_or_none()
    return None if attempt is None else Lease(job_id, index, token, attempt)


def renew_lease(session: Session, lease: Lease, lease_s: float) -> bool:
    """Hold the lease for longer; False if it was lost or the job is not running any more."""
    renewed = session.execute(_held(lease).values(leased_until=_in(lease_s))).rowcount  # type: ignore[attr-defined]
    return bool(renewed) and session.scalar(select(Job.status).where(Job.id == lease.job_id)) == "running"


def record_source(session: Session, lease: Lease, media: Media) -> None:
    """Attach the media that the job's source has become. Raises JobCancelledError if the lease was lost."""
    job = _job_of(session, lease)
    job.media = media
    _drop_source(session, job)


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
    job = _job_of(session, lease)
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
    job = _job_of(session, lease)
    status = "unscorable" if fake_score is None else "scored"
    found = {"fake_score": fake_score, "result": result, "looks": list(looks)}
    session.execute(_held(lease).values(status=status, finished_at=func.now(), **found, **_NO_LEASE))
    return not has_open_segments(session, job.id)


def release_lease(session: Session, lease: Lease, error: DeepfakeStreamError, retry: Retry) -> Released:
    """
    Give a step back after *error*: to be tried again, or failed for good once its attempts are used up.

    A segment that fails for good leaves the job running for the sake of its other segments; ingest that does
    fails the job.

    Raises:
        JobCancelledError: The lease was lost or the job has ended, so there is nothing to give back.
    """
    job = _job_of(session, lease)
    if error.retryable and lease.attempt < retry.max_attempts:
        status = {} if lease.index is None else {"status": "pending"}
        again = func.now() + retry.after(lease.attempt)
        session.execute(_held(lease).values(sent_at=None, send_after=again, **status, **_NO_LEASE))
        return Released()
    if lease.index is None:
        return Released(has_failed=True, delivery_id=end_job(session, job, "failed", error=Problem.of(error)))
    session.execute(
        _held(lease).values(
            status="failed",
            error_code=error.code,
            error_detail=str(error),
            finished_at=func.now(),
            **_NO_LEASE,
        )
    )
    return Released(can_finish=not has_open_segments(session, job.id))


def has_open_segments(session: Session, job_id: uuid.UUID) -> bool:
    """Whether any segment of the job is still to be done."""
    query = select(Segment.index).where(Segment.job_id == job_id, Segment.status.in_(OPEN_SEGMENT_STATUSES))
    return session.execute(query.limit(1)).first() is not None


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
    job.status = status
    job.finished_at = func.now()
    job.lease_token = job.leased_until = None
    # Of a job that ends before it could take its direct upload over; nobody can ask for it again.
    _drop_source(session, job)
    # Whoever works on one of its segments finds the lease gone and stops.
    session.execute(
        update(Segment)
        .where(Segment.job_id == job.id, Segment.status == "running")
        .values(status="pending", **_NO_LEASE)
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


def forget_looks(session: Session) -> None:
    """Forget what people look like in jobs of the last day that a release ended which does not know of looks."""
    ended = select(Job.id).where(Job.status.in_(FINAL_JOB_STATUSES), Job.finished_at > func.now() - timedelta(days=1))
    _forget_looks(session, Segment.job_id.in_(ended))


def _forget_looks(session: Session, which: ColumnElement[bool]) -> None:
    session.execute(update(Segment).where(which, Segment.looks.is_not(None)).values(looks=null()))


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
        job.status, job.finished_at = "cancelled", func.now()
    call_off(session, job.id)
    for segment in get_segments(session, job.id):
        session.delete(segment)
    storage_key = _drop_source(session, job)
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


def _drop_source(session: Session, job: Job) -> str | None:
    """Give up the direct upload that the job was made of, if any; its storage key, which is owed."""
    storage_key, job.source_key = job.source_key, None
    if storage_key is not None:
        drop_upload(session, storage_key)
        owe_removal(session, storage_key)
    return storage_key


_NO_LEASE: dict[str, Any] = {"lease_token": None, "leased_until": None}


def _job_of(session: Session, lease: Lease) -> Job:
    """The running job of a lease that is still held, locked."""
    job = lock_job(session, lease.job_id)
    if job is None or job.status != "running":
        raise JobCancelledError("the job has ended")
    if lease.index is None:
        held = job.lease_token == lease.token
    else:
        query = select(Segment.lease_token).where(
            Segment.job_id == lease.job_id, Segment.index == lease.index, Segment.status == "running"
        )
        held = session.scalar(query.with_for_update()) == lease.token
    if not held:
        raise JobCancelledError("another worker has taken over")
    return job


def _held(lease: Lease) -> Update:
    """An update of the leased row that does nothing unless the lease is still held."""
    if lease.index is None:
        return update(Job).where(Job.id == lease.job_id, Job.lease_token == lease.token)
    return update(Segment).where(
        Segment.job_id == lease.job_id, Segment.index == lease.index, Segment.lease_token == lease.token
    )


def _is_free(leased_until: Any) -> ColumnElement[bool]:
    return leased_until.is_(None) | (leased_until < func.now())  # type: ignore[no-any-return]


def _in(seconds: float) -> ColumnElement[Any]:
    return func.now() + timedelta(seconds=seconds)
