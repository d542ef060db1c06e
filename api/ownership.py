"""The jobs of the caller. Another owner's job is answered like one that does not exist."""

import uuid

from sqlalchemy.orm import Session

from api.auth import caller
from api.errors import APIError
from shared.errors import Code
from shared.jobs.queries import get_job, lock_job
from shared.models import Job


def find_own_job(session: Session, job_id: uuid.UUID) -> Job:
    """Return the caller's job with its media. Raises APIError with ``not_found``."""
    return _found(get_job(session, job_id, owner=caller().owner), job_id)


def lock_own_job(session: Session, job_id: uuid.UUID) -> Job:
    """Return the caller's job, locked until the transaction ends. Raises APIError with ``not_found``."""
    return _found(lock_job(session, job_id, owner=caller().owner), job_id)


def _found(job: Job | None, job_id: uuid.UUID) -> Job:
    if job is None:
        raise APIError(Code.NOT_FOUND, f"there is no job {job_id}")
    return job
