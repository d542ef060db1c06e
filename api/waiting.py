"""Waits for the end of a job, for requests with ``Prefer: wait``."""

import re
import uuid

from sqlalchemy import select

from api.auth import caller
from api.services import Services
from shared.models import Job
from shared.states import OPEN_JOB_STATUSES

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,18})\"?(?=$|[,;\s])", re.IGNORECASE)


def requested_wait_s(prefer: str | None, max_wait_s: float) -> int:
    """
    Return the whole seconds of ``Prefer: wait=N`` (RFC 7240), at most *max_wait_s*; 0 without a wait.

    Args:
        prefer: The header. Unknown and malformed preferences are ignored.
        max_wait_s: The longest wait that is honoured.
    """
    match = _WAIT.search(prefer or "")
    return min(int(match[1]), int(max_wait_s)) if match else 0


def wait_for_end(services: Services, job_id: uuid.UUID, wait_s: int) -> bool:
    """
    Wait until the caller's job has ended or does not exist, or *wait_s* seconds are over.

    Returns:
        Whether the preference was applied. It is False without a wait, if too many requests already wait, and if the
        process is stopping.
    """
    if wait_s <= 0 or not services.waiting.acquire(blocking=False):
        return False
    try:
        wanted = select(Job.status, Job.deleted_at).where(Job.id == job_id, Job.owner == caller().owner)

        def has_ended() -> bool:
            with services.sessions.transaction() as session:
                row = session.execute(wanted).one_or_none()
            return row is None or row.deleted_at is not None or row.status not in OPEN_JOB_STATUSES

        return services.listener.wait(job_id, has_ended, wait_s)
    finally:
        services.waiting.release()
