"""An api that is asked to stop ends waits at once, with an answer, under the server that serves it."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

from sqlalchemy import text

from tests.servers import free_port

PATIENCE_S = 30.0


@contextmanager
def served(api, **settings):
    """The api of these settings under gunicorn, with one process; yields the server and its port."""
    port = free_port()
    values = {
        "DATABASE__URL": api.settings.database.url,
        "BROKER__URL": api.settings.broker.url,
        "STORAGE__URL": api.settings.storage.url,
        "API__PORT": port,
        "API__PROCESSES": 1,
        **settings,
    }
    environment = os.environ | {f"DEEPFAKESTREAM_{name}": str(value) for name, value in values.items()}
    command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            until(lambda: server.poll() is None and is_ready(port))
            yield server, port
        finally:
            server.kill()


def is_ready(port):
    try:
        return ask(port, "/readyz", {})[0] == http.client.OK
    except OSError:
        return False


def ask(port, path, headers):
    """Status, document and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers
    finally:
        connection.close()


def until(claim):
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_waiting_request_is_answered_when_the_api_stops(make_api):
    """A wait may be longer than the time in which a process has to end: it was cut off without an answer."""
    api = make_api()
    mine, _ = api.key()
    path = api.submit(mine).headers["Location"]
    answers = []

    def wait():
        answers.append(ask(port, path, {**mine, "Prefer": "wait=50"}))

    def is_waiting():
        """The process begins to listen with the first request that waits."""
        with api.sessions.transaction() as session:
            listening = (
                "select count(*) from pg_stat_activity where datname = current_database() and query ~ '^listen '"
            )
            return session.scalar(text(listening)) > 0

    with served(api, API__SHUTDOWN_GRACE_S=3) as (server, port):
        waiting = threading.Thread(target=wait)
        waiting.start()
        until(is_waiting)
        server.terminate()
        waiting.join(PATIENCE_S)
        assert server.wait(PATIENCE_S) == 0
    ((status, document, headers),) = answers
    assert (status, document["status"], headers["Preference-Applied"]) == (http.client.OK, "queued", None)
