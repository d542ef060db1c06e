"""
Direct uploads: files that their senders put into storage themselves, by an address that the api has signed.

Such a file lies below ``incoming/`` and can be overwritten for as long as the address is good. Ingest therefore works
on a copy that nobody else can reach, and only that becomes the job's media.
"""

import uuid
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from shared.models import DirectUpload
from shared.storage import INCOMING_PREFIX


def incoming_key(upload_id: uuid.UUID) -> str:
    """Where storage holds the upload *upload_id*."""
    return f"{INCOMING_PREFIX}/{upload_id}"


def begin_upload(session: Session, *, owner: str, size_bytes: int, lasts_s: int) -> DirectUpload:
    """Note that *owner* may send a file within *lasts_s*."""
    upload = DirectUpload(owner=owner, size_bytes=size_bytes, expires_at=func.now() + timedelta(seconds=lasts_s))
    session.add(upload)
    session.flush()
    session.refresh(upload)
    return upload


def claim_upload(session: Session, *, owner: str, upload_id: uuid.UUID) -> int | None:
    """
    Take the upload for a job, once.

    Returns:
        Its announced bytes; None if there is no such upload of *owner*, or it was taken, or its time is over.
    """
    return session.scalar(
        delete(DirectUpload)
        .where(DirectUpload.id == upload_id, DirectUpload.owner == owner, DirectUpload.expires_at > func.now())
        .returning(DirectUpload.size_bytes)
    )


def announced(session: Session, owner: str) -> tuple[int, int]:
    """How many uploads *owner* has begun and not made a job of, and their bytes."""
    query = select(func.count(), func.coalesce(func.sum(DirectUpload.size_bytes), 0))
    count, size = session.execute(query.where(DirectUpload.owner == owner)).one()
    return int(count), int(size)
