"""
Files that rows have given up.

What a transaction gives up it writes down as well, so that the file goes in the end even if the process dies right
after the commit, or storage is away then: ``tidy`` removes what is still owed.
"""

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.db import SessionFactory
from shared.errors import StorageError
from shared.models import Removal
from shared.observability import get_logger
from shared.storage import Storage

log = get_logger(__name__)

PATIENCE = 5
"""Files that storage may refuse to remove before it is taken to be away: each can take two minutes then."""


def owe_removal(session: Session, storage_key: str) -> None:
    """Write down that the file is to go, once this transaction is committed. Its key must never be used again."""
    session.execute(insert(Removal).values(storage_key=storage_key).on_conflict_do_nothing())


def owed_removals(session: Session, limit: int) -> Sequence[str]:
    """Some of the files that are still to go: any, so that those that cannot be removed do not stand before others."""
    return session.scalars(select(Removal.storage_key).order_by(func.random()).limit(limit)).all()


def remove(sessions: SessionFactory, storage: Storage, storage_keys: Sequence[str]) -> int:
    """
    Remove files that are owed, after the commit that gave them up.

    Returns:
        How many are gone. What storage refuses to remove is logged, and owed still; after some of these the rest is
        not tried now. If the database cannot be told, they are owed still as well: nothing is wrong with removing
        what is gone.
    """
    gone: list[str] = []
    failures = 0
    for key in storage_keys:
        try:
            storage.delete(key)
        except StorageError:
            log.exception("file not removed yet")
            failures += 1
            if failures == PATIENCE:
                break
        else:
            gone.append(key)
    if gone:
        try:
            with sessions.transaction() as session:
                session.execute(delete(Removal).where(Removal.storage_key.in_(gone)))
        except SQLAlchemyError:
            log.exception("removals not noted yet")
    return len(gone)
