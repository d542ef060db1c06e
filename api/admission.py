"""
Who gets in when many want to: rates of requests, quotas of owners, and bounds on what waits.

Rates are counted in Redis, quotas by the rows themselves. While Redis is away each process counts by itself, so that a
fault there neither locks everybody out nor lets everybody in without limit (``docs/decisions/0011``).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from flask import Flask, Response, g, request
from flask_limiter import ApplicationLimit, Limiter
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.config import API, APISettings
from api.errors import APIError
from api.services import Services
from shared.errors import Code
from shared.media.direct_uploads import measure_open_uploads
from shared.models import Job, Media
from shared.states import OPEN_JOB_STATUSES

SMALL_UPLOAD_BYTES = 1024 * 1024
"""A body that announces no more than this is usually here in a moment, and waits for its place that long."""
SMALL_UPLOAD_WAIT_S = 0.5
PROBES = ("/livez", "/readyz", "/metrics")
REDIS_TIMEOUT_S = 0.25
UPLOAD_RETRY_AFTER_S = 5
CAPACITY_RETRY_AFTER_S = 15


def register_rate_limits(app: Flask, settings: APISettings) -> Limiter:
    """
    Refuse a key that asks too often, and an address from which too many requests without a valid key come.

    A refusal is 429 with ``Retry-After``; every answer tells its limit in ``X-RateLimit-…``. Each path counts by
    itself.
    """
    api = settings.api
    # Hooks run in reverse order: this one after the limiter's.
    app.after_request(_correct_retry_after)

    def allowed() -> str:
        is_submission = request.method == "POST" and request.path in ("/v1/jobs", "/v1/uploads")
        return f"{api.submissions_per_minute if is_submission else api.requests_per_minute}/minute"

    refused = ApplicationLimit(
        f"{api.refusals_per_minute}/minute",
        key_function=_client_address,
        scope="refusals",
        deduct_when=lambda response: response.status_code == 401,
        error_message="too many requests without a valid key came from this address",
    )
    limiter = Limiter(
        _identify_client,
        app=app,
        default_limits=[allowed],
        default_limits_exempt_when=lambda: request.path in PROBES,
        application_limits=[refused],
        application_limits_exempt_when=lambda: request.path in PROBES,
        strategy="sliding-window-counter",
        storage_uri=_limits_url(settings.broker.url),
        # They are handed on to Redis's client, which takes fractions of a second.
        storage_options=dict.fromkeys(("socket_connect_timeout", "socket_timeout"), REDIS_TIMEOUT_S),  # type: ignore[arg-type]
        in_memory_fallback_enabled=True,
        key_prefix="deepfakestream",
        headers_enabled=True,
    )
    app.after_request(_remember_retry_after)
    return limiter


def check_capacity(session: Session, api: API, owner: str, idempotency_key: str | None) -> None:
    """
    Refuse a submission for which there is no room; one that was accepted before needs none.

    The bounds are kept to within the number of requests that are under way at the same time.

    Raises:
        APIError: ``overloaded`` where the service has all it can queue; ``too_many_open_jobs`` or
            ``storage_quota_exceeded`` where this owner has.
    """
    if idempotency_key is not None:
        replayed = select(Job.id).where(Job.owner == owner, Job.idempotency_key == idempotency_key)
        if session.scalar(replayed) is not None:
            return
    # No more rows are looked at than decide the matter.
    waiting = select(Job.owner).where(Job.status.in_(OPEN_JOB_STATUSES)).limit(api.max_open_jobs).subquery()
    row = session.execute(
        select(func.count(), func.count().filter(waiting.c.owner == owner)).select_from(waiting)
    ).one()
    total, own = row
    if own >= api.max_open_jobs_per_owner:
        raise APIError(
            Code.TOO_MANY_OPEN_JOBS,
            f"{own} of your jobs are open; the limit max_open_jobs_per_owner is {api.max_open_jobs_per_owner}",
            headers={"Retry-After": str(CAPACITY_RETRY_AFTER_S)},
        )
    if total >= api.max_open_jobs:
        raise APIError(
            Code.OVERLOADED,
            "the service has as many jobs as it can queue; nothing was accepted, so try again",
            headers={"Retry-After": str(CAPACITY_RETRY_AFTER_S)},
        )
    _check_quota(session, api, owner)


def check_upload_quota(session: Session, api: API, owner: str, size_bytes: int) -> None:
    """
    Refuse a direct upload of *size_bytes* for which there is no room.

    Raises:
        APIError: ``too_many_open_uploads`` or ``storage_quota_exceeded``.
    """
    count, _ = measure_open_uploads(session, owner)
    if count >= api.max_open_jobs_per_owner:
        raise APIError(
            Code.TOO_MANY_OPEN_UPLOADS,
            f"{count} of your uploads wait for a job; the limit is {api.max_open_jobs_per_owner}",
            headers={"Retry-After": str(CAPACITY_RETRY_AFTER_S)},
        )
    _check_quota(session, api, owner, size_bytes)


def _check_quota(session: Session, api: API, owner: str, more_bytes: int = 1) -> None:
    """Refuse *more_bytes*: of a file that is still to come, one at least."""
    max_bytes = api.max_stored_bytes_per_owner
    if max_bytes is not None:
        stored = select(func.sum(Media.size_bytes)).where(Media.owner == owner, Media.storage_key.is_not(None))
        taken = (session.scalar(stored) or 0) + measure_open_uploads(session, owner)[1]
        if taken + more_bytes > max_bytes:
            raise APIError(
                Code.STORAGE_QUOTA_EXCEEDED,
                f"your stored files reach the limit max_stored_bytes_per_owner of {max_bytes} bytes; erase some jobs",
            )


@contextmanager
def upload_slot(services: Services) -> Iterator[None]:
    """
    Hold one of the places for bodies of this process while the block runs.

    Uploads that take minutes must not take every thread: others want to poll meanwhile. Small bodies have places of
    their own, so that they do not wait for large ones, and those that are dripped take no more than these.

    Raises:
        APIError: ``too_many_uploads``: none is free.
    """
    length = request.content_length
    is_small = length is not None and length <= SMALL_UPLOAD_BYTES
    places = services.small_uploading if is_small else services.uploading
    if not places.acquire(timeout=SMALL_UPLOAD_WAIT_S if is_small else 0.0):
        raise APIError(
            Code.TOO_MANY_UPLOADS,
            "as many uploads as this service takes at a time are under way; nothing was accepted, so try again",
            headers={"Retry-After": str(UPLOAD_RETRY_AFTER_S)},
        )
    try:
        yield
    finally:
        places.release()


def _remember_retry_after(response: Response) -> Response:
    """Remember what the answer itself says, before the limiter puts the end of its own window there."""
    g.retry_after = response.headers.get("Retry-After")
    return response


def _correct_retry_after(response: Response) -> Response:
    """Let ``Retry-After`` stand on refusals alone: the limiter writes it on every answer, and over other waits."""
    if g.get("retry_after") is not None:
        response.headers["Retry-After"] = g.retry_after
    elif response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        # The limiter rounds down, so that within the last second it would have nobody wait at all.
        left_s = response.headers.get("Retry-After", type=int) or 0
        response.headers["Retry-After"] = str(left_s + 1)
    else:
        response.headers.pop("Retry-After", None)
    return response


def _identify_client() -> str:
    """Tells callers apart before anybody knows whether their key is valid; the key itself is stored nowhere."""
    given = request.headers.get("Authorization", "")
    return hashlib.sha256(given.encode("utf-8", "replace")).hexdigest()[:32] if given else _client_address()


def _client_address() -> str:
    return request.remote_addr or "unknown"


def _limits_url(broker_url: str) -> str:
    """The broker's address as the counting library spells it."""
    return broker_url.replace("redis+socket://", "redis+unix://")


def trust_proxies(app: Flask, count: int) -> None:
    """Take the client's address from ``X-Forwarded-For``, as *count* proxies in front of the service extended it."""
    if count:
        from werkzeug.middleware.proxy_fix import ProxyFix

        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count)  # type: ignore[method-assign]


def add_security_headers(response: Response) -> Response:
    """Headers that keep browsers from making more of an answer than it is."""
    headers = response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    if response.mimetype != "text/html":
        headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    else:
        # The documentation page brings its own scripts and styles, some of them inline.
        own = "'self' 'unsafe-inline'"
        policy = f"default-src 'self'; script-src {own}; style-src {own}; img-src 'self' data:; frame-ancestors 'none'"
        headers.setdefault("Content-Security-Policy", policy)
    return response
