"""Stored media: one row for each owner and content, however often it is sent."""

import uuid
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db import SessionFactory
from shared.errors import ObjectMissingError
from shared.media.removals import owe_removal
from shared.models import Job, Media, new_id
from shared.states import FINAL_JOB_STATUSES
from shared.storage import MEDIA_PREFIX, Storage


def new_storage_key() -> str:
    """A key for an upload whose content is not known yet."""
    return f"{MEDIA_PREFIX}/{new_id()}"


def lost_file(sessions: SessionFactory, storage: Storage, *, owner: str, sha256: str) -> str | None:
    """The key under which this content of *owner* should be stored and is not, as after the loss of a disk."""
    with sessions.transaction() as session:
        query = select(Media.storage_key).where(Media.owner == owner, Media.sha256 == sha256)
        storage_key = session.scalar(query)
    if storage_key is not None:
        try:
            storage.size(storage_key)
        except ObjectMissingError:
            return storage_key
    return None


def attach_media(
    session: Session,
    *,
    owner: str,
    sha256: str,
    size_bytes: int,
    storage_key: str,
    retention_days: float,
    lost: str | None = None,
) -> tuple[Media, str | None]:
    """
    The row for content that was just stored under *storage_key*, locked.

    Args:
        lost: Of ``lost_file``: the new file takes that one's place.

    Returns:
        The media, and the key of a copy that has to be removed, and is owed, because the same content was there
        already: the new one, or the old one if that is older than a file is kept. Retention starts anew either way,
        and a bucket that expires objects by their age must not do so before.
    """
    expires_at = func.now() + timedelta(days=retention_days)
    values = {"owner": owner, "sha256": sha256, "size_bytes": size_bytes, "storage_key": storage_key}
    query = select(Media).where(Media.owner == owner, Media.sha256 == sha256).with_for_update()
    media = None
    while media is None:
        # Whoever erases the last job of this content may take away the row that was in the way.
        new = insert(Media).values(id=new_id(), expires_at=expires_at, **values)
        session.execute(new.on_conflict_do_nothing())
        media = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    media.expires_at = expires_at
    surplus = None
    if media.storage_key is None or media.storage_key == lost:
        media.storage_key = storage_key
    elif media.storage_key != storage_key:
        surplus = storage_key
        if _age(session, media.storage_key) > timedelta(days=retention_days) and not _is_in_use(session, media):
            surplus, media.storage_key = media.storage_key, storage_key
        owe_removal(session, surplus)
    session.flush()
    return media, surplus


def _age(session: Session, storage_key: str) -> timedelta:
    """Since the object was stored: its name is a UUIDv7, which begins with the milliseconds since 1970."""
    stored_ms = uuid.UUID(storage_key.rpartition("/")[2]).int >> 80
    age_s = session.scalar(select(func.extract("epoch", func.now()) - stored_ms / 1000))
    return timedelta(seconds=float(age_s or 0.0))


def _is_in_use(session: Session, media: Media) -> bool:
    open_jobs = select(Job.id).where(Job.media_id == media.id, Job.status.not_in(FINAL_JOB_STATUSES))
    return session.scalar(open_jobs.limit(1)) is not None
