"""
Direct uploads: files that arrive before their jobs, at an address that the api has given.

It is an address of storage, which the api presigned, or one of the api itself with a token where clients cannot reach
storage. Such a file is stored below ``incoming/`` and can be overwritten while the address is valid. Ingest therefore
makes a copy that clients cannot reach, and only the copy becomes the job's media.
"""

import hmac
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
    session: Session,
    upload_id: uuid.UUID,
    *,
    owner: str,
    size_bytes: int,
    lifetime_s: int,
    token_sha256: bytes | None = None,
) -> DirectUpload:
    """
    Add an upload of *size_bytes* bytes for *owner*, which expires after *lifetime_s* seconds.

    Args:
        token_sha256: Digest of the token in its address, if the api takes the file.
    """
    upload = DirectUpload(
        id=upload_id,
        owner=owner,
        size_bytes=size_bytes,
        expires_at=func.now() + timedelta(seconds=lifetime_s),
        token_sha256=token_sha256,
    )
    session.add(upload)
    session.flush()
    session.refresh(upload)
    return upload


def find_upload(session: Session, *, owner: str, upload_id: uuid.UUID) -> int | None:
    """Return the declared size of an open upload of *owner*; None if it is unknown, claimed or expired."""
    return session.scalar(select(DirectUpload.size_bytes).where(*_is_open(upload_id), DirectUpload.owner == owner))


def find_expected_size(session: Session, upload_id: uuid.UUID, token_sha256: bytes) -> int | None:
    """Return the declared size of an open upload whose token has this digest; None if there is none."""
    query = select(DirectUpload.size_bytes, DirectUpload.token_sha256).where(*_is_open(upload_id))
    found = session.execute(query).one_or_none()
    if found is None or found.token_sha256 is None or not hmac.compare_digest(found.token_sha256, token_sha256):
        return None
    size_bytes: int = found.size_bytes
    return size_bytes


def discard_late_file(session: Session, upload_id: uuid.UUID) -> bool:
    """
    Schedule the removal of a file that was stored after its upload had ended, and return whether that is so.

    Whoever deleted the row has removed the file that was there by then.
    """
    if session.scalar(select(DirectUpload.id).where(DirectUpload.id == upload_id)) is not None:
        return False
    schedule_deletion(session, incoming_key(upload_id))
    return True


def claim_upload(session: Session, *, owner: str, upload_id: uuid.UUID) -> bool:
    """Claim the upload for a job. Return False if it is unknown, claimed or expired."""
    claimed = update(DirectUpload).where(*_is_open(upload_id), DirectUpload.owner == owner)
    claimed = claimed.values(claimed_at=func.now())
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


def _is_open(upload_id: uuid.UUID) -> tuple[ColumnElement[bool], ...]:
    return (
        DirectUpload.id == upload_id,
        DirectUpload.claimed_at.is_(None),
        DirectUpload.expires_at > func.now(),
    )
