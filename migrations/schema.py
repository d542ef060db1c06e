"""The database schema: the one way to change it, from code or from the command line."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, text

FOLDER = Path(__file__).parent
LOCK: Final = 7303014
"""Arbitrary but fixed."""
POLL_S: Final = 0.2
WAIT_S: Final = 300.0
"""For another migration to end."""


def migrate(engine: Engine, revision: str = "head") -> None:
    """
    Bring the schema to *revision*, up or down; ``base`` is the empty schema.

    Two that do so at the same time do it one after the other. Each step is committed by itself.

    Raises:
        TimeoutError: Another was not done within ``WAIT_S``.
    """
    config = Config(FOLDER / "alembic.ini")
    with engine.connect() as connection, _alone(connection):
        config.attributes["connection"] = connection
        if revision == "base":
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    # Asked for again and again, since whoever waits within a statement is waited for by the building of an index.
    deadline = time.monotonic() + WAIT_S
    while not connection.scalar(text("select pg_try_advisory_lock(:lock)"), {"lock": LOCK}):
        connection.rollback()
        if time.monotonic() > deadline:
            raise TimeoutError(f"another migration has not ended within {WAIT_S:g} s")
        time.sleep(POLL_S)
    connection.rollback()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("select pg_advisory_unlock(:lock)"), {"lock": LOCK})
        connection.rollback()
