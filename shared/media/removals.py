"""
Files that rows have given up.

What a transaction gives up it writes down as well, so that the file goes in the end even if the process dies right
after the commit, or storage is away then: ``tidy`` removes what is still owed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.db import SessionFactory, UnconfirmedCommitError, after_commit
from shared.errors import StorageError
from shared.models import Removal
from shared.observability import get_logger
from shared.storage import Storage

log = get_logger(__name__)

MAX_FAILURES = 5
"""For the task that tidies up."""


def schedule_deletion(session: Session, storage_key: str) -> None:
    """Have the file removed once this transaction is committed. Its key must never be used again."""
    session.execute(insert(Removal).values(storage_key=storage_key).on_conflict_do_nothing())
    after_commit(session).remove(storage_key)


def pending_deletions(session: Session, limit: int) -> Sequence[str]:
    """Some of the files that are still to go: any, so that those that cannot be removed do not stand before others."""
    return session.scalars(select(Removal.storage_key).order_by(func.random()).limit(limit)).all()


def remove_files(
    sessions: SessionFactory, storage: Storage, storage_keys: Sequence[str], *, max_failures: int = MAX_FAILURES
) -> int:
    """
    Remove files that are owed, after the commit that gave them up.

    Args:
        max_failures: Files that storage may refuse to remove before it is taken to be away: each can take two minutes.

    Returns:
        How many are gone. What storage refuses to remove is logged, and owed still; after some of these the rest is
        not tried now. If the database is away, they are owed still as well: removing what is gone does no harm.
    """
    gone: list[str] = []
    failures = 0
    for key in storage_keys:
        try:
            storage.delete(key)
        except StorageError:
            log.exception("file not removed yet")
            failures += 1
            if failures == max_failures:
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


@contextmanager
def unclaimed_file(storage: Storage, storage_key: str) -> Iterator[None]:
    """
    Hold a stored file that no row knows yet, while the block commits a row that does.

    The file is removed if the block raises, since nothing can know it then. It stays where nobody knows whether the
    commit took place, and where the process itself is being ended: without a row, tidying up finds it a day later.
    """
    try:
        yield
    except UnconfirmedCommitError:
        raise
    except Exception:
        try:
            storage.delete(storage_key)
        except StorageError:
            # The error that brought us here is the one to report.
            log.exception("unclaimed file not removed; tidying up will")
        raise
