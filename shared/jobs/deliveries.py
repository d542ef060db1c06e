"""
Webhook deliveries: one row for every attempt, so that the table is both queue and log.

A failed attempt schedules the next one by inserting its row. A receiver that answers 410 is switched off: nothing more
is scheduled for that owner and address until a requested redelivery succeeds.
"""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from shared.db import after_commit
from shared.models import Batch, Delivery, Job
from shared.observability import WEBHOOK_ATTEMPTS
from shared.queues import DELIVER_WEBHOOK
from shared.states import OPEN_DELIVERY_STATUSES, DeliveryStatus, WebhookEvent

MAX_RETRY_AFTER_S = 86400.0
"""The longest ``Retry-After`` of a receiver that is honoured."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of one attempt."""

    delivered: bool
    response_status: int | None = None
    response_excerpt: str | None = None
    """At most 1 KB of the receiver's response body."""
    error_code: str | None = None
    retry_after_s: float | None = None
    """The receiver's ``Retry-After``."""
    is_final: bool = False
    """Whether a retry cannot help."""


def schedule_webhook(session: Session, job: Job, event: WebhookEvent | None = None) -> None:
    """
    Schedule the first delivery of a job that has just ended.

    Nothing is scheduled without a webhook, if its receiver is switched off, or if the event is not among those that it
    is to get.

    Args:
        event: By default the event of the job's status.
    """
    chosen = event or WebhookEvent(f"job.{job.status}")
    _schedule(session, job, job, chosen, event_id=f"msg_{job.id.hex}", payload=None)


def schedule_alert(session: Session, job: Job, seq: int, data: dict[str, Any]) -> None:
    """
    Schedule the first delivery of the alert of a live stream, whose job is locked, as ``schedule_webhook`` does.

    Args:
        seq: Number of the alert among the stream's events.
        data: What the receiver gets.
    """
    _schedule(session, job, job, WebhookEvent.STREAM_ALERT, event_id=f"msg_{job.id.hex}_{seq}", payload=data)


def schedule_batch_end(session: Session, job: Job, batch: Batch, data: dict[str, Any]) -> None:
    """
    Schedule the first delivery of the end of a batch, as ``schedule_webhook`` does for a job.

    Args:
        job: A locked job of the batch, whose log has the delivery.
        batch: The batch.
        data: What the receiver gets.
    """
    _schedule(session, job, batch, WebhookEvent.BATCH_ENDED, event_id=f"msg_{batch.id.hex}", payload=data)


def move_batch_deliveries(session: Session, job_id: uuid.UUID, carrier: Job) -> None:
    """Move the open deliveries of the end of a batch from a locked job to the log of *carrier*, which is locked."""
    query = select(Delivery).where(
        Delivery.job_id == job_id,
        Delivery.event == WebhookEvent.BATCH_ENDED,
        Delivery.status.in_(OPEN_DELIVERY_STATUSES),
    )
    for delivery in session.scalars(query).all():
        delivery.number, delivery.job_id = _next_number(session, carrier.id), carrier.id
        if delivery.status == DeliveryStatus.SENDING:
            # The attempt cannot be recorded any more. It is made again, with the same id of the event.
            delivery.status, delivery.lease_token, delivery.leased_until = DeliveryStatus.PENDING, None, None
            delivery.sent_at = None
        session.flush()


def _schedule(
    session: Session,
    job: Job,
    subject: Job | Batch,
    event: WebhookEvent,
    *,
    event_id: str,
    payload: dict[str, Any] | None,
) -> None:
    """
    Schedule the first delivery of an *event*.

    Args:
        job: The job whose log has the delivery.
        subject: What the event is about, which has the webhook.
        event_id: The ``webhook-id``.
        payload: The data of the event; see ``Delivery.payload``.
    """
    url, wanted = subject.webhook_url, subject.webhook_events
    if url is None or (wanted is not None and event not in wanted) or is_switched_off(session, job.owner, url):
        return
    delivery = Delivery(
        job_id=job.id,
        number=_next_number(session, job.id),
        event_id=event_id,
        event=event,
        url=url,
        sent_at=func.now(),
        payload=payload,
    )
    session.add(delivery)
    session.flush()
    after_commit(session).send(DELIVER_WEBHOOK, delivery_id=delivery.id)


def is_switched_off(session: Session, owner: str, url: str) -> bool:
    """Return whether the owner's receiver at *url* last answered 410 Gone."""
    latest = session.scalar(
        select(Delivery.response_status)
        .join(Delivery.job)
        .where(Job.owner == owner, Delivery.url == url, Delivery.finished_at.is_not(None))
        .order_by(Delivery.finished_at.desc())
        .limit(1)
    )
    return latest == HTTPStatus.GONE


def list_deliveries(session: Session, job_id: uuid.UUID) -> Sequence[Delivery]:
    """Return the webhook log of a job, oldest attempt first."""
    return session.scalars(select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.number)).all()


def end_attempt(session: Session, delivery: Delivery, attempt: Attempt, schedule_s: Sequence[float]) -> None:
    """
    Record the outcome of a locked delivery's attempt, and schedule the next if it failed and one is left.

    The job must be locked as well, since its lock serialises the numbering of attempts.

    Args:
        schedule_s: Waits before the second attempt, the third, and so on.
    """
    delivery.status = DeliveryStatus.SUCCEEDED if attempt.delivered else DeliveryStatus.FAILED
    delivery.finished_at = func.now()
    delivery.lease_token = delivery.leased_until = None
    delivery.response_status = attempt.response_status
    delivery.response_excerpt = attempt.response_excerpt
    delivery.error_code = attempt.error_code
    session.flush()
    after_commit(session).count(WEBHOOK_ATTEMPTS.labels(outcome="delivered" if attempt.delivered else "failed").inc)
    if attempt.delivered or attempt.is_final or not delivery.automatic or delivery.retries >= len(schedule_s):
        return
    # Jitter spreads the retries of many jobs.
    wait_s = schedule_s[delivery.retries] * random.uniform(1.0, 1.2)  # noqa: S311 - jitter, not a secret
    wait_s = max(wait_s, min(attempt.retry_after_s or 0.0, MAX_RETRY_AFTER_S))
    _add_delivery(session, delivery, retries=delivery.retries + 1, automatic=True, wait_s=wait_s)


def redeliver(session: Session, delivery: Delivery) -> Delivery:
    """
    Send the event of *delivery* again now, with the same ``webhook-id``, as a new row without automatic retries.

    The job must be locked, since its lock serialises the numbering of attempts.
    """
    again = _add_delivery(session, delivery, retries=0, automatic=False, wait_s=0.0)
    after_commit(session).send(DELIVER_WEBHOOK, delivery_id=again.id)
    return again


def cancel_deliveries(session: Session, job_id: uuid.UUID) -> None:
    """Delete every delivery of a job that is being erased."""
    session.execute(delete(Delivery).where(Delivery.job_id == job_id))


def _next_number(session: Session, job_id: uuid.UUID) -> int:
    return (session.scalar(select(func.max(Delivery.number)).where(Delivery.job_id == job_id)) or 0) + 1


def _add_delivery(session: Session, template: Delivery, *, retries: int, automatic: bool, wait_s: float) -> Delivery:
    row = Delivery(
        job_id=template.job_id,
        number=_next_number(session, template.job_id),
        event_id=template.event_id,
        event=template.event,
        url=template.url,
        retries=retries,
        automatic=automatic,
        due_at=func.now() + timedelta(seconds=wait_s),
        payload=template.payload,
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row
