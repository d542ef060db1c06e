"""Doing what a transaction made due, once it is committed. Nothing here raises: upkeep does what fails."""

from collections.abc import Callable
from functools import partial

from sqlalchemy import Engine

from shared.db import Due, SessionFactory
from shared.media.removals import remove
from shared.observability import get_logger
from shared.queues import Sender
from shared.storage import Storage

log = get_logger(__name__)


def open_sessions(engine: Engine, sender: Sender, storage: Storage) -> SessionFactory:
    """Sessions on *engine* whose transactions send their messages and remove the files that they give up."""

    def perform(sessions: SessionFactory, due: Due) -> None:
        # What has been committed stands, whatever is met here: an error would be taken for one of the transaction.
        acts: tuple[Callable[[], None], ...] = (
            partial(_count, due),
            partial(_send, sender, due),
            partial(_remove, sessions, storage, due),
        )
        for act in acts:
            try:
                act()
            except Exception:
                log.exception("not done after a commit; upkeep will")

    return SessionFactory(engine, perform)


def _count(due: Due) -> None:
    for increment in due.counts:
        increment()


def _remove(sessions: SessionFactory, storage: Storage, due: Due) -> None:
    if due.removals:
        # A request or a step is not held up for long by storage that is away.
        remove(sessions, storage, list(due.removals), max_failures=1)


def _send(sender: Sender, due: Due) -> None:
    for sent, message in enumerate(due.messages):
        try:
            sender.send(message)
        except Exception:
            # The others would fail as well, each after a while.
            log.warning("messages not sent", count=len(due.messages) - sent, exc_info=True)
            return
