"""The only way to change the database schema, from code or from the command line."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

FOLDER = Path(__file__).parent
LOCK: Final = 7303014
"""Id of the advisory lock, arbitrary but fixed."""
POLL_S: Final = 0.2
WAIT_S: Final = 300.0
"""The longest wait for another migration to end."""


def migrate(engine: Engine, revision: str = "head") -> None:
    """
    Upgrade or downgrade the schema to *revision*; ``base`` is the empty schema.

    Concurrent calls run one after the other. Each migration is committed separately.

    Raises:
        TimeoutError: Another migration did not end within ``WAIT_S``.
    """
    config = Config(FOLDER / "alembic.ini")
    with engine.connect() as connection, _exclusive_lock(connection):
        config.attributes["connection"] = connection
        if revision == "base" or _is_behind(config, connection, revision):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)


def _is_behind(config: Config, connection: Connection, revision: str) -> bool:
    """Return whether *revision* is before the one that the schema has."""
    current = MigrationContext.configure(connection).get_current_revision()
    # Reading the revision began a transaction, and each migration has its own.
    connection.rollback()
    if current is None or revision in ("head", current):
        return False
    before = ScriptDirectory.from_config(config).iterate_revisions(current, "base")
    return revision in {script.revision for script in before}


@contextmanager
def _exclusive_lock(connection: Connection) -> Iterator[None]:
    # The lock is polled: a statement that waits for it would block the concurrent building of an index.
    deadline = time.monotonic() + WAIT_S
    while not connection.scalar(text("select pg_try_advisory_lock(:lock)"), {"lock": LOCK}):
        connection.rollback()
        if time.monotonic() > deadline:
            raise TimeoutError(f"another migration has not ended within {WAIT_S:g} s; try again later")
        time.sleep(POLL_S)
    connection.rollback()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("select pg_advisory_unlock(:lock)"), {"lock": LOCK})
        connection.rollback()
