"""Waits for the end of a job, for requests with ``Prefer: wait``."""

import re
import uuid

from sqlalchemy import select

from api.auth import caller
from api.errors import APIError
from api.services import Services
from shared.errors import Code
from shared.models import Job
from shared.states import OPEN_JOB_STATUSES

_PREFERENCE = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+')
"""One preference of a list: commas in quotes do not end it."""
_SECONDS = re.compile(r'([0-9]{1,18})|"([0-9]{1,18})"', re.ASCII)


def requested_wait_s(prefer: str | None, max_wait_s: float) -> int:
    """
    Return the whole seconds of ``Prefer: wait=N`` (RFC 7240), at most *max_wait_s*; 0 without a wait.

    Args:
        prefer: The header. Preferences other than ``wait`` are ignored, and so is every ``wait`` but the first.
        max_wait_s: The longest wait that is honoured.

    Raises:
        APIError: ``bad_request``: the number of seconds is missing or malformed.
    """
    for preference in _PREFERENCE.findall(prefer or ""):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            seconds = _SECONDS.fullmatch(value.strip())
            if seconds is None:
                raise APIError(
                    Code.BAD_REQUEST,
                    "the header 'Prefer' has a wait that is no whole number of seconds; send for instance wait=30",
                )
            return min(int(seconds[1] or seconds[2]), int(max_wait_s))
    return 0


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
