"""
Direct uploads: files that their senders put into storage themselves, by an address that the api has signed.

Such a file lies below ``incoming/`` and can be overwritten for as long as the address is good. Ingest therefore works
on a copy that nobody else can reach, and only that becomes the job's media.
"""

import uuid
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from shared.media.removals import schedule_deletion
from shared.models import DirectUpload
from shared.storage import INCOMING_PREFIX

CLAIM_RETENTION = timedelta(days=1)
"""For so long the bytes of a claimed upload count as its owner's, should its job end without taking it over."""


def incoming_key(upload_id: uuid.UUID) -> str:
    """Where storage holds the upload *upload_id*."""
    return f"{INCOMING_PREFIX}/{upload_id}"


def incoming_id(storage_key: str) -> uuid.UUID:
    """The upload that ``incoming_key`` made *storage_key* of."""
    return uuid.UUID(storage_key.removeprefix(f"{INCOMING_PREFIX}/"))


def begin_upload(
    session: Session, upload_id: uuid.UUID, *, owner: str, size_bytes: int, lifetime_s: int
) -> DirectUpload:
    """Note that *owner* may send the file of *upload_id* within *lifetime_s*."""
    upload = DirectUpload(
        id=upload_id, owner=owner, size_bytes=size_bytes, expires_at=func.now() + timedelta(seconds=lifetime_s)
    )
    session.add(upload)
    session.flush()
    session.refresh(upload)
    return upload


def find_upload(session: Session, *, owner: str, upload_id: uuid.UUID) -> int | None:
    """Announced bytes of an upload; None if *owner* has no such one, or it was taken, or its time is over."""
    return session.scalar(select(DirectUpload.size_bytes).where(*_is_open(owner, upload_id)))


def claim_upload(session: Session, *, owner: str, upload_id: uuid.UUID) -> bool:
    """Take the upload for a job; False if ``find_upload`` would not find it any more."""
    claimed = update(DirectUpload).where(*_is_open(owner, upload_id)).values(claimed_at=func.now())
    return session.scalar(claimed.returning(DirectUpload.id)) is not None


def drop_upload(session: Session, storage_key: str) -> None:
    """Forget the upload below *storage_key*: it is a job's media now, or that job was erased."""
    session.execute(delete(DirectUpload).where(DirectUpload.id == incoming_id(storage_key)))


def measure_open_uploads(session: Session, owner: str) -> tuple[int, int]:
    """How many uploads *owner* has begun and made no job of, and the bytes of all that are not yet a job's media."""
    query = select(
        func.count().filter(DirectUpload.claimed_at.is_(None)), func.coalesce(func.sum(DirectUpload.size_bytes), 0)
    )
    count, size = session.execute(query.where(DirectUpload.owner == owner)).one()
    return int(count), int(size)


def expire_uploads(session: Session) -> None:
    """
    Forget uploads whose address is not good any more, and those whose job was given up.

    The files of the former are owed; those of the latter are their jobs' to give up.
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
