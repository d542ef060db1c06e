"""
Direct uploads: files that clients put into storage themselves, by an address that the api presigned.

Such a file is stored below ``incoming/`` and can be overwritten while the address is valid. Ingest therefore makes a
copy that clients cannot reach, and only the copy becomes the job's media.
"""

import uuid
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from shared.media.removals import schedule_deletion
from shared.models import DirectUpload
from shared.storage import INCOMING_PREFIX

CLAIM_RETENTION = timedelta(days=1)
"""How long a claimed upload counts towards its owner's quota if its job ends without ingesting it."""


def incoming_key(upload_id: uuid.UUID) -> str:
    """Return the storage key of the upload *upload_id*."""
    return f"{INCOMING_PREFIX}/{upload_id}"


def incoming_id(storage_key: str) -> uuid.UUID:
    """Return the id of the upload that is stored under *storage_key*."""
    return uuid.UUID(storage_key.removeprefix(f"{INCOMING_PREFIX}/"))


def begin_upload(
    session: Session, upload_id: uuid.UUID, *, owner: str, size_bytes: int, lifetime_s: int
) -> DirectUpload:
    """Add an upload of *size_bytes* bytes for *owner*, which expires after *lifetime_s* seconds."""
    upload = DirectUpload(
        id=upload_id, owner=owner, size_bytes=size_bytes, expires_at=func.now() + timedelta(seconds=lifetime_s)
    )
    session.add(upload)
    session.flush()
    session.refresh(upload)
    return upload


def find_upload(session: Session, *, owner: str, upload_id: uuid.UUID) -> int | None:
    """Return the declared size of an open upload of *owner*; None if it is unknown, claimed or expired."""
    return session.scalar(select(DirectUpload.size_bytes).where(*_is_open(owner, upload_id)))


def claim_upload(session: Session, *, owner: str, upload_id: uuid.UUID) -> bool:
    """Claim the upload for a job. Return False if it is unknown, claimed or expired."""
    claimed = update(DirectUpload).where(*_is_open(owner, upload_id)).values(claimed_at=func.now())
    return session.scalar(claimed.returning(DirectUpload.id)) is not None


def drop_upload(session: Session, storage_key: str) -> None:
    """Delete the row of the upload under *storage_key*: it is a job's media now, or that job was erased."""
    session.execute(delete(DirectUpload).where(DirectUpload.id == incoming_id(storage_key)))


def measure_open_uploads(session: Session, owner: str) -> tuple[int, int]:
    """Return how many uploads of *owner* wait for a job, and the bytes of all that are not yet a job's media."""
    query = select(
        func.count().filter(DirectUpload.claimed_at.is_(None)), func.coalesce(func.sum(DirectUpload.size_bytes), 0)
    )
    count, size = session.execute(query.where(DirectUpload.owner == owner)).one()
    return int(count), int(size)


def expire_uploads(session: Session) -> None:
    """
    Delete the rows of uploads that expired unclaimed, and of those whose job ended without ingesting them.

    The files of the former are scheduled for removal; the end of the job has scheduled those of the latter.
    """
    is_over, is_unclaimed = DirectUpload.expires_at < func.now(), DirectUpload.claimed_at.is_(None)
    for upload_id in session.scalars(delete(DirectUpload).where(is_over, is_unclaimed).returning(DirectUpload.id)):
        schedule_deletion(session, incoming_key(upload_id))
    session.execute(delete(DirectUpload).where(is_over, DirectUpload.claimed_at < func.now() - CLAIM_RETENTION))


def _is_open(owner: str, upload_id: uuid.UUID) -> tuple[ColumnElement[bool], ...]:
    return (
        DirectUpload.id == upload_id,
        DirectUpload.owner == owner,
        DirectUpload.claimed_at.is_(None),
        DirectUpload.expires_at > func.now(),
    )
