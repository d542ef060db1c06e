"""The database engine, and transactions that run their effects after the commit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from shared.config import Database

AMBIGUOUS_SQLSTATES: Final = ("08", "40003", "57P", "58", "XX")
"""
SQLSTATE prefixes of errors that do not say whether a commit took place: lost connections, a server that is stopping,
and system errors, of the database or of a proxy in front of it.
"""

SILENCE_S: Final = 30
"""
A connection whose other end acknowledges nothing for so long is lost, as after a machine or a cable failed. Without it
a process waits for hours, far beyond its leases.
"""
PROBE_EVERY_S: Final = 10
"""How often a connection is probed on which a process waits for an answer."""


class UnconfirmedCommitError(SQLAlchemyError):
    """The connection was lost during a commit, so that its outcome is unknown."""


class Message(NamedTuple):
    """A message for a worker: the name of a task, and the ids that are its arguments."""

    task: str
    ids: tuple[tuple[str, UUID | int], ...]


@dataclass(slots=True)
class PendingEffects:
    """
    Effects of a transaction that run after its commit, and never without it.

    They are lost if the process dies right after the commit. The rows still say what is pending, and upkeep does it
    later.
    """

    messages: dict[Message, None] = field(default_factory=dict)
    """Messages to send, each once, in order."""
    removals: dict[str, None] = field(default_factory=dict)
    """Storage keys of files to remove."""
    counts: list[Callable[[], object]] = field(default_factory=list)
    """Increments of metrics."""

    def send(self, task: str, **ids: UUID | int) -> None:
        """Schedule a message to the workers."""
        self.messages[Message(task, tuple(ids.items()))] = None

    def remove(self, storage_key: str) -> None:
        """Schedule the removal of a file from storage."""
        self.removals[storage_key] = None

    def count(self, increment: Callable[[], object]) -> None:
        """Schedule the increment of a metric."""
        self.counts.append(increment)


def after_commit(session: Session) -> PendingEffects:
    """Return the effects that run after the commit of *session*, to add to them."""
    found: PendingEffects = session.info.setdefault("after_commit", PendingEffects())
    return found


def make_engine(settings: Database, *, threads: int | None = None) -> Engine:
    """
    Make an engine for this process. Call it after the fork: connections do not survive one.

    Args:
        threads: Keep one connection for each and open no more; by default the pool size of *settings*.
    """
    return create_engine(
        settings.url,
        pool_size=threads or settings.pool_size,
        max_overflow=0 if threads else settings.pool_size,
        # A restarted Postgres leaves dead connections in the pool; testing one first costs a round trip and saves a
        # failed request.
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": settings.connect_timeout_s,
            "tcp_user_timeout": 1000 * SILENCE_S,
            "keepalives_idle": PROBE_EVERY_S,
            "keepalives_interval": PROBE_EVERY_S,
            "options": "-c timezone=UTC -c lock_timeout=10000 -c idle_in_transaction_session_timeout=60000",
        },
    )


class SessionFactory:
    """
    A factory of transactions on one engine.

    Args:
        run_effects: Runs the effects of a transaction after its commit; see ``shared.effects``. Without it they are
            dropped, and upkeep does them later.
    """

    def __init__(
        self, engine: Engine, run_effects: "Callable[[SessionFactory, PendingEffects], None] | None" = None
    ) -> None:
        self.engine = engine
        self._maker = sessionmaker(engine, expire_on_commit=False)
        self._run_effects = run_effects

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """
        Open a session that commits when the block ends and rolls back if it raises.

        Its effects run after the commit, before this returns; see ``PendingEffects``.

        Raises:
            UnconfirmedCommitError: It is unknown whether the transaction was committed.
        """
        with self._maker() as session:
            yield session
            session.flush()
            try:
                session.commit()
            except Exception as error:
                if is_definite_rejection(error):
                    raise
                raise UnconfirmedCommitError("the connection was lost during the commit") from error
            pending = after_commit(session)
        if self._run_effects is not None:
            self._run_effects(self, pending)

    def check(self) -> None:
        """Raise unless the database answers."""
        with self.engine.connect() as connection:
            connection.execute(text("select 1"))


def is_definite_rejection(error: Exception) -> bool:
    """Return whether the database rejected a commit: the error has a SQLSTATE, and the connection is still usable."""
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state is not None and not state.startswith(AMBIGUOUS_SQLSTATES)
