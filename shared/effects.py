"""Doing what a transaction made due, once it is committed. Nothing here raises: upkeep does what fails."""

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
        for increment in due.counts:
            increment()
        _send(sender, due)
        if due.removals:
            remove(sessions, storage, list(due.removals))

    return SessionFactory(engine, perform)


def _send(sender: Sender, due: Due) -> None:
    for sent, message in enumerate(due.messages):
        try:
            sender.send(message)
        except Exception:
            # The others would fail as well, each after a while.
            log.warning("messages not sent", count=len(due.messages) - sent, exc_info=True)
            return
