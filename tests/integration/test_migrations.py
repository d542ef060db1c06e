from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from migrations.schema import migrate
from shared.config import Database
from shared.db import make_engine
from shared.models import Base
from tests.servers import new_database


def test_the_schema_goes_up_down_and_up_again_and_equals_the_models(postgres_url):
    with new_database(postgres_url) as url:
        engine = make_engine(Database(url=url))
        try:
            migrate(engine)
            assert set(Base.metadata.tables) <= set(inspect(engine).get_table_names())
            migrate(engine, "base")
            assert inspect(engine).get_table_names() == ["alembic_version"]
            migrate(engine)
            with engine.connect() as connection:
                context = MigrationContext.configure(connection, opts={"compare_type": True})
                assert compare_metadata(context, Base.metadata) == []
        finally:
            engine.dispose()
