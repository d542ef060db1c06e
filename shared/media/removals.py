"""
Removal of files that no row needs any more.

A transaction records the removals that it causes, so that the file is removed in the end even if the process dies right
after the commit or storage is unavailable: ``tidy`` repeats pending removals.
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
"""The most failures in a run of the task ``tidy``."""


def schedule_deletion(session: Session, storage_key: str) -> None:
    """Schedule the removal of a file after the commit. Its key must never be used again."""
    session.execute(insert(Removal).values(storage_key=storage_key).on_conflict_do_nothing())
    after_commit(session).remove(storage_key)


def pending_deletions(session: Session, limit: int) -> Sequence[str]:
    """Return storage keys of pending removals, in random order, so that those that fail do not block the others."""
    return session.scalars(select(Removal.storage_key).order_by(func.random()).limit(limit)).all()


def remove_files(
    sessions: SessionFactory, storage: Storage, storage_keys: Sequence[str], *, max_failures: int = MAX_FAILURES
) -> int:
    """
    Remove files whose removal is scheduled and committed.

    Failures are logged and stay pending. If the database is unavailable, removals stay pending, too; repeating them is
    harmless.

    Args:
        max_failures: Stop after so many failures, since storage is then presumed unavailable; each can take two
            minutes.

    Returns:
        The number of files that were removed.
    """
    removed: list[str] = []
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
            removed.append(key)
    if removed:
        try:
            with sessions.transaction() as session:
                session.execute(delete(Removal).where(Removal.storage_key.in_(removed)))
        except SQLAlchemyError:
            log.exception("removals not recorded yet")
    return len(removed)


@contextmanager
def unclaimed_file(storage: Storage, storage_key: str) -> Iterator[None]:
    """
    Guard a stored file that no row refers to yet, while the block commits a row that does.

    The file is removed if the block raises. It is kept if the outcome of the commit is unknown, or if the process is
    being terminated: if there is no row, ``tidy`` removes it a day later.
    """
    try:
        yield
    except UnconfirmedCommitError:
        raise
    except Exception:
        try:
            storage.delete(storage_key)
        except StorageError:
            # The original error is the one to report.
            log.exception("unclaimed file not removed; tidy removes it later")
        raise
