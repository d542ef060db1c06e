import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from migrations.schema import FOLDER, migrate
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


def test_several_may_migrate_at_once_and_an_index_may_be_built_beside_writers(postgres_url, tmp_path, monkeypatch):
    shutil.copytree(FOLDER, tmp_path / "migrations")
    [newest] = sorted(path.stem[:4] for path in (FOLDER / "versions").glob("0*.py"))[-1:]
    (tmp_path / "migrations" / "versions" / "9999_index.py").write_text(
        "from alembic import op\n"
        f"revision, down_revision, branch_labels, depends_on = '9999', '{newest}', None, None\n"
        "def upgrade():\n"
        "    with op.get_context().autocommit_block():\n"
        "        op.create_index('ix_beside', 'jobs', ['model'], postgresql_concurrently=True)\n"
        "def downgrade():\n"
        "    op.drop_index('ix_beside')\n"
    )
    monkeypatch.setattr("migrations.schema.FOLDER", tmp_path / "migrations")
    with new_database(postgres_url) as url:
        engines = [make_engine(Database(url=url)) for _ in range(3)]
        with ThreadPoolExecutor() as threads:
            for done in [threads.submit(migrate, engine) for engine in engines]:
                done.result()
        assert "ix_beside" in [index["name"] for index in inspect(engines[0]).get_indexes("jobs")]
        for engine in engines:
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
