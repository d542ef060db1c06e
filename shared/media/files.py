"""Stored media: one row for each owner and content, however often the file is sent."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db import SessionFactory
from shared.errors import ObjectMissingError
from shared.media.removals import schedule_deletion
from shared.models import Job, Media, new_id
from shared.states import FINAL_JOB_STATUSES
from shared.storage import MEDIA_PREFIX, Storage


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A completely stored file that no row refers to yet."""

    storage_key: str
    sha256: str
    size_bytes: int


def new_storage_key() -> str:
    """Return a new storage key for an upload."""
    return f"{MEDIA_PREFIX}/{new_id()}"


@contextmanager
def media_transaction(
    sessions: SessionFactory,
    storage: Storage,
    file: StoredFile,
    *,
    owner: str,
    retention_days: float,
    lock_job: Callable[[Session], object] = lambda _session: None,
) -> Iterator[tuple[Session, Media]]:
    """
    Open a transaction in which *file* is attached as media of *owner*.

    Until the commit, ``unclaimed_file`` is responsible for the file.

    Args:
        lock_job: Locks the job that gets the media, if there is one already: whoever erases jobs locks them before
            their media, and those of a batch all at once.

    Yields:
        The session, and the locked row of the media.
    """
    with sessions.transaction() as session:
        lock_job(session)
        media = _insert_media(session, file, owner=owner, retention_days=retention_days)
        if media is not None:
            yield session, media
            return
    # Storage is asked outside of a transaction, since its answer can take long.
    missing_key = _find_missing_file(sessions, storage, owner=owner, sha256=file.sha256)
    with sessions.transaction() as session:
        lock_job(session)
        yield session, attach_media(session, file, owner=owner, retention_days=retention_days, missing_key=missing_key)


def attach_media(
    session: Session, file: StoredFile, *, owner: str, retention_days: float, missing_key: str | None = None
) -> Media:
    """
    Find or create the row for the content of *file*, and lock it.

    Of two files with the same content one is removed: the new one, or the old one if that is older than the retention.
    Retention restarts in both cases, and a bucket that expires objects by age must not remove the file before it ends.

    Args:
        missing_key: A storage key whose file is missing; the new file replaces it.
    """
    query = select(Media).where(Media.owner == owner, Media.sha256 == file.sha256).with_for_update()
    media = None
    while media is None:
        if (inserted := _insert_media(session, file, owner=owner, retention_days=retention_days)) is not None:
            return inserted
        # The conflicting row may be deleted before it is locked, together with the last job of this content.
        media = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    media.expires_at = _expiry(retention_days)
    if media.storage_key is None or media.storage_key == missing_key:
        media.storage_key = file.storage_key
    elif media.storage_key != file.storage_key:
        surplus = file.storage_key
        if _object_age(session, media.storage_key) > timedelta(days=retention_days) and not _is_in_use(session, media):
            surplus, media.storage_key = media.storage_key, file.storage_key
        schedule_deletion(session, surplus)
    session.flush()
    return media


def _insert_media(session: Session, file: StoredFile, *, owner: str, retention_days: float) -> Media | None:
    """Insert the row for the content of *file*, which locks it; return None if *owner* has one."""
    new = insert(Media).values(
        id=new_id(),
        owner=owner,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        storage_key=file.storage_key,
        expires_at=_expiry(retention_days),
    )
    return session.scalars(new.on_conflict_do_nothing().returning(Media)).one_or_none()


def _expiry(retention_days: float) -> ColumnElement[datetime]:
    return func.now() + timedelta(days=retention_days)


def _find_missing_file(sessions: SessionFactory, storage: Storage, *, owner: str, sha256: str) -> str | None:
    """Return the storage key of this content of *owner* if its file is missing, for instance after loss of a disk."""
    with sessions.transaction() as session:
        query = select(Media.storage_key).where(Media.owner == owner, Media.sha256 == sha256)
        storage_key = session.scalar(query)
    if storage_key is not None:
        try:
            storage.size(storage_key)
        except ObjectMissingError:
            return storage_key
    return None


def _object_age(session: Session, storage_key: str) -> timedelta:
    """Return the age of an object, from its name: a UUIDv7 begins with the milliseconds since 1970."""
    stored_ms = uuid.UUID(storage_key.rpartition("/")[2]).int >> 80
    age_s = session.scalar(select(func.extract("epoch", func.now()) - stored_ms / 1000))
    return timedelta(seconds=float(age_s or 0.0))


def _is_in_use(session: Session, media: Media) -> bool:
    open_jobs = select(Job.id).where(Job.media_id == media.id, Job.status.not_in(FINAL_JOB_STATUSES))
    return session.scalar(open_jobs.limit(1)) is not None
