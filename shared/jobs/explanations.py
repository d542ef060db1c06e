"""
Explanations of jobs: requested for a job, made once it has succeeded, and erased with its media.

The images of an explanation are one object in storage, so that they appear and vanish together, and so that an
explanation costs one request to an S3 server and not ninety. The result says where each of them begins.
"""

import hashlib
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, undefer

from shared.db import after_commit
from shared.errors import ObjectMissingError, StorageError
from shared.media.removals import schedule_deletion
from shared.models import Explanation, Job, Media, new_id
from shared.queues import EXPLAIN
from shared.states import OPEN_EXPLANATION_STATUSES, ExplanationStatus
from shared.storage import EXPLANATION_PREFIX, Storage


def find_explanation(session: Session, job_id: uuid.UUID) -> Explanation | None:
    """Return the explanation of a job with its result; None if none was requested."""
    query = select(Explanation).where(Explanation.job_id == job_id).options(undefer(Explanation.result))
    return session.scalars(query).one_or_none()


def is_requestable(job: Job, known: Explanation | None) -> bool:
    """
    Return whether a request makes a job's explanation, whose result is loaded: the first time, or again.

    It does not while one is pending, running or done, or if the media is gone.
    """
    is_stored = job.media is not None and job.media.storage_key is not None
    return is_stored and (known is None or known.status == ExplanationStatus.FAILED or _is_pictureless(known))


def _is_pictureless(explanation: Explanation) -> bool:
    return explanation.storage_key is None and bool((explanation.result or {}).get("images"))


def request_explanation(session: Session, job: Job) -> Explanation:
    """
    Request the explanation of a locked job that has succeeded, unless one is pending, running or done.

    One that failed, and one whose images have expired, are made again.

    Raises:
        ObjectMissingError: The job's media is not stored, so it cannot be decoded again.
    """
    known = find_explanation(session, job.id)
    if not is_requestable(job, known):
        if known is not None and known.status != ExplanationStatus.FAILED:
            # Done or on its way; of one whose media is gone the numbers are all that is left.
            return known
        raise ObjectMissingError(f"the media of job {job.id} is not stored, so it cannot be explained")
    if known is None:
        known = Explanation(job_id=job.id)
        session.add(known)
    else:
        known.status, known.attempts, known.send_after = ExplanationStatus.PENDING, 0, func.now()
        known.result = known.error_code = known.error_detail = known.started_at = known.finished_at = None
    session.flush()
    start_explanation(session, job.id)
    session.refresh(known)
    return known


def start_explanation(session: Session, job_id: uuid.UUID) -> None:
    """Send the message for the explanation of a job that has succeeded, if it was requested and is not done."""
    started = session.execute(
        update(Explanation)
        .where(Explanation.job_id == job_id, Explanation.status.in_(OPEN_EXPLANATION_STATUSES))
        .values(sent_at=func.now(), send_after=func.now())
        .returning(Explanation.job_id)
    ).one_or_none()
    if started is not None:
        after_commit(session).send(EXPLAIN, job_id=job_id)


def fail_explanation(row: Explanation, code: str, detail: str) -> None:
    """Set a locked explanation to failed."""
    row.status, row.finished_at = ExplanationStatus.FAILED, func.now()
    row.error_code, row.error_detail = code, detail
    row.lease_token = row.leased_until = None


def drop_explanation(session: Session, job_id: uuid.UUID) -> None:
    """Erase the explanation of a locked job, and schedule the removal of its images."""
    dropped = session.execute(
        delete(Explanation).where(Explanation.job_id == job_id).returning(Explanation.storage_key)
    ).one_or_none()
    if dropped is not None and dropped[0] is not None:
        schedule_deletion(session, dropped[0])


def expire_images(session: Session, retention_days: float, limit: int) -> int:
    """
    Erase the images of at most *limit* explanations whose media is not stored any more, or that are older than it may
    become; their numbers stay.

    It is a step of its own and no part of the erasure of media, since a process of an older release, which does not
    know of images, erases media as well.

    Returns:
        The number of explanations.
    """
    gone = (
        ~select(Job.id)
        .join(Media, Job.media_id == Media.id)
        .where(Job.id == Explanation.job_id, Media.storage_key.is_not(None))
        .exists()
    )
    is_old = Explanation.finished_at < func.now() - timedelta(days=retention_days)
    query = select(Explanation).where(Explanation.storage_key.is_not(None), gone | is_old)
    rows = session.scalars(query.limit(limit).with_for_update(skip_locked=True)).all()
    for row in rows:
        if row.storage_key is not None:
            schedule_deletion(session, row.storage_key)
        row.storage_key = None
    return len(rows)


def new_images_key() -> str:
    """Return a new storage key for the images of an explanation."""
    return f"{EXPLANATION_PREFIX}/{new_id()}"


def store_images(storage: Storage, key: str, images: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """
    Write *images* to storage as one object.

    Returns:
        Place, size and digest of each by its name: ``offset``, ``size_bytes`` and ``sha256``.

    Raises:
        StorageError: They could not be written.
    """
    places: dict[str, dict[str, Any]] = {}
    offset = 0
    upload = storage.create(key)
    try:
        for name, data in images.items():
            upload.write(data)
            places[name] = {"offset": offset, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            offset += len(data)
        upload.commit()
    finally:
        upload.abort()
    return places


def read_images(storage: Storage, key: str, places: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """
    Read images of an explanation, for which its object is opened once.

    Args:
        places: Those to read, as ``store_images`` returned them.

    Returns:
        The images by their names.

    Raises:
        ObjectMissingError: The images were erased.
        StorageError: They cannot be read, or are not what was stored.
    """
    images = {}
    with storage.open(key) as file:
        for name, place in places.items():
            file.seek(place["offset"])
            images[name] = file.read(place["size_bytes"])
    if any(hashlib.sha256(data).hexdigest() != places[name]["sha256"] for name, data in images.items()):
        raise StorageError("an image of an explanation is not the one that was stored")
    return images
