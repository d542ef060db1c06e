"""
Admission control: rate limits, quotas of owners, upload slots and limits of open jobs.

Rates are counted in Redis, quotas are computed from the rows. While Redis is unavailable each process counts on its
own, so that an outage neither blocks all clients nor removes the limits (``docs/decisions/0011``).
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from flask import Flask, Response, g, request
from flask_limiter import ApplicationLimit, Limiter
from sqlalchemy import BindParameter, bindparam, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api.config import API, APISettings
from api.errors import APIError
from api.schemas import MAX_BATCH_ITEMS
from api.services import Services
from shared.errors import Code
from shared.media.direct_uploads import measure_open_uploads
from shared.models import Explanation, Job, Media
from shared.states import OPEN_EXPLANATION_STATUSES, OPEN_JOB_STATUSES, ExplanationStatus

SMALL_UPLOAD_BYTES = 1024 * 1024
"""Bodies up to this declared length count as small: they usually arrive at once, and may wait for a slot."""
SMALL_UPLOAD_WAIT_S = 0.5
PAGES = "web"
"""Blueprint of the pages that need no key."""
CONTENT: Final = "upload_content"
"""Blueprint of the address that takes the files of direct uploads, which needs a token and no key."""
PROBES = ("/livez", "/readyz", "/metrics")
REDIS_TIMEOUT_S = 0.25
UPLOAD_RETRY_AFTER_S = 5
CAPACITY_RETRY_AFTER_S = 15
EXPLAIN_AGAIN_AFTER_S = 60
"""How long after its failure an explanation may be requested again, since each request costs all of its attempts."""
OWNER_LOCKS: Final = 4711
"""The class of the advisory locks of owners, arbitrary but fixed."""
LOCK_NOT_AVAILABLE: Final = "55P03"
"""The SQLSTATE of a lock that was waited for as long as the connection's ``lock_timeout``."""
# As text, since every submission executes these: to build a query takes as long as to run one of them. The statuses are
# written into them, so that the planner recognises the indexes of open jobs. The count of an owner reads no more rows
# than the limit, and may so be made under a lock. That of all may read the whole table, if the planner prefers it.
_OPEN: Final[BindParameter[list[str]]] = bindparam(
    "open", [*map(str, OPEN_JOB_STATUSES)], expanding=True, literal_execute=True
)
_LOCK_OWNER: Final = text("select pg_advisory_xact_lock(:class, hashtext(:owner))").bindparams(**{"class": OWNER_LOCKS})
_COUNT_OWN: Final = text(
    "select count(*) from (select from jobs where owner = :owner and status in :open limit :limit) found"
).bindparams(_OPEN)
_COUNT_ALL: Final = text(
    "select count(*), count(*) filter (where owner = :owner)"
    " from (select owner from jobs where status in :open limit :limit) found"
).bindparams(_OPEN)


def register_rate_limits(app: Flask, settings: APISettings) -> Limiter:
    """
    Limit the rate of requests of each key, and of requests without a valid key from each address.

    Requests over the limit get 429 with ``Retry-After``; every response has its limit in ``X-RateLimit-…``. Paths are
    counted separately.
    """
    api = settings.api
    # Hooks run in reverse order, so that this one runs after the limiter's.
    app.after_request(_correct_retry_after)

    def allowed() -> str:
        if request.method == "POST" and request.path == "/v1/batches":
            # As if each were full.
            return f"{max(1, api.submissions_per_minute // MAX_BATCH_ITEMS)}/minute"
        is_submission = request.method == "POST" and (
            request.path in ("/v1/jobs", "/v1/streams", "/v1/uploads")
            or request.path.endswith(("/rescore", "/explanations"))
        )
        return f"{api.submissions_per_minute if is_submission else api.requests_per_minute}/minute"

    refused = ApplicationLimit(
        f"{api.refusals_per_minute}/minute",
        key_function=_client_address,
        scope="refusals",
        deduct_when=lambda response: response.status_code == 401,
        error_message="too many requests without a valid key from this address; wait as long as Retry-After says",
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
        # The options are passed to the Redis client, which accepts fractions of a second.
        storage_options=dict.fromkeys(("socket_connect_timeout", "socket_timeout"), REDIS_TIMEOUT_S),  # type: ignore[arg-type]
        in_memory_fallback_enabled=True,
        key_prefix="deepfakestream",
        headers_enabled=True,
    )
    app.after_request(_remember_retry_after)
    return limiter


