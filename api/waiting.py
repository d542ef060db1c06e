"""Waiting for the end of a job, for requests with ``Prefer: wait``."""

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
    Whole seconds of ``Prefer: wait=N``, as RFC 7240 wants them; 0 without one.

    Args:
        prefer: The header. A server may ignore what it cannot read in it.
        max_wait_s: The longest wait that is honoured.
    """
    match = _WAIT.search(prefer or "")
    return min(int(match[1]), int(max_wait_s)) if match else 0


def wait_for_end(services: Services, job_id: uuid.UUID, wait_s: int) -> bool:
    """
    Return when the caller's job has ended, does not exist, or *wait_s* are over.

    Returns:
        Whether the wish was granted: False, at once, for no wait at all, if too many requests wait already, and when
        the process has been asked to stop.
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
