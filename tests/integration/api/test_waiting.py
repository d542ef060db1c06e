"""Requests that wait for the end of a job are notified by Postgres and poll rarely."""

import threading
import time
import uuid
from contextlib import contextmanager

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from api.embedded.servers import Postgres
from api.errors import APIError
from api.listener import CHANNEL, JobEndListener
from api.waiting import requested_wait_s
from migrations.schema import migrate
from shared.config import Database
from shared.db import SessionFactory, make_engine
from shared.models import Job
from tests.clips import noise_picture
from tests.integration.rows import add_job
from tests.servers import state_folder

END = "update jobs set status = 'cancelled', finished_at = now() where id = :id"
ERASE = "update jobs set status = 'cancelled', deleted_at = now() where id = :id"


def wait_until(condition, timeout_s=20.0):
    """Wait until *condition* holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


@contextmanager
def counted(engine):
    """Count the queries of job states that *engine* sends."""
    looks = []

    def count_query(_connection, _cursor, statement, *_):
        if statement.startswith("SELECT jobs.status, jobs.deleted_at"):
            looks.append(statement)

    event.listen(engine, "before_cursor_execute", count_query)
    yield looks
    event.remove(engine, "before_cursor_execute", count_query)


class Waiters:
    """Threads with requests that wait for one job."""

    def __init__(self, api, headers, path, count):
        self.answers = []
        self._threads = [threading.Thread(target=self._wait, args=(api, headers, path)) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _wait(self, api, headers, path):
        self.answers.append(api.call("GET", path, {**headers, "Prefer": "wait=50"}))

    def join(self):
        for thread in self._threads:
            thread.join(40)
            assert not thread.is_alive()


def execute(api, statement, **values):
    """Execute a statement as a worker of any release could."""
    with api.sessions.transaction() as session:
        session.execute(text(statement), values)


@pytest.mark.parametrize(("statement", "status"), [(END, 200), (ERASE, 404)], ids=["end", "erasure"])
def test_fifty_waiting_requests_query_once_before_and_once_after_the_end(make_api, statement, status):
    # Polling would take a thousand queries per second.
    api = make_api(threads=140, poll_every_s=0.001, requests_per_minute=10_000)
    services = api.app.extensions["deepfakestream"]
    auth, _ = api.key()
    job, other = (api.submit(auth, noise_picture(number)).json["id"] for number in (1, 2))
    warm = Waiters(api, auth, f"/v1/jobs/{other}", 1)
    wait_until(lambda: services.listener.is_listening)
    execute(api, END, id=other)
    warm.join()
    with counted(services.sessions.engine) as looks:
        waiters = Waiters(api, auth, f"/v1/jobs/{job}", 50)
        wait_until(lambda: services.listener.waiters == 50 and len(looks) == 50)
        # Neither the end of another job nor progress of this one wakes a request.
        third = api.submit(auth, noise_picture(3)).json["id"]
        execute(api, END, id=third)
        execute(api, "update jobs set status = 'running', segments_total = 3 where id = :id", id=job)
        execute(api, statement, id=job)
        waiters.join()
    assert {answer.status_code for answer in waiters.answers} == {status}
    assert len(waiters.answers) == 50
    assert len(looks) == 100
    assert services.listener.waiters == 0


def test_one_connection_listens_for_all_waiting_requests(make_api):
    api = make_api(threads=32)
    services = api.app.extensions["deepfakestream"]
    auth, _ = api.key()
    job = api.submit(auth).json["id"]
    waiters = Waiters(api, auth, f"/v1/jobs/{job}", 8)
    wait_until(lambda: services.listener.is_listening and services.listener.waiters == 8)
    with api.sessions.transaction() as session:
        listening = "select count(*) from pg_stat_activity where datname = current_database() and query like 'listen %'"
        assert session.scalar(text(listening)) == 1
    execute(api, END, id=job)
    waiters.join()
    services.listener.close()
    assert not services.listener.is_listening


def test_a_rollback_wakes_no_request(make_api):
    api = make_api()
    auth, _ = api.key()
    job = api.submit(auth).json["id"]
    listener = api.app.extensions["deepfakestream"].listener
    looks = []
    waiting = threading.Thread(
        target=listener.wait, args=(uuid.UUID(job), lambda: looks.append(1) or len(looks) > 2, 40)
    )
    waiting.start()
    wait_until(lambda: listener.is_listening and len(looks) == 2)
    with api.sessions.engine.connect() as connection:
        connection.execute(text(END), {"id": job})
        connection.rollback()
    # Notifications arrive in order: once another job's is here, one of the rollback would be, too.
    other, other_queries = api.submit(auth).json["id"], []
    witness = threading.Thread(
        target=listener.wait, args=(uuid.UUID(other), lambda: other_queries.append(1) or len(other_queries) > 1, 40)
    )
    witness.start()
    wait_until(lambda: len(other_queries) == 1)
    execute(api, END, id=other)
    witness.join(20)
    assert (len(other_queries), len(looks)) == (2, 2)
    execute(api, END, id=job)
    waiting.join(20)
    assert len(looks) == 3


@pytest.mark.parametrize(
    "settings",
    [{"listen": False}, {"listen_url": "postgresql+psycopg://nobody@127.0.0.1:1/none"}, {"listen_url": "elsewhere"}],
    ids=["off", "unreachable", "another database"],
)
def test_without_notifications_requests_poll(make_api, monkeypatch, postgres_url, settings):
    # As with a pooler in transaction mode: the connection listens, but no notification arrives.
    monkeypatch.setattr("api.listener.SELF_TEST_TIMEOUT_S", 0.1)
    if settings.get("listen_url") == "elsewhere":
        settings = {"listen_url": postgres_url}
    monkeypatch.setattr("api.listener.DISCONNECTED_POLL_S", 0.01)
    api = make_api(poll_every_s=0.01, **settings)
    services = api.app.extensions["deepfakestream"]
    auth, _ = api.key()
    job = api.submit(auth).json["id"]
    with counted(services.sessions.engine) as looks:
        waiters = Waiters(api, auth, f"/v1/jobs/{job}", 1)
        wait_until(lambda: len(looks) > 25)
        assert not services.listener.is_listening
        execute(api, END, id=job)
        waiters.join()
    assert waiters.answers[0].json["status"] == "cancelled"


def test_a_restart_of_postgres_ends_no_wait_and_misses_no_end():
    with state_folder() as folder:
        postgres = Postgres(folder / "postgres")
        engine = make_engine(Database(url=postgres.start()))
        listener = JobEndListener(engine, engine.url.render_as_string(False), connect_timeout_s=5, poll_every_s=0.2)
        sessions = SessionFactory(engine)
        try:
            migrate(engine)
            with sessions.transaction() as session:
                jobs = [add_job(session).id for _ in range(2)]
            over, checked = [], set()

            def wait(job_id):
                def has_ended():
                    with sessions.transaction() as session:
                        is_final = session.get(Job, job_id).is_final
                    checked.add(threading.get_ident())
                    return is_final

                listener.wait(job_id, has_ended, 60)
                over.append(job_id)

            threads = [threading.Thread(target=wait, args=(job_id,)) for job_id in jobs * 5]
            for thread in threads:
                thread.start()
            wait_until(lambda: listener.is_listening and len(checked) == 10)
            postgres.stop()
            wait_until(lambda: not listener.is_listening)
            assert over == []
            assert postgres.start()
            # One job ends while there may be no listener, and one after the listener is back.
            with sessions.transaction() as session:
                session.execute(text(END), {"id": jobs[0]})
            wait_until(lambda: over == jobs[:1] * 5)
            wait_until(lambda: listener.is_listening)
            with sessions.transaction() as session:
                session.execute(text(END), {"id": jobs[1]})
            wait_until(lambda: len(over) == 10)
            for thread in threads:
                thread.join()
        finally:
            listener.close()
            engine.dispose()
            postgres.stop()


def test_a_submission_can_wait_for_its_job(make_api):
    api = make_api()
    listener = api.app.extensions["deepfakestream"].listener
    auth, _ = api.key()
    assert "Preference-Applied" not in api.submit(auth).headers
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(api.submit({**auth, "Prefer": "wait=50"}, noise_picture(9)))
    )
    thread.start()
    wait_until(lambda: listener.waiters == 1)
    execute(api, "update jobs set status = 'cancelled', finished_at = now()")
    thread.join(20)
    (answer,) = answers
    assert (answer.status_code, answer.json["status"]) == (201, "cancelled")
    assert answer.headers["Preference-Applied"] == "wait=50"
    assert api.call("GET", answer.headers["Location"], auth).json == answer.json


@pytest.mark.parametrize("where", ["wait_for_end", "_reload_document"])
def test_an_accepted_submission_succeeds_even_if_its_wait_fails(make_api, monkeypatch, where):
    """An error would make the client submit it again."""
    api = make_api()
    auth, _ = api.key()

    def fail(*_):
        raise OperationalError("select", {}, Exception())

    monkeypatch.setattr(f"api.acceptance.{where}", fail)
    if where != "wait_for_end":
        monkeypatch.setattr("api.acceptance.wait_for_end", lambda *_: True)
    answer = api.submit({**auth, "Prefer": "wait=1"})
    assert (answer.status_code, answer.json["status"]) == (202, "queued")
    assert "Preference-Applied" not in answer.headers


def test_preference_applied_is_sent_only_for_an_applied_wait(make_api):
    api = make_api(max_wait_s=3.9)
    services = api.app.extensions["deepfakestream"]
    auth, _ = api.key()
    job = api.submit(auth).headers["Location"]

    def applied(prefer):
        return api.call("GET", job, {**auth, "Prefer": prefer}).headers.get("Preference-Applied")

    places = api.settings.api.waiting
    for _ in range(places):
        assert services.waiting.acquire(blocking=False)
    assert applied("wait=5") is None
    for _ in range(places):
        services.waiting.release()
    assert applied("wait=1") == "wait=1"
    assert applied("wait=0") is applied("respond-async") is None
    api.call("POST", f"{job}/cancel", auth)
    assert applied("wait=60") == applied("wait=99999999999") == "wait=3"


@pytest.mark.parametrize(
    ("prefer", "wanted"),
    [(None, 0), ("wait=7", 7), ("Wait = 7", 7), ('respond-async, wait="7"', 7), ("wait=7, wait=9", 7), ("await=7", 0),
     ('x="a, wait=9", wait=7', 7), ("x; wait=9", 0), ("wait=7; x=1", 7), ('x="wait=9', 0), ("", 0), (",,", 0),
     ("wait=" + "9" * 18, 60)],
)  # fmt: skip
def test_the_requested_wait_is_parsed(prefer, wanted):
    assert requested_wait_s(prefer, 60.0) == wanted


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=7s", "wait=-7", "wait=1.5", "wait=\u0667", 'wait="7'])
def test_a_malformed_wait_is_refused(prefer):
    with pytest.raises(APIError, match="whole number of seconds; send for instance wait=30"):
        requested_wait_s(prefer, 60.0)


def test_a_submission_with_a_malformed_wait_makes_no_job(api):
    auth, _ = api.key()
    answer = api.submit({**auth, "Prefer": "wait=soon"})
    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")
    assert api.call("GET", "/v1/jobs", auth).json["items"] == []
    job = api.submit(auth).headers["Location"]
    assert api.call("GET", job, {**auth, "Prefer": "wait=soon"}).status_code == 400
    assert api.call("POST", f"{job}/rescore", {**auth, "Prefer": "wait=soon"}, json={}).status_code == 400


def test_a_repeated_submission_of_a_job_that_has_ended_is_answered_with_200(api):
    auth, _ = api.key()
    given = {**auth, "Idempotency-Key": "once", "Prefer": "wait=50"}
    accepted = api.submit({**given, "Prefer": "wait=0"})
    assert (accepted.status_code, accepted.json["poll_after_s"]) == (202, 2.0)
    api.call("POST", f"{accepted.headers['Location']}/cancel", auth)
    again = api.submit(given)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.headers["Location"] == accepted.headers["Location"]
    assert again.json["id"] == accepted.json["id"]
    # Without a wait the answer is that of every repetition.
    plain = api.submit({**auth, "Idempotency-Key": "once"})
    assert (plain.status_code, plain.json["poll_after_s"]) == (202, None)


def test_the_channel_matches_the_trigger(engine):
    with engine.connect() as connection:
        body = connection.scalar(text("select prosrc from pg_proc where proname = 'jobs_notify_end'"))
    assert f"'{CHANNEL}'" in body
