"""
The audit log: who did what, and when.

An event is added in the transaction of the change that it describes, and is never changed. The database refuses to
change or remove events (``migrations/versions/0002_audit_events.py``), except for retention. No event holds content: no
file name, no URL, no metadata, no score; of a review it holds the finding and no note.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from shared.models import AuditEvent

Action = Literal[
    "key.created",
    "key.revoked",
    "upload.announced",
    "job.submitted",
    "job.cancelled",
    "job.rescored",
    "job.explained",
    "job.reviewed",
    "report.shared",
    "report.unshared",
    "job.erased",
    "batch.submitted",
    "batch.cancelled",
    "batch.erased",
    "stream.begun",
    "stream.stopped",
    "stream.erased",
    "job.expired",
    "media.expired",
    "delivery.repeated",
]
OPERATOR: Final = "operator"
"""The actor of commands that are run with access to the database."""
SERVICE: Final = "service"
"""The actor of changes that the service makes on its own, such as expiry."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The person or program that makes a change."""

    name: str
    """The name of a key, ``operator`` or ``service``."""
    api_key_id: uuid.UUID | None = None
    address: str | None = None
    request_id: str | None = None


def record_event(
    session: Session, action: Action, *, owner: str, actor: Actor, job_id: uuid.UUID | None = None, **detail: Any
) -> None:
    """Add an event to the transaction of *session*."""
    session.add(
        AuditEvent(
            action=action,
            owner=owner,
            actor=actor.name,
            api_key_id=actor.api_key_id,
            job_id=job_id,
            address=actor.address,
            request_id=actor.request_id,
            detail=detail,
        )
    )


def list_events(
    session: Session,
    *,
    since: datetime | None = None,
    owner: str | None = None,
    job_id: uuid.UUID | None = None,
) -> Iterable[AuditEvent]:
    """List events in order of time, loading one batch at a time."""
    query = select(AuditEvent).order_by(AuditEvent.at, AuditEvent.id)
    if since is not None:
        query = query.where(AuditEvent.at >= since)
    if owner is not None:
        query = query.where(AuditEvent.owner == owner)
    if job_id is not None:
        query = query.where(AuditEvent.job_id == job_id)
    return session.scalars(query.execution_options(yield_per=500))


def expire_events(session: Session, retention_days: float) -> int:
    """Remove events that are older than *retention_days* and return how many there were."""
    before = session.scalar(select(func.now() - timedelta(days=retention_days)))
    if before is None:
        return 0
    # The trigger of migration 0002 allows the removal only while this is set, in this transaction.
    session.execute(
        text("select set_config('deepfakestream.audit_expires_before', :before, true)"), {"before": before.isoformat()}
    )
    done = session.execute(delete(AuditEvent).where(AuditEvent.at < before))
    session.execute(text("select set_config('deepfakestream.audit_expires_before', '', true)"))
    return int(done.rowcount)  # type: ignore[attr-defined]
