"""
Webhook deliveries: one row for every attempt, so that the log is the queue and the queue is the log.

A failed attempt schedules the next one by inserting its row. A receiver that answers 410 is switched off: nothing
more is scheduled for that owner and address until somebody asks to send again and succeeds.
"""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, selectinload

from shared.models import Delivery, Job
from shared.states import DeliveryStatus

GONE = 410


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt went."""

    delivered: bool
    response_status: int | None = None
    response_excerpt: str | None = None
    """At most 1 KB of what the receiver said."""
    error_code: str | None = None
    retry_after_s: float | None = None
    """What the receiver asked for."""
    is_final: bool = False
    """Whether repeating it could not help."""


def announce(session: Session, job: Job) -> uuid.UUID | None:
    """
    Schedule the first delivery of a job that has just ended.

    Returns:
        The delivery to send after the commit; None without a webhook or where the receiver is switched off.
    """
    if job.webhook_url is None or is_switched_off(session, job.owner, job.webhook_url):
        return None
    delivery = Delivery(
        job_id=job.id,
        number=1,
        event_id=f"msg_{job.id.hex}",
        event=f"job.{job.status}",
        url=job.webhook_url,
        sent_at=func.now(),
    )
    session.add(delivery)
    session.flush()
    return delivery.id


def is_switched_off(session: Session, owner: str, url: str) -> bool:
    """Whether this owner's receiver last answered 410 Gone."""
    latest = session.scalar(
        select(Delivery.response_status)
        .join(Delivery.job)
        .where(Job.owner == owner, Delivery.url == url, Delivery.finished_at.is_not(None))
        .order_by(Delivery.finished_at.desc())
        .limit(1)
    )
    return latest == GONE


def list_deliveries(session: Session, job_id: uuid.UUID) -> Sequence[Delivery]:
    """The webhook log of a job, oldest attempt first."""
    return session.scalars(select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.number)).all()


def lease_delivery(session: Session, delivery_id: uuid.UUID, lease_s: float) -> tuple[Delivery, uuid.UUID] | None:
    """Begin an attempt that is due, unless somebody is at it; the token fences its record."""
    query = select(Delivery).where(Delivery.id == delivery_id).options(selectinload(Delivery.job))
    delivery = session.scalars(query.with_for_update(of=Delivery, skip_locked=True)).one_or_none()
    if delivery is None or delivery.status not in ("pending", "sending"):
        return None
    now = session.scalar(select(func.now()))
    if now is None or delivery.due_at > now or (delivery.leased_until and delivery.leased_until > now):
        return None
    token = uuid.uuid4()
    delivery.status, delivery.lease_token = DeliveryStatus.SENDING, token
    delivery.leased_until = now + timedelta(seconds=lease_s)
    delivery.started_at = now
    session.flush()
    return delivery, token


def record_attempt(
    session: Session,
    delivery_id: uuid.UUID,
    token: uuid.UUID,
    attempt: Attempt,
    schedule_s: Sequence[float],
) -> None:
    """Log how an attempt went and schedule the next one if it failed and the schedule has one left."""
    delivery = session.get(Delivery, delivery_id, with_for_update=True)
    if delivery is None or delivery.lease_token != token:
        return
    delivery.status = DeliveryStatus.SUCCEEDED if attempt.delivered else DeliveryStatus.FAILED
    delivery.finished_at = func.now()
    delivery.lease_token = delivery.leased_until = None
    delivery.response_status = attempt.response_status
    delivery.response_excerpt = attempt.response_excerpt
    delivery.error_code = attempt.error_code
    session.flush()
    if attempt.delivered or attempt.is_final or not delivery.automatic or delivery.retries >= len(schedule_s):
        return
    # Jitter keeps the retries of many jobs from arriving together.
    wait_s = schedule_s[delivery.retries] * random.uniform(1.0, 1.2)  # noqa: S311 - jitter, not a secret
    _add(
        session,
        delivery,
        retries=delivery.retries + 1,
        automatic=True,
        wait_s=max(wait_s, min(attempt.retry_after_s or 0.0, 86400.0)),
    )


def redeliver(session: Session, delivery: Delivery) -> Delivery:
    """Send the event of *delivery* once more, now: same ``webhook-id``, a row of its own, no automatic retries."""
    return _add(session, delivery, retries=0, automatic=False, wait_s=0.0)


def call_off(session: Session, job_id: uuid.UUID) -> None:
    """Forget every delivery of a job that is being erased."""
    session.execute(delete(Delivery).where(Delivery.job_id == job_id))


def take_due(session: Session, resend_after_s: float, limit: int) -> Sequence[uuid.UUID]:
    """Deliveries that are due and whose message is owed or was lost; marks them as sent."""
    due = (
        select(Delivery.id)
        .where(
            Delivery.status.in_(("pending", "sending")),
            Delivery.due_at <= func.now(),
            Delivery.leased_until.is_(None) | (Delivery.leased_until < func.now()),
            Delivery.sent_at.is_(None) | (Delivery.sent_at < func.now() - timedelta(seconds=resend_after_s)),
        )
        .order_by(Delivery.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return session.scalars(
        update(Delivery).where(Delivery.id.in_(due)).values(sent_at=func.now()).returning(Delivery.id)
    ).all()


def _add(session: Session, like: Delivery, *, retries: int, automatic: bool, wait_s: float) -> Delivery:
    last = session.scalar(select(func.max(Delivery.number)).where(Delivery.job_id == like.job_id)) or 0
    row = Delivery(
        job_id=like.job_id,
        number=last + 1,
        event_id=like.event_id,
        event=like.event,
        url=like.url,
        retries=retries,
        automatic=automatic,
        due_at=func.now() + timedelta(seconds=wait_s),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row
