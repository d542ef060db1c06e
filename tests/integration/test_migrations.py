import os
import subprocess
import sys

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


def test_a_database_that_does_not_answer_is_a_sentence():
    settings = {
        "DEEPFAKESTREAM_DATABASE__URL": "postgresql+psycopg://nobody:nothing@127.0.0.1:1/none",
        "DEEPFAKESTREAM_BROKER__URL": "redis://127.0.0.1:1/0",
        "DEEPFAKESTREAM_STORAGE__URL": "file:///nowhere",
    }
    done = subprocess.run(
        [sys.executable, "-m", "migrations", "upgrade"],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Postgres: ")
    assert "Traceback" not in done.stderr
