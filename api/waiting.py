"""Waiting for the end of a job, for requests with ``Prefer: wait``."""

import re
import time
import uuid

from sqlalchemy import select

from api.auth import caller
from api.services import Services
from shared.models import Job
from shared.states import OPEN_JOB_STATUSES

_WAIT = re.compile(r"(?:^|[,;\s])wait=\"?(\d{1,6})\"?(?=$|[,;\s])")


def wanted_wait_s(prefer: str | None, most_s: float) -> float:
    """Seconds of ``Prefer: wait=N``; 0 without one. RFC 7240 lets a server ignore what it cannot read."""
    match = _WAIT.search(prefer or "")
    return min(float(match[1]), most_s) if match else 0.0


def wait_for_end(mine: Services, job_id: uuid.UUID, wait_s: float) -> None:
    """Return when the job has ended or *wait_s* are over, or at once if too many requests wait already."""
    if not mine.waiting.acquire(blocking=False):
        return
    try:
        deadline = time.monotonic() + wait_s
        wanted = select(Job.status, Job.deleted_at).where(Job.id == job_id, Job.owner == caller().owner)
        while True:
            with mine.sessions.transaction() as session:
                row = session.execute(wanted).one_or_none()
            if row is None or row.deleted_at is not None or row.status not in OPEN_JOB_STATUSES:
                return
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(mine.settings.api.poll_every_s, left_s))
    finally:
        mine.waiting.release()
