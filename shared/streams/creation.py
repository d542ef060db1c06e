"""Creation of live streams."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.jobs.creation import NewJob, create_job
from shared.models import Job, Stream
from shared.states import OPEN_JOB_STATUSES, Recording, StreamState
from shared.streams.keys import digest_key

NEVER_DUE: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""When the job of a stream that is not over is due: releases without streams would take it for one to inspect."""


@dataclass(frozen=True, slots=True)
class NewStream:
    """The values of a new stream, beside those of its job."""

    url: str
    """
    As ``shared.outbound.check_source_url`` accepts it; of a stream that is published to the service, the address for
    the publisher.
    """
    username: str | None
    password: str | None
    duration_limit_s: float
    alert_threshold: float | None
    record: Recording
    push_key: str | None = None
    """The key of a stream that is published to the service; None for one that is pulled from *url*."""
    last_faces: bool = False
    """Whether pictures of the newest faces are kept while it runs."""

    def __repr__(self) -> str:
        """Hide address and credentials."""
        return f"NewStream({describe_source(self.url)})"


def describe_source(url: str) -> str:
    """Return scheme and host of *url*, for people. A path is often a key, so it is left out."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"


def create_stream(session: Session, new_job: NewJob, new: NewStream) -> tuple[Job, bool]:
    """
    Create a stream with its job, or find the job that an earlier request with the same idempotency key created.

    Returns:
        The job, and whether it is new.

    Raises:
        IdempotencyConflictError: The key belongs to another request.
    """
    job, is_new = create_job(session, new_job)
    if is_new:
        job.sent_at, job.send_after = None, NEVER_DUE
        is_pushed = new.push_key is not None
        session.add(
            Stream(
                job_id=job.id,
                source=new.url if is_pushed else describe_source(new.url),
                secret=None if is_pushed else {"url": new.url, "username": new.username, "password": new.password},
                push_key_sha256=None if new.push_key is None else digest_key(new.push_key),
                away_since=func.now() if is_pushed else None,
                duration_limit_s=new.duration_limit_s,
                alert_threshold=new.alert_threshold,
                record=new.record,
                last_faces=new.last_faces,
                state=StreamState.WAITING,
            )
        )
        session.flush()
    return job, is_new


def count_open_streams(session: Session, owner: str) -> int:
    """Return the number of streams of *owner* that have not ended."""
    query = select(func.count()).select_from(Stream).join(Job, Job.id == Stream.job_id)
    query = query.where(Stream.ended_at.is_(None), Job.owner == owner, Job.status.in_(OPEN_JOB_STATUSES))
    return session.scalar(query) or 0