def check_capacity(
    session: Session, api: API, owner: str, idempotency_key: str | None, *, stores_file: bool = True
) -> None:
    """
    Refuse a submission over the limits, unless it repeats an accepted one, before its body is read.

    Those of the owner are checked again when the job is made, see ``hold_place``. Concurrent requests can exceed that
    of all owners by their number: keeping to it exactly would make all submissions wait for each other.

    Args:
        stores_file: Whether the submission adds a file, so that the quota of storage applies.

    Raises:
        APIError: ``overloaded`` if the service has too many open jobs; ``too_many_open_jobs`` or
            ``storage_quota_exceeded`` if the owner has reached a limit.
    """
    if _is_replayed(session, owner, idempotency_key):
        return
    total, own = _count_open_jobs(session, api, owner)
    if own >= api.max_open_jobs_per_owner:
        raise _too_many_open_jobs(api, own)
    if total >= api.max_open_jobs:
        raise APIError(
            Code.OVERLOADED,
            "the service has too many open jobs; the job was not accepted, retry later",
            headers={"Retry-After": str(CAPACITY_RETRY_AFTER_S)},
        )
    if stores_file:
        _check_quota(session, api, owner)


def hold_place(
    session: Session, api: API, owner: str, idempotency_key: str | None, *, media: Media | None = None
) -> None:
    """
    Refuse a job over the limits of its owner, with the transaction that is about to make it.

    Other requests of the owner wait until it ends. Call it after the media is locked and before ``create_job``, which
    is the order of all locks; see docs/architecture.md. At a limit a repetition passes, for which ``create_job`` finds
    the job of the first request.

    Args:
        media: The file of the job, which this transaction has stored. Files that ingest fetches later are not counted.

    Raises:
        APIError: ``too_many_open_jobs`` or ``storage_quota_exceeded``; ``rate_limited`` as ``lock_owner`` does.
    """
    lock_owner(session, owner)
    try:
        own = _count_own_jobs(session, api, owner)
        if own >= api.max_open_jobs_per_owner:
            raise _too_many_open_jobs(api, own)
        if media is not None:
            # As before the body was read: as long as there is a byte left, one file of any size is taken.
            _check_quota(session, api, owner, 1 - media.size_bytes)
    except APIError:
        # Only now, since few requests come at a limit.
        if not _is_replayed(session, owner, idempotency_key):
            raise


def lock_owner(session: Session, owner: str) -> None:
    """
    Let other transactions that count what the owner has wait until this one ends.

    Raises:
        APIError: ``rate_limited``: others have held the lock for as long as the database lets a transaction wait.
    """
    try:
        session.execute(_LOCK_OWNER, {"owner": owner})
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise APIError(
            Code.RATE_LIMITED,
            "too many of your requests came at once and wait for each other; this one was not accepted, retry later and"
            " send fewer at a time",
            headers={"Retry-After": str(CAPACITY_RETRY_AFTER_S)},
        ) from None


def free_jobs(session: Session, api: API, owner: str) -> tuple[int, Code]:
    """
    Return how many more jobs the owner may have open, at least 0, and the code of refusals of further ones.

    Other requests of the owner wait until the transaction ends, which makes the jobs. Call it before the first new row.

    Raises:
        APIError: ``rate_limited``, as ``lock_owner`` does.
    """
    total, _ = _count_open_jobs(session, api, owner)
    lock_owner(session, owner)
    of_owner, of_all = api.max_open_jobs_per_owner - _count_own_jobs(session, api, owner), api.max_open_jobs - total
    return max(0, min(of_owner, of_all)), Code.TOO_MANY_OPEN_JOBS if of_owner <= of_all else Code.OVERLOADED


def check_open_explanations(session: Session, api: API, owner: str) -> None:
    """
    Refuse another explanation to an owner who has as many open ones as open jobs are allowed.

    Other requests of the owner wait until the transaction ends, which makes the explanation.

    Raises:
        APIError: ``too_many_open_jobs``.
    """
    lock_owner(session, owner)
    # The query reads no more rows than the limit.
    query = select(Explanation.job_id).join(Job, Job.id == Explanation.job_id)
    query = query.where(Job.owner == owner, Explanation.status.in_(OPEN_EXPLANATION_STATUSES))
    count = session.scalar(select(func.count()).select_from(query.limit(api.max_open_jobs_per_owner).subquery())) or 0
    if count >= api.max_open_jobs_per_owner:
        raise APIError(
            Code.TOO_MANY_OPEN_JOBS,
            f"you have {count} open explanations; the limit max_open_jobs_per_owner is {api.max_open_jobs_per_owner}",
            headers={"Retry-After": str(CAPACITY_RETRY_AFTER_S)},
        )


def check_failed_recently(session: Session, known: Explanation) -> None:
    """
    Refuse to try an explanation again that has just failed.

    Raises:
        APIError: ``rate_limited``: it failed less than ``EXPLAIN_AGAIN_AFTER_S`` ago.
    """
    if known.status != ExplanationStatus.FAILED:
        return
    # By the clock of the database, as the time of the failure.
    age = func.extract("epoch", func.now() - Explanation.finished_at)
    age_s = session.scalar(select(age).where(Explanation.job_id == known.job_id))
    if age_s is not None and age_s < EXPLAIN_AGAIN_AFTER_S:
        raise APIError(
            Code.RATE_LIMITED,
            f"this explanation has just failed; it can be requested again {EXPLAIN_AGAIN_AFTER_S} s after its failure",
            headers={"Retry-After": str(math.ceil(EXPLAIN_AGAIN_AFTER_S - age_s))},
        )


