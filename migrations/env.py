"""Alembic's environment, which runs migrations on the connection that ``migrations.schema`` passes."""

from alembic import context

from shared.models import Base

config = context.config


def run() -> None:
    """Run each migration in its own transaction, since some steps, such as concurrent indexes, need none."""
    connection = config.attributes["connection"]
    context.configure(
        connection=connection, target_metadata=Base.metadata, compare_type=True, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


run()
