"""Stored media: one row for each owner and content, however often it is sent."""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.models import Media, new_id


def new_storage_key() -> str:
    """A key for an upload whose content is not known yet."""
    return f"media/{new_id()}"


def attach_media(
    session: Session, *, owner: str, sha256: str, size_bytes: int, storage_key: str, retention_days: float
) -> tuple[Media, str | None]:
    """
    The row for content that was just stored under *storage_key*, locked.

    Returns:
        The media, and *storage_key* if the same content was there already and the new copy has to be deleted.
        Retention starts anew either way.
    """
    expires_at = func.now() + timedelta(days=retention_days)
    session.execute(
        insert(Media)
        .values(
            id=new_id(),
            owner=owner,
            sha256=sha256,
            size_bytes=size_bytes,
            storage_key=storage_key,
            expires_at=expires_at,
        )
        .on_conflict_do_nothing()
    )
    query = select(Media).where(Media.owner == owner, Media.sha256 == sha256).with_for_update()
    media = session.scalars(query.execution_options(populate_existing=True)).one()
    media.expires_at = expires_at
    surplus = None
    if media.storage_key is None:
        media.storage_key = storage_key
    elif media.storage_key != storage_key:
        surplus = storage_key
    session.flush()
    return media, surplus
