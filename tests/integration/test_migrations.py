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


def test_upgrade_downgrade_and_upgrade_give_the_schema_of_the_models(postgres_url):
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


ROWS_OF_0008 = """
insert into api_keys (id, owner, name, prefix, secret_sha256, scopes, webhook_secret)
values ('00000000-0000-0000-0000-000000000001', 'o', 'n', 'p', 's', '[]', 'w');
insert into jobs (
    id, owner, api_key_id, status, model, sample_fps, segment_seconds, metadata, request_sha256, reasons, attempts
)
select ('00000000-0000-0000-0000-00000000010' || number)::uuid, 'o', '00000000-0000-0000-0000-000000000001',
    status, 'm', 2, 5, '{}', '', '[]', 1
from (values (0, 'succeeded'), (1, 'running'), (2, 'cancelled')) as jobs (number, status);
insert into segments (job_id, index, start_s, end_s, status, fake_score, result, attempts)
select jobs.id, number, number, number + 1,
    case when number < 3 then 'scored' when number < 5 then 'failed' else 'pending' end,
    case when number < 3 then 0.5 end,
    case when number < 3 then jsonb_build_object(
        'people', jsonb_build_array(1, 2), 'faces_found', number, 'faces_scored', 0, 'frames_decoded', 10,
        'reasons', jsonb_build_array('no_face'), 'engine', 'torch-float16'
    ) end,
    1
from jobs, generate_series(0, 6) as number;
"""


def test_an_erasure_by_the_release_before_0012_forgets_what_that_release_does_not_know(postgres_url):
    with new_database(postgres_url) as url:
        engine = make_engine(Database(url=url))
        try:
            migrate(engine, "0008")
            with engine.begin() as connection:
                connection.exec_driver_sql(ROWS_OF_0008)
            migrate(engine)
            with engine.begin() as connection:
                connection.exec_driver_sql(
                    """
                    update jobs set review = '{"note": "of a person"}', parent_id = id;
                    insert into shares (id, job_id, api_key_id, token_sha256, expires_at)
                    select id, id, api_key_id, id::text::bytea, now() + '1 day' from jobs
                    """
                )
                connection.exec_driver_sql("update jobs set deleted_at = now() where status = 'succeeded'")
                left = "select status from jobs where review is not null and parent_id is not null order by status"
                assert connection.exec_driver_sql(left).scalars().all() == ["cancelled", "running"]
                assert connection.exec_driver_sql("select count(*) from shares").scalar_one() == 2
            migrate(engine, "0011")
            with engine.begin() as connection:
                connection.exec_driver_sql("update jobs set deleted_at = now()")
            migrate(engine)
        finally:
            engine.dispose()


def test_0013_is_undone_and_done_again_with_explanations(postgres_url):
    removals = "select storage_key from removals order by storage_key"
    with new_database(postgres_url) as url:
        engine = make_engine(Database(url=url))
        try:
            migrate(engine, "0008")
            with engine.begin() as connection:
                connection.exec_driver_sql(ROWS_OF_0008)
            migrate(engine)
            fill = (
                "insert into explanations (job_id, status, storage_key)"
                " select id, 'succeeded', case when status <> 'running' then '{}/' || status end from jobs"
            )
            with engine.begin() as connection:
                connection.exec_driver_sql(fill.format("explanations"))
            migrate(engine, "0012")
            assert "explanations" not in inspect(engine).get_table_names()
            with engine.begin() as connection:
                found = connection.exec_driver_sql(removals).scalars().all()
                assert found == ["explanations/cancelled", "explanations/succeeded"]
                # The trigger of jobs does not refer to the table any more.
                connection.exec_driver_sql("update jobs set deleted_at = now() where status = 'cancelled'")
            migrate(engine)
            with engine.begin() as connection:
                connection.exec_driver_sql("delete from removals")
                connection.exec_driver_sql(fill.format("again"))
                connection.exec_driver_sql("update jobs set deleted_at = now() where status = 'succeeded'")
                assert connection.exec_driver_sql(removals).scalars().all() == ["again/succeeded"]
                connection.exec_driver_sql("delete from segments")
                connection.exec_driver_sql("delete from jobs")
                assert connection.exec_driver_sql(removals).scalars().all() == ["again/cancelled", "again/succeeded"]
        finally:
            engine.dispose()


