"""Engine, sessions, and transactions that collect what is to be done once they are committed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from shared.config import Database

UNSURE_STATES: Final = ("08", "40003", "57P", "58", "XX")
"""Of the database, or of a proxy before it, that do not say whether a commit took place: lost connections, a server
that is being stopped, failures of the system below it."""


class UnconfirmedCommitError(SQLAlchemyError):
    """The connection was lost while a transaction was being committed: it may or may not have been."""


class Message(NamedTuple):
    """A message for a worker: the name of a task, and the ids that it is given."""

    task: str
    ids: tuple[tuple[str, UUID | int], ...]


@dataclass(slots=True)
class PendingEffects:
    """
    What is done once a transaction is committed, and never if it is not.

    Everything here may also be lost, since a process can die right after its commit: the rows say what is owed, and
    upkeep does it then.
    """

    messages: dict[Message, None] = field(default_factory=dict)
    """Each once, in order."""
    removals: dict[str, None] = field(default_factory=dict)
    """Storage keys of files to remove."""
    counts: list[Callable[[], object]] = field(default_factory=list)
    """Counts to make in metrics."""

    def send(self, task: str, **ids: UUID | int) -> None:
        """Send a message to the workers."""
        self.messages[Message(task, tuple(ids.items()))] = None

    def remove(self, storage_key: str) -> None:
        """Remove a file from storage."""
        self.removals[storage_key] = None

    def count(self, increment: Callable[[], object]) -> None:
        """Count something that has happened."""
        self.counts.append(increment)


def after_commit(session: Session) -> PendingEffects:
    """Return what is done once the transaction of *session* is committed, to add to it."""
    found: PendingEffects = session.info.setdefault("after_commit", PendingEffects())
    return found


def make_engine(settings: Database, *, threads: int | None = None) -> Engine:
    """
    Make an engine for this process, after the fork and never before.

    Args:
        threads: Keep a connection for each, and open no more; as many as *settings* say if not given.
    """
    return create_engine(
        settings.url,
        pool_size=threads or settings.pool_size,
        max_overflow=0 if threads else settings.pool_size,
        # A restarted Postgres leaves dead connections in the pool; asking first costs a round trip on loopback
        # and saves a failed request.
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": settings.connect_timeout_s,
            "options": "-c timezone=UTC -c lock_timeout=10000 -c idle_in_transaction_session_timeout=60000",
        },
    )


class SessionFactory:
    """
    Opens transactions on one engine.

    Args:
        perform: Called after each commit with what is to be done then; see ``shared.effects``. Without it nothing is
            done now, and upkeep does it later.
    """

    def __init__(
        self, engine: Engine, perform: "Callable[[SessionFactory, PendingEffects], None] | None" = None
    ) -> None:
        self.engine = engine
        self._maker = sessionmaker(engine, expire_on_commit=False)
        self._perform = perform

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """
        Give a session that commits when the block ends and rolls back when it raises.

        What it has collected is done after the commit, before this returns; see ``PendingEffects``.

        Raises:
            UnconfirmedCommitError: Nobody knows whether the transaction was committed.
        """
        with self._maker() as session:
            yield session
            session.flush()
            try:
                session.commit()
            except Exception as error:
                if is_refusal(error):
                    raise
                raise UnconfirmedCommitError("the connection was lost during the commit") from error
            pending = after_commit(session)
        if self._perform is not None:
            self._perform(self, pending)

    def check(self) -> None:
        """Raise unless the database answers."""
        with self.engine.connect() as connection:
            connection.execute(text("select 1"))


def is_refusal(error: Exception) -> bool:
    """Whether the database itself refused a commit: that has a state, and leaves the connection usable."""
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state is not None and not state.startswith(UNSURE_STATES)
