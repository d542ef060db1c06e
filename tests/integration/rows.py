"""Initial rows for tests with a database."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session

from shared.db import SessionFactory
from shared.jobs.creation import NewJob
from shared.manifests import DEFAULT_CHECKPOINT, Manifest
from shared.media.files import StoredFile, attach_media, new_storage_key
from shared.models import APIKey, Job

WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def _add_key(session: Session, owner: str | None) -> APIKey:
    """Add a key of *owner*, or of a new one."""
    key = APIKey(
        owner=owner or f"owner-{uuid.uuid4().hex[:8]}",
        name="test",
        prefix="dfs_test",
        secret_sha256=uuid.uuid4().bytes,
        scopes=["jobs:write", "jobs:read"],
        webhook_secret=WEBHOOK_SECRET,
    )
    session.add(key)
    session.flush()
    return key


def add_job(session: Session, *, owner: str | None = None, webhook_url: str | None = None) -> Job:
    """Add a queued job with its own media; its message counts as just sent."""
    key = _add_key(session, owner)
    file = StoredFile(new_storage_key(), sha256=uuid.uuid4().hex * 2, size_bytes=1)
    media = attach_media(session, file, owner=key.owner, retention_days=1)
    job = Job(
        owner=key.owner,
        api_key_id=key.id,
        media_id=media.id,
        model=DEFAULT_CHECKPOINT,
        sample_fps=2.0,
        segment_seconds=5.0,
        webhook_url=webhook_url,
        client_metadata={"case": "7"},
        reasons=[],
        request_sha256="0" * 64,
    )
    session.add(job)
    session.flush()
    session.refresh(job)
    return job


def new_job_of(
    session: Session, manifest: Manifest, *, owner: str | None = None, webhook_url: str | None = None
) -> NewJob:
    """Return the values of a job without media, with segments of two seconds, and add the key that makes it."""
    key = _add_key(session, owner)
    return NewJob(
        owner=key.owner,
        api_key_id=key.id,
        media=None,
        source_url=None,
        source_key=None,
        source_sha256=None,
        manifest=manifest.pin(),
        sample_fps=2.0,
        segment_seconds=2.0,
        webhook_url=webhook_url,
        metadata={"case": "7"},
        idempotency_key=None,
        request_sha256="0" * 64,
    )


@contextmanager
def recorded_statements(engine: Engine) -> Iterator[list[str]]:
    """Yield a list to which each statement that *engine* sends in the block is added."""
    statements: list[str] = []

    def record(*given: object) -> None:
        statements.append(str(given[2]))

    event.listen(engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", record)


@contextmanager
def before_commits(engine: Engine, do: Callable[[], None], *, of: str) -> Iterator[None]:
    """
    Call *do* once, right before the next commit of a transaction with a statement that begins with *of*.

    It is the next one within the context, of which *engine* keeps nothing.
    """
    commit, roll_back = engine.dialect.do_commit, engine.dialect.do_rollback
    begun: set[object] = set()
    done: list[bool] = []

    def note(connection, _cursor, statement, *_):
        if statement.lower().startswith(of):
            begun.add(connection.connection.dbapi_connection)

    def do_commit(connection):
        if connection.dbapi_connection in begun and not done:
            done.append(True)
            do()
        commit(connection)

    def do_rollback(connection):
        begun.discard(connection.dbapi_connection)
        roll_back(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.dialect, "do_commit", do_commit)
        patch.setattr(engine.dialect, "do_rollback", do_rollback)
        event.listen(engine, "before_cursor_execute", note)
        try:
            yield
        finally:
            event.remove(engine, "before_cursor_execute", note)


def wait_until_blocked(sessions: SessionFactory, is_over: Callable[[], bool]) -> None:
    """Wait until a transaction of this database waits for a lock, or *is_over* says that there is none to wait for."""
    query = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    deadline = time.monotonic() + 10
    while not is_over():
        with sessions.transaction() as session:
            if session.scalar(text(query)):
                return
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lose_commits(monkeypatch: pytest.MonkeyPatch, engine: Engine, *, of: str) -> list[bool]:
    """
    Lose the database's answer to the next commit of a transaction with a statement that begins with *of*.

    Returns:
        A list that has an item once that has happened.
    """
    commit = engine.dialect.do_commit
    seen: list[bool] = []
    lost: list[bool] = []

    def note(_connection, _cursor, statement, *_):
        if statement.lower().startswith(of):
            seen.append(True)

    def do_commit(connection):
        commit(connection)
        if seen and not lost:
            lost.append(True)
            raise psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly")

    event.listen(engine, "before_cursor_execute", note)
    monkeypatch.setattr(engine.dialect, "do_commit", do_commit)
    return lost
