"""Effects of a transaction run after its commit, and never without it."""

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from shared.db import PROBE_EVERY_S, SILENCE_S, UnconfirmedCommitError, after_commit, is_definite_rejection
from shared.effects import make_session_factory
from shared.errors import StorageError
from shared.media.removals import schedule_deletion, unclaimed_file
from shared.models import Removal, new_id
from shared.storage import FileStorage


class Sender:
    """A sender that records messages, and can be made to fail."""

    def __init__(self):
        self.sent, self.asked, self.is_away = [], 0, False

    def send(self, message):
        self.asked += 1
        if self.is_away:
            raise ConnectionError("the broker is unavailable")
        self.sent.append(message)


@pytest.fixture
def sender():
    return Sender()


@pytest.fixture
def storage(tmp_path):
    return FileStorage(tmp_path.as_uri())


@pytest.fixture
def sessions(engine, sender, storage):
    return make_session_factory(engine, sender, storage)


def stored(storage, key="media/file"):
    upload = storage.create(key)
    upload.write(b"file")
    upload.commit()
    return key


def keys(storage):
    return [key for key, _ in storage.list("media")]


def test_effects_run_after_the_commit(sessions, sender, storage):
    key, counted = stored(storage, f"media/{new_id()}"), []
    with sessions.transaction() as session:
        for _ in range(2):
            after_commit(session).send("task", job_id=new_id(), index=1)
        schedule_deletion(session, key)
        after_commit(session).count(lambda: counted.append(1))
        assert (sender.sent, keys(storage), counted) == ([], [key], [])
    assert (len(sender.sent), keys(storage), counted) == (2, [], [1])
    with sessions.transaction() as session:
        assert session.get(Removal, key) is None


def schedule_removal(sessions, key):
    with sessions.transaction() as session:
        after_commit(session).send("task", job_id=new_id())
        schedule_deletion(session, key)
        raise RuntimeError


def test_a_rollback_drops_effects(sessions, sender, storage):
    key = stored(storage, f"media/{new_id()}")
    with pytest.raises(RuntimeError):
        schedule_removal(sessions, key)
    assert (sender.sent, keys(storage)) == ([], [key])


def test_a_message_is_sent_once_per_transaction(sessions, sender):
    job_id = new_id()
    with sessions.transaction() as session:
        after_commit(session).send("task", job_id=job_id)
        after_commit(session).send("task", job_id=job_id)
    assert len(sender.sent) == 1


def test_sending_stops_at_the_first_failure_of_the_broker(sessions, sender):
    sender.is_away = True
    with sessions.transaction() as session:
        for index in range(100):
            after_commit(session).send("task", job_id=new_id(), index=index)
    assert sender.asked == 1


def commit_row(sessions, storage, key, statement="select 1"):
    """Commit a statement while no row refers to the file."""
    with unclaimed_file(storage, key), sessions.transaction() as session:
        session.execute(text(statement))


def test_a_failing_effect_affects_neither_the_file_nor_other_effects(sessions, sender, storage):
    """The transaction is committed, and its rows refer to the file."""

    def refuse():
        raise OSError("no space left for the metrics")

    key = stored(storage)
    with unclaimed_file(storage, key), sessions.transaction() as session:
        after_commit(session).count(refuse)
        after_commit(session).send("task", job_id=new_id())
    assert (keys(storage), len(sender.sent)) == ([key], 1)


class RefusedError(Exception):
    """A driver error with a SQLSTATE, as from the server or a proxy in front of it."""

    def __init__(self, state):
        super().__init__(state)
        self.sqlstate = state


@pytest.mark.parametrize(
    ("state", "is_unknown"),
    [("08006", True), ("57P01", True), ("58030", True), ("40003", True), ("40001", False), ("23505", False)],
)
def test_the_sqlstate_says_whether_the_outcome_of_a_commit_is_known(state, is_unknown):
    assert is_definite_rejection(OperationalError("commit", {}, RefusedError(state))) is not is_unknown


def test_a_file_is_removed_if_the_database_rejects_its_row(sessions, storage):
    key = stored(storage)
    with pytest.raises(IntegrityError):
        commit_row(sessions, storage, key, "insert into jobs (id) values (gen_random_uuid())")
    assert keys(storage) == []


def test_a_connection_to_a_machine_that_has_vanished_is_lost_after_a_while(engine):
    with engine.connect() as connection:
        assert connection.connection.driver_connection is not None
        options = connection.connection.driver_connection.info.get_parameters()
    # Servers of tests listen on sockets of files, on which these options have no effect.
    assert options["tcp_user_timeout"] == str(1000 * SILENCE_S)
    assert (options["keepalives_idle"], options["keepalives_interval"]) == (str(PROBE_EVERY_S), str(PROBE_EVERY_S))


def test_a_deferred_constraint_is_not_a_lost_connection(engine, sessions, storage):
    """Such a commit has certainly failed, so the file is removed."""
    with engine.begin() as connection:
        connection.execute(text("create table late (id int primary key deferrable initially deferred)"))
    try:
        key = stored(storage)
        with pytest.raises(IntegrityError):
            commit_row(sessions, storage, key, "insert into late values (1), (1)")
        assert keys(storage) == []
    finally:
        with engine.begin() as connection:
            connection.execute(text("drop table late"))


@pytest.mark.parametrize("error", [psycopg.OperationalError("server closed the connection unexpectedly"), OSError()])
def test_a_file_stays_if_the_outcome_of_the_commit_is_unknown(engine, sessions, storage, monkeypatch, error):
    key = stored(storage)

    def do_commit(_connection):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(engine.dialect, "do_commit", do_commit)
        with pytest.raises(UnconfirmedCommitError):
            commit_row(sessions, storage, key)
    assert keys(storage) == [key]


def test_a_commit_is_unconfirmed_if_the_backend_dies(engine, sessions, storage, monkeypatch):
    key, commit = stored(storage), engine.dialect.do_commit
    executioner = psycopg.connect(engine.url.set(drivername="postgresql").render_as_string(), autocommit=True)

    def do_commit(connection):
        pid = connection.dbapi_connection.info.backend_pid
        executioner.execute("select pg_terminate_backend(%s, 5000)", [pid])
        commit(connection)

    with executioner, monkeypatch.context() as patch:
        patch.setattr(engine.dialect, "do_commit", do_commit)
        with pytest.raises(UnconfirmedCommitError):
            commit_row(sessions, storage, key)
    assert keys(storage) == [key]


def test_an_error_of_storage_does_not_hide_the_original_error(storage, monkeypatch):
    def refuse(_key):
        raise StorageError("away")

    monkeypatch.setattr(storage, "delete", refuse)
    with pytest.raises(ZeroDivisionError), unclaimed_file(storage, "media/file"):
        _ = 1 / 0
