"""Effects of committed transactions: messages, removed files, metrics. They never raise; upkeep repeats what fails."""

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
    """Make a session factory on *engine* that runs the effects of its transactions with *sender* and *storage*."""

    def run_effects(sessions: SessionFactory, pending: PendingEffects) -> None:
        # The transaction is committed: an error raised here would look like its failure.
        effects: tuple[Callable[[], None], ...] = (
            partial(_count, pending),
            partial(_send, sender, pending),
            partial(_remove, sessions, storage, pending),
        )
        for effect in effects:
            try:
                effect()
            except Exception:
                log.exception("effect of a commit failed; upkeep repeats it")

    return SessionFactory(engine, run_effects)


def _count(pending: PendingEffects) -> None:
    for increment in pending.counts:
        increment()


def _remove(sessions: SessionFactory, storage: Storage, pending: PendingEffects) -> None:
    if pending.removals:
        # Storage that is unavailable must not delay a request or a step for long.
        remove_files(sessions, storage, list(pending.removals), max_failures=1)


def _send(sender: Sender, pending: PendingEffects) -> None:
    for sent, message in enumerate(pending.messages):
        try:
            sender.send(message)
        except Exception:
            # The other messages would fail, too, each after a timeout.
            log.warning("messages not sent", count=len(pending.messages) - sent, exc_info=True)
            return
