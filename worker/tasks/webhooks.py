"""The step deliver: webhooks, by the Standard Webhooks specification."""

import email.utils
import json
import re
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import httpx
from standardwebhooks import Webhook

from shared.documents.webhooks import JobPayload, StoredPayload
from shared.errors import ForbiddenURLError, JobCancelledError, SourceUnreachableError
from shared.jobs.deliveries import Attempt
from shared.jobs.leases import Lease, Step
from shared.jobs.results import record_attempt
from shared.jobs.segments import read_segments
from shared.models import Delivery
from shared.observability import bind, get_logger
from worker.outbound import request
from worker.tasks.context import Context
from worker.tasks.steps import IsLost, run_step

log = get_logger(__name__)

EXCERPT_BYTES = 1024
"""How much of a receiver's response is kept."""
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


def deliver_webhook(context: Context, delivery_id: uuid.UUID) -> None:
    """Make a delivery attempt if one is due, and record it; a failed attempt schedules the next."""
    run_step(context, Step.DELIVER, (delivery_id,), partial(_deliver, context))


def _deliver(context: Context, lease: Lease, _is_lost: IsLost) -> None:
    settings = context.settings.webhooks
    with context.sessions.transaction() as session:
        delivery = session.get(Delivery, lease.key[0])
        if delivery is None:
            raise JobCancelledError("the job was deleted")
        job = delivery.job
        if delivery.payload is not None:
            payload = StoredPayload.from_delivery(delivery).to_json()
        else:
            payload = JobPayload.from_job(delivery.event, job, read_segments(session, job)).to_json()
        secret, url, event_id, job_id = job.api_key.webhook_secret, delivery.url, delivery.event_id, job.id
    # Compact and sorted, so that every attempt signs the same bytes.
    body = json.dumps(payload, separators=(",", ":"), sort_keys=True)
    with bind(job_id=str(job_id)):
        attempt = make_attempt(url, event_id, body, secret, settings.timeout_s, settings.allow_insecure)
        with context.sessions.transaction() as session:
            record_attempt(session, lease, attempt, settings.retry_schedule_s)
        outcome = "delivered" if attempt.delivered else "failed"
        log.info("webhook attempt", outcome=outcome, status=attempt.response_status, code=attempt.error_code)


def make_attempt(url: str, event_id: str, body: str, secret: str, timeout_s: float, allow_insecure: bool) -> Attempt:
    """
    Post *body*, signed with *secret*, to *url* once.

    Args:
        timeout_s: Limit of each wait for the receiver, and of the whole request.
        allow_insecure: Whether HTTP and private addresses are allowed.

    Returns:
        The outcome; a failure of the receiver does not raise.
    """
    moment = datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(event_id, moment, body),
    }
    try:
        with request(
            "POST",
            url,
            allow_insecure=allow_insecure,
            timeout_s=timeout_s,
            total_s=timeout_s,
            headers=headers,
            content=body,
        ) as response:
            excerpt = _read_excerpt(response)
    except ForbiddenURLError:
        return Attempt(delivered=False, error_code=ForbiddenURLError.code, is_final=True)
    except SourceUnreachableError:
        return Attempt(delivered=False, error_code="receiver_unreachable")
    # A redirect is a failure: following it would send a signed request to another receiver.
    delivered = 200 <= response.status_code < 300
    return Attempt(
        delivered=delivered,
        response_status=response.status_code,
        response_excerpt=excerpt,
        error_code=None if delivered else "receiver_refused",
        retry_after_s=parse_retry_after(response),
        is_final=response.status_code == httpx.codes.GONE,
    )


def _read_excerpt(response: httpx.Response) -> str:
    """Read the first bytes of the response; a body that is cut off or too slow does not change the outcome."""
    collected = b""
    with suppress(httpx.HTTPError):
        for block in response.iter_raw():
            collected += block
            if len(collected) >= EXCERPT_BYTES:
                break
    # Postgres cannot store NUL.
    return collected[:EXCERPT_BYTES].decode("utf-8", "replace").replace("\0", "\ufffd")


def parse_retry_after(response: httpx.Response) -> float | None:
    """
    Parse ``Retry-After``, a number of seconds or a date (RFC 9110, section 10.2.3); return seconds.

    None if it is missing or invalid. Libraries were tried, see docs/decisions/0019.
    """
    value = response.headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
