"""The effects of a committed transaction: messages, removed files, counts. Nothing raises: upkeep does what fails."""

from collections.abc import Callable
from functools import partial

from sqlalchemy import Engine

from shared.db import PendingEffects, SessionFactory
from shared.media.removals import remove_files
from shared.observability import get_logger
from shared.queues import Sender
from shared.storage import Storage

log = get_logger(__name__)


def make_session_factory(engine: Engine, sender: Sender, storage: Storage) -> SessionFactory:
    """Sessions on *engine* whose transactions send their messages and remove the files that they give up."""

    def perform(sessions: SessionFactory, pending: PendingEffects) -> None:
        # What has been committed stands, whatever is met here: an error would be taken for one of the transaction.
        acts: tuple[Callable[[], None], ...] = (
            partial(_count, pending),
            partial(_send, sender, pending),
            partial(_remove, sessions, storage, pending),
        )
        for act in acts:
            try:
                act()
            except Exception:
                log.exception("not done after a commit; upkeep will")

    return SessionFactory(engine, perform)


def _count(pending: PendingEffects) -> None:
    for increment in pending.counts:
        increment()


def _remove(sessions: SessionFactory, storage: Storage, pending: PendingEffects) -> None:
    if pending.removals:
        # A request or a step is not held up for long by storage that is away.
        remove_files(sessions, storage, list(pending.removals), max_failures=1)


def _send(sender: Sender, pending: PendingEffects) -> None:
    for sent, message in enumerate(pending.messages):
        try:
            sender.send(message)
        except Exception:
            # The others would fail as well, each after a while.
            log.warning("messages not sent", count=len(pending.messages) - sent, exc_info=True)
            return
