"""Alembic's environment: runs migrations on the connection that ``migrations.schema`` hands over."""

from alembic import context

from shared.models import Base

config = context.config


def run() -> None:
    """Migrate, each step in a transaction of its own: some, such as indexes built beside writers, take none."""
    connection = config.attributes["connection"]
    context.configure(
        connection=connection, target_metadata=Base.metadata, compare_type=True, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


run()
