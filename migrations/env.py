"""Alembic's environment: runs migrations on the connection that ``migrations.schema`` hands over."""

from alembic import context

from shared.models import Base

config = context.config


def run() -> None:
    """Migrate within one transaction; two runs at the same time wait for each other."""
    connection = config.attributes["connection"]
    context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
    with context.begin_transaction():
        # Released with the transaction. The number is arbitrary but fixed.
        connection.exec_driver_sql("select pg_advisory_xact_lock(7303014)")
        context.run_migrations()


run()