def check_upload_quota(session: Session, api: API, owner: str, size_bytes: int) -> None:
    """
    Refuse a direct upload of *size_bytes* bytes over the owner's limits, with the transaction that announces it.

    Raises:
        APIError: ``too_many_open_uploads`` or ``storage_quota_exceeded``.
    """
    lock_owner(session, owner)
    count, _ = measure_open_uploads(session, owner)
    if count >= api.max_open_jobs_per_owner:
        raise APIError(
            Code.TOO_MANY_OPEN_UPLOADS,
            f"you have {count} uploads without a job; the limit is {api.max_open_jobs_per_owner}",
            headers={"Retry-After": str(CAPACITY_RETRY_AFTER_S)},
        )
    _check_quota(session, api, owner, size_bytes)


def _is_replayed(session: Session, owner: str, idempotency_key: str | None) -> bool:
    if idempotency_key is None:
        return False
    replayed = select(Job.id).where(Job.owner == owner, Job.idempotency_key == idempotency_key)
    return session.scalar(replayed) is not None


def _too_many_open_jobs(api: API, own: int) -> APIError:
    return APIError(
        Code.TOO_MANY_OPEN_JOBS,
        f"you have {own} open jobs; the limit max_open_jobs_per_owner is {api.max_open_jobs_per_owner}",
        headers={"Retry-After": str(CAPACITY_RETRY_AFTER_S)},
    )


def _count_open_jobs(session: Session, api: API, owner: str) -> tuple[int, int]:
    """Return the number of open jobs of all owners, and of *owner*."""
    total, own = session.execute(_COUNT_ALL, {"owner": owner, "limit": api.max_open_jobs}).one()
    return total, own


def _count_own_jobs(session: Session, api: API, owner: str) -> int:
    """Return the number of open jobs of *owner*, or their limit if there are more."""
    return session.scalar(_COUNT_OWN, {"owner": owner, "limit": api.max_open_jobs_per_owner}) or 0


def _check_quota(session: Session, api: API, owner: str, more_bytes: int = 1) -> None:
    """Refuse *more_bytes* over the owner's quota; for a file of unknown size it is at least one byte."""
    max_bytes = api.max_stored_bytes_per_owner
    if max_bytes is not None:
        stored = select(func.sum(Media.size_bytes)).where(Media.owner == owner, Media.storage_key.is_not(None))
        taken = (session.scalar(stored) or 0) + measure_open_uploads(session, owner)[1]
        if taken + more_bytes > max_bytes:
            raise APIError(
                Code.STORAGE_QUOTA_EXCEEDED,
                f"your stored files reach the limit max_stored_bytes_per_owner of {max_bytes} bytes; delete some jobs",
            )


@contextmanager
def upload_slot(services: Services) -> Iterator[None]:
    """
    Hold one of this process's upload slots while the block runs.

    Slow uploads must leave threads for other requests. Small bodies have their own slots, so that they do not wait for
    large ones, and so that slow clients with small bodies occupy no other slots.

    Raises:
        APIError: ``too_many_uploads``: no slot is free.
    """
    length = request.content_length
    is_small = length is not None and length <= SMALL_UPLOAD_BYTES
    slots = services.small_uploading if is_small else services.uploading
    if not slots.acquire(timeout=SMALL_UPLOAD_WAIT_S if is_small else 0.0):
        raise APIError(
            Code.TOO_MANY_UPLOADS,
            "too many uploads in progress; nothing was accepted, retry later",
            headers={"Retry-After": str(UPLOAD_RETRY_AFTER_S)},
        )
    try:
        yield
    finally:
        slots.release()


def _remember_retry_after(response: Response) -> Response:
    """Remember the response's own ``Retry-After`` before the limiter overwrites it."""
    g.retry_after = response.headers.get("Retry-After")
    return response


def _correct_retry_after(response: Response) -> Response:
    """Restore ``Retry-After``: the limiter writes it into every response, and over other values."""
    if g.get("retry_after") is not None:
        response.headers["Retry-After"] = g.retry_after
    elif response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        # The limiter rounds down, which would give 0 in the last second.
        left_s = response.headers.get("Retry-After", type=int) or 0
        response.headers["Retry-After"] = str(left_s + 1)
    else:
        response.headers.pop("Retry-After", None)
    return response


def _identify_client() -> str:
    """Return an identity for rate limits before the key is checked: a digest of the key, or the address."""
    # These check no key, so that a header with any other one would be another identity.
    given = "" if request.blueprint in (PAGES, CONTENT) else request.headers.get("Authorization", "")
    return hashlib.sha256(given.encode("utf-8", "replace")).hexdigest()[:32] if given else _client_address()


def _client_address() -> str:
    return request.remote_addr or "unknown"


def _limits_url(broker_url: str) -> str:
    """Return the broker's address in the notation of the limiter."""
    return broker_url.replace("redis+socket://", "redis+unix://")
