"""Engine, sessions, and one transaction a request or task step."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from shared.config import Database


def make_engine(settings: Database, *, threads: int | None = None) -> Engine:
    """
    An engine for this process; make it after the fork, never before.

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
    """Opens transactions on one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._maker = sessionmaker(engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits when the block ends and rolls back when it raises."""
        with self._maker.begin() as session:
            yield session

    def check(self) -> None:
        """Raise unless the database answers."""
        with self.engine.connect() as connection:
            connection.execute(text("select 1"))