def test_streams_of_0015_are_ended_erased_and_undone_by_the_database(postgres_url):
    removals = "select storage_key from removals order by storage_key"
    fill = """
    insert into streams (job_id, source, secret, rolling, duration_limit_s, record, state)
    select id, 'rtsp://a/…', '{"url": "rtsp://a/key"}', '{}', 60, 'none', 'connected' from jobs;
    insert into stream_events (job_id, seq, kind, payload) select id, 1, 'segment', '{}' from jobs;
    update segments set storage_key = 'live/' || jobs.id from jobs
    where jobs.id = job_id and index = 5;
    """
    with new_database(postgres_url) as url:
        engine = make_engine(Database(url=url))
        try:
            migrate(engine, "0008")
            with engine.begin() as connection:
                connection.exec_driver_sql(ROWS_OF_0008)
                connection.exec_driver_sql("update jobs set status = 'running', finished_at = null")
            migrate(engine)
            with engine.begin() as connection:
                connection.exec_driver_sql(fill)
                # As a release does that does not know streams: it cancels one, and erases another.
                connection.exec_driver_sql("update jobs set status = 'cancelled' where id::text like '%%100'")
                connection.exec_driver_sql("update jobs set deleted_at = now() where id::text like '%%101'")
                connection.exec_driver_sql("delete from segments where job_id::text like '%%101'")
            with engine.begin() as connection:
                found = "select job_id::text, secret is null, rolling is null, state from streams order by job_id"
                rows = [(key[-3:], *row) for key, *row in connection.exec_driver_sql(found).all()]
                assert rows == [("100", True, True, "ended"), ("102", False, False, "connected")]
                assert connection.exec_driver_sql("select count(*) from stream_events").scalar_one() == 2
                keys = connection.exec_driver_sql(removals).scalars().all()
                assert [key[-3:] for key in keys] == ["101"]
            migrate(engine, "0014")
            with engine.begin() as connection:
                assert "streams" not in inspect(engine).get_table_names()
                keys = connection.exec_driver_sql(removals).scalars().all()
                assert [key[-3:] for key in keys] == ["100", "101", "102"]
                # The triggers do not refer to the tables any more.
                connection.exec_driver_sql("update jobs set status = 'failed', deleted_at = now()")
            migrate(engine)
        finally:
            engine.dispose()


def test_filling_segment_summaries_can_be_restarted(postgres_url):
    with new_database(postgres_url) as url:
        engine = make_engine(Database(url=url))
        migrate(engine, "0008")
        with engine.begin() as connection:
            connection.exec_driver_sql(ROWS_OF_0008)
        # The state after an attempt that was interrupted while it filled the tables.
        migrate(engine, "0009")
        with engine.begin() as connection:
            connection.exec_driver_sql("update alembic_version set version_num = '0008'")
            connection.exec_driver_sql("update segments set people_count = null where index = 1")
            connection.exec_driver_sql("update jobs set segments_done = null where status = 'cancelled'")
        migrate(engine)
        with engine.connect() as connection:
            found = connection.exec_driver_sql(
                "select index, people_count, faces_found, faces_scored, frames_decoded, reasons, engine"
                " from segments where result is not null order by job_id, index"
            ).all()
            assert found == [(index, 2, index, 0, 10, ["no_face"], "torch-float16") for index in (0, 1, 2)] * 3
            without = connection.exec_driver_sql("select people_count, reasons from segments where result is null")
            assert set(without.all()) == {(None, None)}
            # In an open job, the count begins with the next segment that is done.
            done = "select status, segments_done from jobs order by id"
            assert connection.exec_driver_sql(done).all() == [("succeeded", 5), ("running", None), ("cancelled", 5)]
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "update segments set status = 'failed' from jobs"
                " where jobs.id = job_id and jobs.status = 'running' and index = 5"
            )
            assert connection.exec_driver_sql(done).all()[1] == ("running", 6)
        engine.dispose()


def test_concurrent_migrations_and_concurrent_indexes_work(postgres_url, tmp_path, monkeypatch):
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


def test_an_unavailable_database_is_reported_in_a_message():
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
